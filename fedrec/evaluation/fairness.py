"""Who gains and who loses: what one ranker gains over another, merchant by merchant, and by their size."""

import numpy as np

SIZE_GROUPS = 3


def worst_tenth(values: np.ndarray) -> float:
    """Mean of the lowest tenth of the values, (C,), C >= 1; of one value at least."""
    return float(np.sort(values)[: -(-len(values) // 10)].mean())


def gains(differences: np.ndarray) -> dict[str, float]:
    """Sum up what merchants gain.

    Args:
        differences: of one metric at each merchant, after less before, (C,); NaN where nobody could be asked, and at
            least one is known.

    Returns:
        ``merchants`` that are known; ``gaining`` and ``losing`` among them; ``mean`` and ``median`` gain, every
        merchant counted alike; ``worst_decile``, the mean gain of the tenth of them that gains least.
    """
    known = differences[~np.isnan(differences)]
    return {
        "merchants": len(known),
        "gaining": int((known > 0).sum()),
        "losing": int((known < 0).sum()),
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "worst_decile": worst_tenth(known),
    }


def gains_by_size(differences: np.ndarray, sizes: np.ndarray) -> list[dict[str, float]]:
    """Sum up the gains of small, middling and large merchants: thirds by size, equal sizes never parted.

    Args:
        differences: as for ``gains``.
        sizes: people at each merchant, (C,).

    Returns:
        As ``gains``, with ``people_min`` and ``people_max`` of the merchants in the group; the smallest first, and
        fewer than three groups where sizes hardly differ.
    """
    is_known = ~np.isnan(differences)
    differences, sizes = differences[is_known], sizes[is_known]
    edges = np.quantile(sizes, np.arange(1, SIZE_GROUPS) / SIZE_GROUPS, method="lower")
    group = np.searchsorted(edges, sizes, side="left")
    return [
        {"people_min": int(sizes[group == one].min()), "people_max": int(sizes[group == one].max())}
        | gains(differences[group == one])
        for one in np.unique(group)
    ]
