"""Whether numbers are normal noise of a given spread."""

import numpy as np
from scipy import stats


def is_noise_of(sample: np.ndarray, scale: float) -> bool:
    """Chi-square on the spread and Kolmogorov-Smirnov on the shape, each at a false alarm of 1e-6."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(sample))
    return bool(low < ((sample / scale) ** 2).sum() < high and stats.kstest(sample / scale, "norm").pvalue > 1e-6)
