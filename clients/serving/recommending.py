"""A list of items for one person: recall, then rank by the whole score, then make it diverse."""

from dataclasses import dataclass

import numpy as np

from clients.memory import LocalMemory
from clients.serving.model import ServedModel
from clients.serving.ranking import Filters, allowed_items, best_of, diversified
from clients.serving.recall import ExactIndex, Index, candidates
from clients.serving.scoring import past_of, terms_of
from fedrec.errors import ConfigError


@dataclass(frozen=True)
class Wishes:
    """What kind of list is asked for.

    Attributes:
        k: items, at most, >= 1.
        filters: what may be offered.
        diversity: 0 for the order of the scores, up to 1 for items unlike one another.
        pool: best items that a diverse list is chosen from, >= 1.
        personalized: false for the list that is the same for all.
    """

    k: int
    filters: Filters
    diversity: float
    pool: int
    personalized: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k={self.k}: expected >= 1")
        if not 0 <= self.diversity <= 1:
            raise ConfigError(f"diversity={self.diversity:g}: expected 0 to 1")


@dataclass(frozen=True)
class Recommendation:
    """One item of a list.

    Attributes:
        item: its index in the catalogue.
        score: logits; the sum of the parts.
        parts: of the score, by name.
    """

    item: int
    score: float
    parts: dict[str, float]


def recommend(
    model: ServedModel,
    history: np.ndarray,
    wishes: Wishes,
    *,
    memory: LocalMemory | None = None,
    times: np.ndarray | None = None,
    index: Index | None = None,
) -> list[Recommendation]:
    """Return the best items for a person, best first; fewer than ``wishes.k`` where no more pass the filters.

    Without personalisation neither the scores nor what is hidden depend on the history: all get the same list.

    Args:
        history: item indices, oldest first.
        memory: of the merchant at which the person is.
        times: timestamps, as many; each event is a visit of its own when None.
        index: that finds the candidates, over the item table and what this memory shares; an exact one when None.

    Raises:
        ConfigError: a filter that the catalogue cannot answer.
        DataError: history and times do not fit together, or an item is not in the catalogue.
    """
    past = past_of(model, history, times=times, personalized=wishes.personalized)
    allowed = allowed_items(model.catalogue, wishes.filters)
    allowed[past.items if wishes.filters.hide_bought else model.masking.hidden(past.items)] = False
    terms = terms_of(model, [past], memory=memory)[0]
    most = max(wishes.k, wishes.pool) if wishes.diversity else wishes.k
    index = index or ExactIndex(model.vectors, np.sum(list(terms.shared.values()), axis=0))
    items = candidates(index, terms, most=most, allowed=allowed)
    parts = terms.over(model.vectors, items)
    scores = np.sum(list(parts.values()), axis=0)
    best = best_of(scores, most)
    chosen = best[diversified(scores[best], model.vectors[items[best]], k=wishes.k, diversity=wishes.diversity)]
    return [
        Recommendation(
            int(items[place]),
            float(scores[place]),
            {name: float(values[place]) for name, values in parts.items()},
        )
        for place in chosen
    ]
