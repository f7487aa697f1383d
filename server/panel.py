"""The judge: how good an adapter is on public people that the base was not trained on.

It costs no privacy, because these people opted in as public data. The server publishes the round
that does best here, the base itself included.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedrec.agreement import Agreement, agreed_ranker
from fedrec.data.histories import Histories
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows, padded, window_of_step
from fedrec.schema import Arrays

LATEST_EVENTS = 73  # of each person; bounds the time that measuring a round takes
WINDOWS_AT_A_TIME = 64
CUTOFF = 10

Judge = Callable[[Arrays], dict[str, float]]


def load_judge(run: Path, agreement: Agreement) -> Judge | None:
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
        return panel_measures(ranker, panel, mask_last=agreement.mask_last)

    return judge


@torch.no_grad()
def panel_measures(ranker: Ranker, panel: Histories, *, mask_last: bool) -> dict[str, float]:
    """Predict every late event of every panel member from the ones before it, over the whole catalogue.

    Returns:
        ``panel_loss`` (nats) and ``panel_ndcg@10``: means over people of the mean over their events.
    """
    ranker.eval()
    people, sequences = _windows(panel.latest(LATEST_EVENTS), history=ranker.spec.history)
    totals = np.zeros((len(panel), 3))  # loss, NDCG, events
    for first in range(0, len(sequences), WINDOWS_AT_A_TIME):
        rows = slice(first, first + WINDOWS_AT_A_TIME)
        windows = padded(sequences[rows])
        np.add.at(totals, people[rows], _measure(ranker, windows, mask_last=mask_last))
    ranker.train()
    totals = totals[totals[:, 2] > 0]
    loss, ndcg = (totals[:, :2] / totals[:, 2:]).mean(axis=0)
    return {"panel_loss": float(loss), f"panel_ndcg@{CUTOFF}": float(ndcg)}


def _windows(panel: Histories, *, history: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut every person's events into windows that predict each event once; returns whose each is, and the windows."""
    counts = -(-(panel.lengths - 1).clip(min=0) // history)
    windows = [
        window_of_step(panel.of(person), step=step, history=history)
        for person, count in enumerate(counts)
        for step in range(count)
    ]
    return np.repeat(np.arange(len(panel)), counts), windows


def _measure(ranker: Ranker, windows: Windows, *, mask_last: bool) -> np.ndarray:
    """Sum loss, NDCG and the number of events over each window: (B, 3)."""
    logits = ranker(windows.items, windows.positions)  # (B, T, I)
    scores = torch.gather(logits, 2, windows.targets[..., None])
    if mask_last:
        last = torch.gather(windows.items, 1, windows.positions)
        logits = logits.scatter(2, last[..., None], float("-inf"))
    loss = torch.logsumexp(logits, dim=2) - scores[..., 0]
    ranks = 1 + (logits > scores).sum(dim=2)
    gains = torch.where(ranks <= CUTOFF, 1 / torch.log2(1 + ranks.float()), torch.zeros(ranks.shape))
    measures = torch.stack([loss, gains, torch.ones(ranks.shape)], dim=2)  # (B, T, 3)
    return torch.where(windows.is_target[..., None], measures, torch.zeros(measures.shape)).sum(dim=1).double().numpy()
