"""How well an adapter ranks what each of a client's people took last. Sensitive: noised before anything leaves.

Each person is scored alone. In a batch, another's presence could move the last bit of a score, and so a rank, and
then one person could change the sum by more than their own share.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fedrec.data.histories import Histories
from fedrec.evaluation.metrics import ranking_metrics, target_ranks
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.ranker import Ranker
from fedrec.schema import Arrays


def person_metrics(
    ranker: Ranker, histories: Histories, adapter: Arrays, *, metrics: Sequence[str], mask_last: bool
) -> np.ndarray:
    """Rank the whole catalogue for everyone's newest event, from the events before it.

    Args:
        ranker: with an adapter; its adapter is overwritten.
        histories: one row a person; who has fewer than two events is left out. Sensitive.
        adapter: the shared arrays to measure.
        metrics: names as in ``fedrec.evaluation.metrics``.
        mask_last: the item just bought is never the next one.

    Returns:
        (N, k) in [0, 1], one row a person; zeros where the ranker gave a score that is not finite. Sensitive.
    """
    load_adapter_arrays(ranker, adapter)
    ranker.eval()
    people = np.flatnonzero(histories.lengths > 1)
    values = np.empty((len(people), len(metrics)))
    for row, person in enumerate(people):
        sequence = histories.of(int(person))
        rank = _rank(ranker, sequence[:-1][-ranker.spec.history :], target=int(sequence[-1]), mask_last=mask_last)
        found = ranking_metrics(rank)
        values[row] = [found[name] for name in metrics]
    ranker.train()
    return values


def _rank(ranker: Ranker, history: np.ndarray, *, target: int, mask_last: bool) -> np.ndarray:
    """Place of one item in the ranking after a history, (1,); infinite when a score is not finite."""
    items = torch.from_numpy(history.astype(np.int64))[None]  # (1, L)
    with torch.inference_mode():
        scores = ranker(items, torch.tensor([[len(history) - 1]]))[0, 0].numpy()  # (I,)
    if not np.isfinite(scores).all():
        return np.array([np.inf])
    if mask_last:
        scores[history[-1]] = -np.inf
    return target_ranks(scores, np.array([target]))
