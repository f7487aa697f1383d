"""One protocol for every row of a table: rank the whole catalogue for each person, block by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedrec.data.splits import Split
from fedrec.errors import DataError, RunError
from fedrec.evaluation.fairness import worst_tenth
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.metrics import CUTOFFS, METRICS, ranking_metrics, target_ranks, top_items
from fedrec.evaluation.streaming import DotScorer, ranks_and_best

COLD, COLD_CUTOFF = "cold_hr@10", 10
MOST_CELLS = 1 << 24  # scores held at a time where a scorer gives whole rows, 64 MB

Scorer = Callable[[np.ndarray], np.ndarray]
"""Scores of the whole catalogue, (B, I) float32, for B people given as indices into the split."""


@dataclass(frozen=True)
class Evaluation:
    """What a scorer achieved, person by person.

    Args:
        people: indices of the people who had a target, (N,), in the order asked for.
        per_person: each of ``metrics.METRICS`` -> (N,) float64 in [0, 1].
        coverage: ``coverage@K`` -> share of the catalogue that stood in at least one person's best K, in [0, 1].
        clients: people of each client, as indices into the split; empty when not grouped.
        cold: whether a cold target stood in the best ten, (N,) of 0 and 1, NaN for whom none was asked for; a target is
            cold when it is in nobody's training events, so that only what is said about it can rank it.
    """

    people: np.ndarray
    per_person: dict[str, np.ndarray]
    coverage: dict[str, float]
    clients: tuple[np.ndarray, ...] = ()
    cold: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def cold_people(self) -> int:
        """How many people were asked for a cold item."""
        return int(np.count_nonzero(~np.isnan(self.cold)))

    def means(self) -> dict[str, float]:
        """The mean over people of every metric, coverage, and two means over clients where people are grouped.

        ``merchant_ndcg@10`` counts every client alike, whatever its size; ``worst_decile_ndcg@10`` is the worst tenth;
        ``cold_hr@10`` is there when somebody was asked for a cold item, over those people.
        """
        means = {name: float(values.mean()) for name, values in self.per_person.items()} | self.coverage
        if self.cold_people:
            means[COLD] = float(np.nanmean(self.cold))
        if self.clients:
            means["merchant_ndcg@10"] = float(np.nanmean(self.client_means("ndcg@10")))
            means["worst_decile_ndcg@10"] = self.worst_decile("ndcg@10")
        return means

    def client_means(self, name: str, clients: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Mean of one metric at each client, (C,) float64; NaN where none of a client's people had a target."""
        value_of = dict(zip(self.people.tolist(), self.per_person[name].tolist(), strict=True))
        groups = self.clients if clients is None else clients
        found = [[value_of[person] for person in group.tolist() if person in value_of] for group in groups]
        return np.array([np.mean(values) if values else np.nan for values in found], dtype=np.float64)

    def worst_decile(self, name: str, clients: Sequence[np.ndarray] | None = None) -> float:
        """Mean of one metric over the tenth of clients (at least one) whose own mean is lowest.

        Raises:
            DataError: no client has anyone with a target.
        """
        means = self.client_means(name, clients)
        means = means[~np.isnan(means)]
        if not len(means):
            raise DataError(f"worst decile of {name}: no client has a person with a target; group other people")
        return worst_tenth(means)


def evaluate(
    scorer: Scorer | DotScorer,
    split: Split,
    *,
    people: np.ndarray,
    items: int,
    masking: Masking,
    clients: Sequence[np.ndarray] | None = None,
    batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Rank the whole catalogue for each person and compare with what they took next.

    Args:
        scorer: gives (B, I) finite scores for B people, or says what they look for among the items' vectors.
        split: what was seen and what was held out.
        people: indices into the split, (N,); those without a target are passed over.
        items: size of the catalogue, I.
        masking: what a person's training events take out of the ranking. ``LAST`` is right only where consecutive
            repeats were merged, ``HISTORY`` only where nothing is taken twice: a target that is masked is missed.
        clients: indices into the split for each client, to report the worst of them.
        batch: people scored at a time, at most. The (people, I) matrix is never held whole: rows of scores are as few
            as fit into ``MOST_CELLS``, and of a ``DotScorer`` there are none.
        progress: called with (people done, people in all) after each block.

    Returns:
        The metrics person by person.

    Raises:
        DataError: nobody in ``people`` has a target.
        RunError: the scorer gave a score that is not finite.
        ValueError: the scorer gave another shape than (B, I).
    """
    people = np.asarray(people, dtype=np.int64)
    people = people[split.targets.lengths[people] > 0]
    if not len(people):
        raise DataError(f"none of the people to evaluate has a held-out target; {len(split.train)} people were split")
    per_person = {name: np.empty(len(people)) for name in METRICS}
    is_shown = {cutoff: np.zeros(items, dtype=bool) for cutoff in CUTOFFS}
    is_cold, cold = np.bincount(split.train.items, minlength=items) == 0, np.full(len(people), np.nan)
    if not isinstance(scorer, DotScorer):
        batch = max(1, min(batch, MOST_CELLS // items))
    for start in range(0, len(people), batch):
        block = people[start : start + batch]
        every_rank, best = _placed(scorer, split, block, items=items, masking=masking)
        for cutoff, shown in is_shown.items():
            shown[best[:, :cutoff]] = True
        for row, (person, ranks) in enumerate(zip(block, every_rank, strict=True)):
            targets = split.targets.of(int(person))
            for name, value in ranking_metrics(ranks).items():
                per_person[name][start + row] = value
            if is_cold[targets].any():
                cold[start + row] = ranks[is_cold[targets]].min() <= COLD_CUTOFF
        if progress is not None:
            progress(start + len(block), len(people))
    coverage = {f"coverage@{cutoff}": float(shown.mean()) for cutoff, shown in is_shown.items()}
    return Evaluation(people, per_person, coverage, tuple(clients or ()), cold)


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How much better the second of two scorers did on the same people.

    Args:
        first: one metric person by person, (N,).
        second: the same metric of the same people in the same order, (N,).

    Returns:
        The mean of ``second - first`` and its standard error; the error is NaN for one person.

    Raises:
        ValueError: the two do not line up.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired_difference: {first.shape} against {second.shape}; evaluate both on the same people")
    difference = np.asarray(second, dtype=np.float64) - first
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _placed(
    scorer: Scorer | DotScorer, split: Split, block: np.ndarray, *, items: int, masking: Masking
) -> tuple[list[np.ndarray], np.ndarray]:
    """The rank of each target of each person in ``block``, and everybody's best items, (B, K)."""
    targets = [split.targets.of(int(person)) for person in block]
    if isinstance(scorer, DotScorer):
        hidden = [masking.hidden(split.train.of(int(person))) for person in block]
        return ranks_and_best(scorer, block, targets=targets, hidden=hidden, shown=max(CUTOFFS))
    scores = _checked_scores(scorer(block), people=len(block), items=items)
    if masking is not Masking.NONE:
        scores = _masked(scores, split, block, masking)
    ranks = [target_ranks(row, wanted) for row, wanted in zip(scores, targets, strict=True)]
    return ranks, top_items(scores, max(CUTOFFS))


def _checked_scores(scores: np.ndarray, *, people: int, items: int) -> np.ndarray:
    if scores.shape != (people, items):
        raise ValueError(f"scorer gave shape {scores.shape}: expected {(people, items)}, a score of every item")
    broken = people - int(np.isfinite(scores).all(axis=1).sum())
    if broken:
        raise RunError(f"scores of {broken} of {people} people are not finite: training diverged; lower the step size")
    return scores


def _masked(scores: np.ndarray, split: Split, block: np.ndarray, masking: Masking) -> np.ndarray:
    """A copy in which what each person is not offered scores minus infinity."""
    scores = scores.copy()
    for row, person in enumerate(block):
        scores[row, masking.hidden(split.train.of(int(person)))] = -np.inf
    return scores
