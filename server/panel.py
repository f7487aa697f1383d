"""The judge: how good an adapter is on public people that the base was not trained on.

It costs no privacy, because these people opted in as public data. The server publishes the round
that does best here, the base itself included.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedrec.agreement import Agreement, agreed_ranker
from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows, padded, window_of_step
from fedrec.schema import Arrays

LATEST_EVENTS = 73  # of each person; bounds the time that measuring a round takes
WINDOWS_AT_A_TIME = 64
CUTOFF = 10

Judge = Callable[[Arrays], dict[str, float]]


def load_judge(run: Path, agreement: Agreement, *, masking: Masking) -> Judge | None:
    """Make the judge of a run; None when the run has no panel.

    Raises:
        RunError: the base is damaged.
        DataError: the panel is damaged.
    """
    path = run / "base" / PANEL
    if not path.exists():
        return None
    ranker, panel = agreed_ranker(agreement, run), Histories.load(path)

    def judge(arrays: Arrays) -> dict[str, float]:
        load_adapter_arrays(ranker, arrays)
        return panel_measures(ranker, panel, masking=masking)

    return judge


@torch.no_grad()
def panel_measures(ranker: Ranker, panel: Histories, *, masking: Masking) -> dict[str, float]:
    """Predict every late event of every panel member from the ones before it, over the whole catalogue.

    Returns:
        ``panel_loss`` (nats) and ``panel_ndcg@10``: means over people of the mean over their events.
    """
    ranker.eval()
    people, sequences, pasts = _windows(panel, history=ranker.spec.history)
    totals = np.zeros((len(panel), 3))  # loss, NDCG, events
    for first in range(0, len(sequences), WINDOWS_AT_A_TIME):
        rows = slice(first, first + WINDOWS_AT_A_TIME)
        windows = padded(sequences[rows])
        np.add.at(totals, people[rows], _measure(ranker, windows, pasts[rows], masking=masking))
    ranker.train()
    totals = totals[totals[:, 2] > 0]
    loss, ndcg = (totals[:, :2] / totals[:, 2:]).mean(axis=0)
    return {"panel_loss": float(loss), f"panel_ndcg@{CUTOFF}": float(ndcg)}


def _windows(panel: Histories, *, history: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Cut everybody's late events into windows that predict each event once.

    Returns:
        Whose each window is, the windows, and what the person took before each.
    """
    late = panel.latest(LATEST_EVENTS)
    counts = -(-(late.lengths - 1).clip(min=0) // history)
    windows, pasts = [], []
    for person, count in enumerate(counts):
        everything = panel.of(person)
        for step in range(count):
            window = window_of_step(late.of(person), step=step, history=history)
            windows.append(window)
            pasts.append(everything[: len(everything) - step * history - len(window)])
    return np.repeat(np.arange(len(panel)), counts), windows, pasts


def _measure(ranker: Ranker, windows: Windows, pasts: list[np.ndarray], *, masking: Masking) -> np.ndarray:
    """Sum loss, NDCG and the number of events over each window: (B, 3)."""
    logits = ranker(windows.items, windows.positions)  # (B, T, I)
    scores = torch.gather(logits, 2, windows.targets[..., None])
    if masking is Masking.LAST:
        last = torch.gather(windows.items, 1, windows.positions)
        logits = logits.scatter(2, last[..., None], float("-inf"))
    elif masking is Masking.HISTORY:
        logits = logits.masked_fill(_is_seen(windows, pasts, items=ranker.items), float("-inf"))
    loss = torch.logsumexp(logits, dim=2) - scores[..., 0]
    ranks = 1 + (logits > scores).sum(dim=2)
    gains = torch.where(ranks <= CUTOFF, 1 / torch.log2(1 + ranks.float()), torch.zeros(ranks.shape))
    measures = torch.stack([loss, gains, torch.ones(ranks.shape)], dim=2)  # (B, T, 3)
    return torch.where(windows.is_target[..., None], measures, torch.zeros(measures.shape)).sum(dim=1).double().numpy()


def _is_seen(windows: Windows, pasts: list[np.ndarray], *, items: int) -> Tensor:
    """Whether each item was taken at or before each position, (B, T, I)."""
    length = windows.items.shape[1]
    first = torch.full((len(pasts), items), length)  # (B, I), the position from which an item is known
    for row, past in enumerate(pasts):
        taken = windows.items[row, windows.is_target[row]]
        first[row].scatter_reduce_(0, taken, torch.arange(len(taken)), "amin")
        first[row, torch.from_numpy(past.astype(np.int64))] = 0
    return first[:, None, :] <= windows.positions[..., None]
