"""Public figures that a budget is split by where no base is at hand to measure, from the bundled Online Retail set.

``benchmarks/pair_profile.py`` makes those of the pairs; docs/experiments.md has those of the adapter.
"""

import math

from fedrec.privacy.splitter import AdapterSignal, PairBucket

BUNDLED_PAIRS = (  # 332 public people listed the pairs, 82 others were measured; first those that were only suggested
    PairBucket(29_618, 2.47e-5, 7.33e-5),
    PairBucket(38_290, 2.64e-5, 7.62e-5),
    PairBucket(17_467, 5.45e-5, 1.33e-4),
    PairBucket(2_941, 2.68e-4, 3.84e-4),
    PairBucket(1_121, 6.72e-4, 8.80e-4),
    PairBucket(413, 1.23e-3, 1.59e-3),
    PairBucket(78, 2.43e-3, 2.51e-3),
    PairBucket(5, 4.90e-3, 4.90e-3),
)
BUNDLED_PARAMETERS = 640  # LoRA of rank 1 on the head, and the norms
_ALONG_NORMS, _ALONG_HEAD = 0.095, 0.035  # of the mean of people's gradients of norm 1; any other group is below .02


def adapter_signal(parameters: int, *, norms: bool) -> AdapterSignal:
    """What an adapter with so many numbers, on the head and perhaps the norms, can be expected to learn from a step.

    Layers beyond these count as numbers to be noised that bring nothing.
    """
    return AdapterSignal(parameters, math.hypot(_ALONG_HEAD, _ALONG_NORMS if norms else 0.0))
