"""Ranking metrics over the whole catalogue, one number per person. Sampled negatives are not offered.

Ties count half: a target that shares its score with m other items is placed in the middle of them, so a
scorer that gives every item the same score looks like chance and not like a perfect ranker.
"""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (10, 20)
METRICS = tuple(f"{name}@{cutoff}" for cutoff in CUTOFFS for name in ("hr", "ndcg", "mrr", "recall"))


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place one person's targets in the ranking of the whole catalogue.

    Args:
        scores: one person's score of each item, (I,); minus infinity marks an item that cannot be recommended.
        targets: distinct item indices, (T,).

    Returns:
        (T,), float64, 1 is best: 1 + items scored higher + half of the other items scored the same.
    """
    wanted = scores[targets][:, None]  # (T, 1)
    higher = np.count_nonzero(scores > wanted, axis=1)
    same = np.count_nonzero(scores == wanted, axis=1) - 1  # less the target itself
    return 1.0 + higher + 0.5 * same


def ranking_metrics(ranks: np.ndarray, *, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Turn the ranks of one person's targets into metrics.

    Args:
        ranks: (T,), T >= 1, each >= 1; halves are allowed.
        cutoffs: lengths K of the list a person would see.

    Returns:
        For each K: ``hr@K`` (is any target in the list), ``ndcg@K`` (gain over that of the ideal list, which holds
        min(K, T) targets), ``mrr@K`` (1 / best rank, 0 outside the list), ``recall@K`` (targets in the list over
        min(K, T)). Each in [0, 1]. With one target, recall equals hr.

    Source: Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques, section 2 (binary gain,
    discount log2(1 + rank)), https://doi.org/10.1145/582415.582418
    """
    best = float(ranks.min())
    values = {}
    for cutoff in cutoffs:
        shown = ranks[ranks <= cutoff]
        most = min(cutoff, len(ranks))
        ideal = float((1.0 / np.log2(np.arange(most) + 2.0)).sum())
        # Many tied targets can all stand at a middle rank <= K, more of them than a list of K holds: hence the caps.
        values[f"hr@{cutoff}"] = float(best <= cutoff)
        values[f"ndcg@{cutoff}"] = min(1.0, float((1.0 / np.log2(shown + 1.0)).sum()) / ideal)
        values[f"mrr@{cutoff}"] = 1.0 / best if best <= cutoff else 0.0
        values[f"recall@{cutoff}"] = min(1.0, len(shown) / most)
    return values


def top_items(scores: np.ndarray, cutoff: int) -> np.ndarray:
    """Each person's best items.

    Args:
        scores: (B, I).
        cutoff: K >= 1; a shorter catalogue gives a shorter list.

    Returns:
        (B, min(K, I)) item indices, best first.
    """
    kept = min(cutoff, scores.shape[1])
    chosen = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]  # (B, K)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)
