"""The score of every item for one history, part by part; the parts are the score, so they can explain it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from clients.memory import LocalMemory
from clients.serving.model import COUNTED, PAIRS, ServedModel
from fedrec.data.histories import Histories
from fedrec.errors import DataError
from fedrec.model.windows import latest_events

SEQUENCE, TEXT, BIAS, POPULAR = "sequence", "text", "bias", "popular"
MEANINGS = {  # of every part; the last four are the merchant's own memory
    SEQUENCE: "what the Transformer expects next",
    TEXT: "similarity to the text of what was bought lately",
    BIAS: "the same for everybody",
    PAIRS: "what followed among the public people of the base",
    COUNTED: "what followed among all merchants' people, counted with noise",
    POPULAR: "what sells at this merchant",
    "transitions": "what followed among this merchant's people",
    "repeats": "bought before, where people buy again",
    "in_basket": "in the basket already",
}


class Past(NamedTuple):
    """What one person did, as a score reads it. Sensitive.

    Attributes:
        items: (L,) item indices, oldest first; empty for nobody in particular.
        times: (L,) int64, non-decreasing; events of one visit share one.
    """

    items: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, eq=False)
class ScoreTerms:
    """What a past asks for, before it meets the catalogue; every part of the score is in exactly one of the three.

    Attributes:
        states: of parts that compare items with a vector: name -> (K,) float32, in the space of the item table.
        shared: of parts that are the same for everybody: name -> (I,) float32.
        reached: of parts that speak of some items and are 0 for all others: name -> distinct items and their logits.
    """

    states: Mapping[str, np.ndarray]
    shared: Mapping[str, np.ndarray]
    reached: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def over(self, vectors: np.ndarray, items: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return each part by name for some items, (C,) float32, or for all of them, (I,).

        Args:
            vectors: the item table, (I, K).
            items: distinct item indices, ascending, (C,); the whole catalogue when None.
        """
        table = vectors if items is None else vectors[items]
        parts = {name: table @ state for name, state in self.states.items()}
        for name, values in self.shared.items():
            parts[name] = values.copy() if items is None else values[items]
        for name, (reached, logits) in self.reached.items():
            parts[name] = np.zeros(len(table), np.float32)
            if items is None:
                parts[name][reached] = logits
            elif len(items):
                places = np.minimum(np.searchsorted(items, reached), len(items) - 1)
                is_asked = items[places] == reached
                parts[name][places[is_asked]] = logits[is_asked]
        return parts


def score_parts(
    model: ServedModel,
    history: np.ndarray,
    *,
    memory: LocalMemory | None = None,
    times: np.ndarray | None = None,
    personalized: bool = True,
) -> dict[str, np.ndarray]:
    """Score the whole catalogue: each part by name, (I,) float32 logits. Their sum is the score.

    Args:
        history: item indices, oldest first; without any, what is left is the same for everybody.
        memory: of the merchant at which the person is.
        times: timestamps, as many, non-decreasing; each event is a visit of its own when None.
        personalized: false to look at no history at all.

    Raises:
        DataError: history and times do not fit together, or an item is not in the catalogue.
    """
    past = past_of(model, history, times=times, personalized=personalized)
    return terms_of(model, [past], memory=memory)[0].over(model.vectors)


def past_of(
    model: ServedModel, history: np.ndarray, *, times: np.ndarray | None = None, personalized: bool = True
) -> Past:
    """Check a history and read it as training did: the latest events, without immediate repeats where they were merged.

    Raises:
        DataError: history and times do not fit together, or an item is not in the catalogue.
    """
    items = known_items(model, history if personalized else np.zeros(0, np.int64))
    moments = np.arange(len(items)) if times is None or not personalized else np.asarray(times, dtype=np.int64)
    if moments.shape != items.shape or (np.diff(moments) < 0).any():
        raise DataError("times: expected one an event, none earlier than the one before it")
    event = event_of(model, items)
    is_kept = (event >= 0) & (np.diff(event, prepend=event[:1] - 1) > 0)
    return Past(items[is_kept], moments[is_kept])


def known_items(model: ServedModel, items: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return item indices as (L,) int64; raises ``DataError`` when they are anything else."""
    indices = np.asarray(items, dtype=np.int64)
    if indices.ndim != 1 or ((indices < 0) | (indices >= model.ranker.items)).any():
        raise DataError(f"items: expected a list of whole numbers from 0 to {model.ranker.items - 1}")
    return indices


def event_of(model: ServedModel, items: np.ndarray) -> np.ndarray:
    """Number the events that count, (L,): 0, 1, ...; an immediate repeat has its event's, one too old is below 0."""
    is_new = np.ones(len(items), dtype=bool)
    if model.merges_repeats:
        is_new[1:] = items[1:] != items[:-1]
    return np.cumsum(is_new) - 1 - max(0, int(is_new.sum()) - model.max_history)


def terms_of(model: ServedModel, pasts: Sequence[Past], *, memory: LocalMemory | None = None) -> list[ScoreTerms]:
    """Return what each past asks for, in one pass of the Transformer."""
    windows = [past.items[-model.ranker.spec.history :] for past in pasts]
    sequence, text = _states(model, windows)
    terms = []
    for row, (past, window) in enumerate(zip(pasts, windows, strict=True)):
        reached = {name: part.following(window) for name, part in model.parts.items()}
        if memory is not None:
            for name, items, logits in memory.personal(past.items, past.times):
                reached[name] = items, logits.astype(np.float32)
        terms.append(ScoreTerms({SEQUENCE: sequence[row], TEXT: text[row]}, shared_parts(model, memory), reached))
    return terms


def shared_parts(model: ServedModel, memory: LocalMemory | None) -> dict[str, np.ndarray]:
    """The parts that are the same for everybody, by name, (I,) float32 each."""
    return {BIAS: model.bias} | ({} if memory is None else {POPULAR: memory.popular})


@torch.inference_mode()
def _states(model: ServedModel, windows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What Transformer and text profile ask for after each window, (B, K) each; zeros after an empty one."""
    ranker = model.ranker
    sequence, text = (np.zeros((len(windows), model.vectors.shape[1]), np.float32) for _ in range(2))
    there = [row for row, window in enumerate(windows) if len(window)]
    if there:
        histories = Histories.from_lists([windows[row].tolist() for row in there])
        items, last = latest_events(histories, np.arange(len(there)), history=ranker.spec.history)
        asked = ranker.states(items, last)  # (B, 1, K) each
        sequence[there], text[there] = (state[:, 0].numpy() for state in asked)
    return sequence, text
