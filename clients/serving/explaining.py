"""Why an item stands where it does: the parts of its score, and what each past event does for it.

An event's share of a score is what the score loses when the event had not been: the whole score is computed anew
without it. So a reason can be checked: take the named event away, score again, and the score falls by what was said.
The counts of a merchant's memory are of all its people and stay as they are; one person's past is what is taken away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clients.memory import LocalMemory
from clients.serving.model import COUNTED, PAIRS, ServedModel
from clients.serving.scoring import BIAS, POPULAR, SEQUENCE, TEXT, event_of, known_items, past_of, terms_of
from fedrec.data.catalogue import Catalogue

_LEAST = 0.005  # logits; less would be told as 0.00
_WORDS = {
    SEQUENCE: "what usually comes next",
    TEXT: "text similarity",
    "repeats": "having bought it before",
    BIAS: "liked by everybody",
    POPULAR: "selling well here",
}
_FOLLOWS = {PAIRS: "", COUNTED: " at all merchants", "transitions": " here"}


@dataclass(frozen=True)
class Cause:
    """A past event and what it does for one item.

    Attributes:
        item: what was bought, an index into the catalogue.
        positions: in the history that was given: of the event, and of its immediate repeats where the run merged them.
        drop: by how much the score falls without it, logits; negative where it rises.
        by_part: the same, part by part; sums to ``drop``.
    """

    item: int
    positions: tuple[int, ...]
    drop: float
    by_part: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """One item's score, taken apart.

    Attributes:
        item: its index in the catalogue.
        total: the score, logits; the sum of ``parts``.
        parts: by name.
        causes: every past event that counts, the one with the largest drop first; of equals the latest.
        reason: the first cause in words, without a number.
        sentence: the same with its share of the score; what is the same for all where no event raises the score.
    """

    item: int
    total: float
    parts: dict[str, float]
    causes: tuple[Cause, ...]
    reason: str
    sentence: str


def explain(
    model: ServedModel,
    history: np.ndarray,
    items: Sequence[int],
    *,
    memory: LocalMemory | None = None,
    times: np.ndarray | None = None,
    personalized: bool = True,
) -> list[Explanation]:
    """Explain the scores of some items for one person, in one pass for all of them.

    Args:
        history: item indices, oldest first.
        items: item indices, in any order.
        memory: of the merchant at which the person is.
        times: timestamps, as many as events; each event is a visit of its own when None.
        personalized: false to explain the score that is the same for all.

    Raises:
        DataError: history and times do not fit together, or an item is not in the catalogue.
    """
    past = past_of(model, history, times=times, personalized=personalized)
    asked = known_items(model, items)
    event, moments = event_of(model, np.asarray(history)), np.arange(len(history)) if times is None else times
    positions = [np.flatnonzero(event == number) for number in range(len(past.items))]
    without = [past_of(model, np.delete(history, at), times=np.delete(moments, at)) for at in positions]
    ordered, place = np.unique(asked, return_inverse=True)
    tables = [terms.over(model.vectors, ordered) for terms in terms_of(model, [past, *without], memory=memory)]
    logits = np.array([[table[name] for name in tables[0]] for table in tables], np.float64)  # (1 + L, parts, C)
    return [
        _explanation(model.catalogue, item, list(tables[0]), logits[:, :, row], past.items, positions)
        for item, row in zip(asked.tolist(), place, strict=True)
    ]


def _explanation(
    catalogue: Catalogue,
    item: int,
    names: list[str],
    logits: np.ndarray,
    events: np.ndarray,
    positions: Sequence[np.ndarray],
) -> Explanation:
    """From one item's parts, (1 + L, parts): with the whole past, and without each event of it."""
    drops = logits[0] - logits[1:]  # (L, parts)
    causes = [
        Cause(int(bought), tuple(where.tolist()), float(drop.sum()), dict(zip(names, drop.tolist(), strict=True)))
        for bought, where, drop in zip(events, positions, drops, strict=True)
    ]
    causes.sort(key=lambda cause: (-cause.drop, -cause.positions[-1]))
    total, parts = float(logits[0].sum()), dict(zip(names, logits[0].tolist(), strict=True))
    return Explanation(item, total, parts, tuple(causes), *_words(catalogue, total, parts, causes))


def _words(catalogue: Catalogue, total: float, parts: dict[str, float], causes: Sequence[Cause]) -> tuple[str, str]:
    """The largest cause in words: as a reason, and with its share of the score and the part that it came through."""
    if not causes or causes[0].drop < _LEAST:
        shared = {name: parts[name] for name in (BIAS, POPULAR) if name in parts}
        part = max(shared, key=lambda name: shared[name])
        why = "nothing that you bought raises it" if causes else "the same for everybody"
        return _WORDS[part], f"{why}: {_WORDS[part]} {shared[part]:.2f} of {total:.2f}"
    cause = causes[0]
    part = max(cause.by_part, key=lambda name: cause.by_part[name])
    title = catalogue.titles[cause.item] or catalogue.item_ids[cause.item]
    share, through = f"{cause.drop:.2f} of {total:.2f}", f"({cause.by_part[part]:.2f})"
    if part in _FOLLOWS:
        reason = f"often bought after {title}{_FOLLOWS[part]}"
        return reason, f"{reason}: {share}, above all through this {through}"
    reason = f"because you bought {title}"
    return reason, f"{reason}: {share}, above all through {_WORDS.get(part, part)} {through}"
