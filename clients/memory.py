"""A merchant's own memory: what follows what among its people, what a person bought before, what sells now.

It costs no privacy because it never leaves. Its parts are additive, so that an explanation can name them:

    transitions   weight * log(1 + sharpness * P(item | recent items))
    repeats       repeat_weight * again * log(1 + the person's visits that took the item, older ones for less)
    in_basket     -basket_weight for what the person's latest visit took already
    popular       popular_weight * log(1 + how many times the average item this one sells)

``again`` is how often this merchant's people buy again at all, so that ``repeats`` is silent where they never do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.popularity import popularity_counts, visits
from fedrec.model.transitions import Transitions, count_transitions


@dataclass(frozen=True)
class MemorySpec:
    """How the memory is counted and read; chosen on the public panel.

    Attributes:
        weight: gamma, logits.
        sharpness: how soon a probability counts; the part is linear below ``1 / sharpness``.
        window: events apart that still count as a transition; a pair g apart weighs 1/g.
        recent: events of a history that are looked up.
        decay: weight of a looked-up event relative to the next later one.
        shrinkage: pseudo-counts added to each row.
        repeat_weight: logits of a person's own earlier purchases, where everything is bought again.
        repeat_decay: weight of a visit relative to the next later one, in (0, 1].
        basket_weight: logits taken from what the latest visit holds already; right when it goes on, 0 when a new one
            begins.
        popular_weight: logits of the merchant's own popularity.
        popular_half_life_days: age at which a purchase counts half; None counts all alike.
        popular_shrinkage: pseudo-counts of the public prior, or of nothing where there is none.
    """

    weight: float
    sharpness: float
    window: int
    recent: int
    decay: float
    shrinkage: float
    repeat_weight: float
    repeat_decay: float
    basket_weight: float
    popular_weight: float
    popular_half_life_days: float | None
    popular_shrinkage: float


@dataclass(frozen=True, eq=False)
class LocalMemory:
    """The local part of the score. Built from private data: stays on the merchant's machine.

    Attributes:
        spec: how it is read.
        transitions: what followed what.
        again: share of what the merchant's people took after their first visit that they had taken before, in [0, 1].
        popular: the part that is the same for everyone, (I,) float32, >= 0.
    """

    spec: MemorySpec
    transitions: Transitions
    again: float
    popular: np.ndarray

    @classmethod
    def of(
        cls, histories: Histories, spec: MemorySpec, *, items: int, prior: np.ndarray | None = None
    ) -> "LocalMemory":
        """Count the merchant's own people.

        Args:
            prior: public popularity to shrink the merchant's own towards, (I,) shares that sum to 1.
        """
        gap_weights = [1 / gap for gap in range(1, spec.window + 1)]
        return cls(
            spec,
            count_transitions(histories, items=items, gap_weights=gap_weights, shrinkage=spec.shrinkage),
            _again(histories, items=items),
            _popular(histories, spec, items=items, prior=prior),
        )

    def scores(self, history: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the local score of one person, (I,) float32: the sum of ``parts``.

        Args:
            history: item indices, oldest first.
            times: their timestamps, non-decreasing, as many.
        """
        scores = self.popular.copy()
        for _, items, values in self.personal(history, times):
            scores[items] += values.astype(np.float32)
        return scores

    def parts(self, history: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Return each part by name, (I,) float32; all but ``in_basket`` >= 0; zero for what nobody took."""
        parts = {"popular": self.popular.copy()}
        for name, items, values in self.personal(history, times):
            parts[name] = np.zeros(len(self.popular), np.float32)
            parts[name][items] = values
        return parts

    def personal(self, history: np.ndarray, times: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield each part that is a person's own: its name, its distinct items, their logits; zero for others."""
        spec = self.spec
        reached, probabilities = self.transitions.following(history[-spec.recent :], decay=spec.decay)
        yield "transitions", reached, spec.weight * np.log1p(spec.sharpness * probabilities)
        taken, since = _purchases(history, times)
        first = np.flatnonzero(np.diff(taken, prepend=-1))  # of each item: its purchases lie together
        often = np.add.reduceat(spec.repeat_decay**since, first) if len(first) else since
        yield "repeats", taken[first], spec.repeat_weight * self.again * np.log1p(often)
        present = taken[since == 0]
        yield "in_basket", present, np.full(len(present), -spec.basket_weight)


def _purchases(history: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A person's purchases, an item once a visit: items, ascending, and how many visits ago, 0 for the latest."""
    visit = np.cumsum(np.diff(times, prepend=times[:1]) > 0)
    since = visit.max(initial=0) - visit
    visits_in_all = since.max(initial=0) + 1
    return np.divmod(np.unique(history.astype(np.int64) * visits_in_all + since), visits_in_all)


def _again(histories: Histories, *, items: int) -> float:
    """Of everything that people took after their first visit, an item once a visit, the share taken before."""
    histories = histories.subset(np.flatnonzero(histories.lengths))
    if not len(histories):
        return 0.0
    visit, person = visits(histories), np.repeat(np.arange(len(histories)), histories.lengths)
    purchases = np.unique((person * items + histories.items) * len(visit) + visit)  # by person, item, visit
    owner_and_item, visit_of = np.divmod(purchases, len(visit))
    later = int((visit_of > visit[histories.offsets[:-1]][owner_and_item // items]).sum())
    taken_again = int((owner_and_item[1:] == owner_and_item[:-1]).sum())
    return taken_again / max(later, 1)


def _popular(histories: Histories, spec: MemorySpec, *, items: int, prior: np.ndarray | None) -> np.ndarray:
    """The popular part, (I,) float32."""
    counts = popularity_counts(histories, items=items, half_life_days=spec.popular_half_life_days)
    total = max(counts.sum() + spec.popular_shrinkage, 1e-12)
    if prior is not None:
        counts += spec.popular_shrinkage * prior
    return (spec.popular_weight * np.log1p(items * counts / total)).astype(np.float32)
