"""How good a ranker is on public people that it was not trained on: every late event, over the whole catalogue."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import paired_difference
from fedrec.model.pairs import PairPart, scores_with
from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows, padded, window_of_step

LATEST_EVENTS = 73  # of each person; bounds the time that measuring takes
WINDOWS_AT_A_TIME = 64
MOST_CELLS = 1 << 25  # scores of all windows held at a time, 128 MB; a window at least
CUTOFF = 10
TEMPERATURES = (0.8, 1.0, 1.25, 1.25**2)  # by which all scores are divided: sureness is no part of a ranking


def panel_measures(
    ranker: Ranker, panel: Histories, *, masking: Masking, parts: Iterable[PairPart] = ()
) -> dict[str, float]:
    """Predict every late event of every panel member from the ones before it, over the whole catalogue.

    Args:
        panel: public people; those with fewer than two events have nothing to predict.
        masking: what is not offered.
        parts: what pairs add to the ranker's score.

    Returns:
        ``panel_loss`` (nats) and ``panel_ndcg@10``: means over people of the mean over their events. The loss is that
        of the scores divided by whichever of ``TEMPERATURES`` suits the panel best: a part that ranks better but makes
        the ranker too sure of itself is not held to be worse.

    Source: temperature scaling, Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599
    """
    return mean_measures(*panel_people(ranker, panel, masking=masking, parts=parts))


def mean_measures(losses: np.ndarray, ndcg: np.ndarray) -> dict[str, float]:
    """The means of what ``panel_people`` returns, as ``panel_measures`` names them."""
    return {"panel_loss": float(losses.mean(axis=0).min()), f"panel_ndcg@{CUTOFF}": float(ndcg.mean())}


@torch.no_grad()
def panel_people(
    ranker: Ranker, panel: Histories, *, masking: Masking, parts: Iterable[PairPart] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """As ``panel_measures``, person by person: the loss at each of ``TEMPERATURES`` (N, T) and NDCG@10 (N,).

    N are those with at least two events, in order.
    """
    ranker.eval()
    people, sequences, pasts = _windows(panel, history=ranker.spec.history)
    totals = np.zeros((len(panel), len(TEMPERATURES) + 2))  # losses, NDCG, events
    at_a_time = max(1, min(WINDOWS_AT_A_TIME, MOST_CELLS // (ranker.spec.history * ranker.items)))
    for first in range(0, len(sequences), at_a_time):
        rows = slice(first, first + at_a_time)
        windows = padded(sequences[rows])
        np.add.at(totals, people[rows], _measure(ranker, parts, windows, pasts[rows], masking=masking))
    ranker.train()
    totals = totals[totals[:, -1] > 0]
    means = totals[:, :-1] / totals[:, -1:]
    return means[:, :-1], means[:, -1]


def fit_weight(
    ranker: Ranker,
    panel: Histories,
    part: PairPart,
    *,
    weights: Sequence[float],
    masking: Masking,
    others: Sequence[PairPart] = (),
) -> float:
    """Choose the smallest weight that ranks the panel as well as the best one does, by NDCG@10.

    As well is within one standard error of the difference, paired over people: a few judges cannot tell such weights
    apart, and beside a merchant's memory, which they do not see, less is better than too much. Not by the loss: a part
    that speaks of few items makes the scores too sure there, and the loss turned off parts that rank much better.

    Args:
        panel: public people whom ``part`` was not counted from, at least one with two events.
        weights: to choose from, ascending; with 0 among them, a part that is of no sure use is turned off.
        masking: what is not offered.
        others: parts that are there whatever is chosen.

    Source: the one-standard-error rule, Breiman et al. 1984, Classification and regression trees, section 3.4.3
    """

    def quality(weight: float) -> np.ndarray:
        return panel_people(ranker, panel, masking=masking, parts=[*others, replace(part, weight=weight)])[1]

    found = {weight: quality(weight) for weight in weights}
    best = max(weights, key=lambda weight: found[weight].mean())
    loss_and_error = {weight: paired_difference(found[weight], found[best]) for weight in weights}
    return next(weight for weight, (loss, error) in loss_and_error.items() if loss <= 0 or loss <= error)


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


def _measure(
    ranker: Ranker, parts: Iterable[PairPart], windows: Windows, pasts: list[np.ndarray], *, masking: Masking
) -> np.ndarray:
    """Sum the loss at each temperature, NDCG and the number of events over each window: (B, temperatures + 2)."""
    logits = scores_with(ranker, parts, windows.items, windows.positions)  # (B, T, I)
    scores = torch.gather(logits, 2, windows.targets[..., None])
    if masking is Masking.LAST:
        last = torch.gather(windows.items, 1, windows.positions)
        logits = logits.scatter(2, last[..., None], float("-inf"))
    elif masking is Masking.HISTORY:
        logits = logits.masked_fill(_is_seen(windows, pasts, items=ranker.items), float("-inf"))
    losses = [torch.logsumexp(logits / by, dim=2) - scores[..., 0] / by for by in TEMPERATURES]
    ranks = 1 + (logits > scores).sum(dim=2)
    gains = torch.where(ranks <= CUTOFF, 1 / torch.log2(1 + ranks.float()), torch.zeros(ranks.shape))
    measures = torch.stack([*losses, gains, torch.ones(ranks.shape)], dim=2)  # (B, T, temperatures + 2)
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
