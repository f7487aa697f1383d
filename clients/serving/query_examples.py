"""Queries as search sees them, with the products each choice was made from: what the query adapter is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clients.serving.dense import DenseIndex
from clients.serving.queries import clean_query
from clients.serving.search import Backend
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.data.query_events import QueryEvents
from fedrec.model.query_adapter import QueryExamples

_QUERIES_AT_A_TIME = 256  # read by the encoder and compared with every item


@dataclass(frozen=True)
class _Seen:
    """A query as search sees it: two readings (2, E), BM25 over the best hit by item, and its candidates."""

    readings: np.ndarray
    words: dict[int, float]
    candidates: np.ndarray


def query_examples(
    events: QueryEvents,
    backend: Backend,
    dense: DenseIndex,
    *,
    search: SearchConfig,
    training: QueryTrainingConfig,
) -> QueryExamples:
    """Look every query up, untrained, and put the chosen item before its best hits and uniform items of the catalogue.

    Args:
        events: of N people; of each the latest count.

    Returns:
        One row a person. A query's candidates depend on the query and the public catalogue alone.
    """
    rng = np.random.default_rng([training.seed, len(dense.vectors)])
    negatives = rng.choice(len(dense.vectors), min(training.negatives, len(dense.vectors)), replace=False)
    lines = [clean_query(query, longest=search.longest_query) for query in events.queries]
    seen = _looked_up(list(dict.fromkeys(lines)), backend, dense, search=search, training=training)
    starts = np.flatnonzero(np.diff(events.people, prepend=-1))
    ends = np.append(starts[1:], len(events))
    longest = min(training.events, int((ends - starts).max(initial=1)))
    width = 1 + training.hits_by_words + training.hits_by_meaning + len(negatives)
    made = _empty(len(starts), longest, width, dense.vectors.shape[1])
    for person, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for slot, event in enumerate(range(max(start, end - longest), end)):
            _fill(made, (person, slot), seen[lines[event]], chosen=int(events.items[event]), negatives=negatives)
    return made


def _looked_up(
    lines: Sequence[str], backend: Backend, dense: DenseIndex, *, search: SearchConfig, training: QueryTrainingConfig
) -> dict[str, _Seen]:
    seen = {}
    for first in range(0, len(lines), _QUERIES_AT_A_TIME):
        chunk = lines[first : first + _QUERIES_AT_A_TIME]
        readings = _readings(chunk, [backend.spelled(line) for line in chunk], dense)  # (N, 2, E)
        cosines = np.maximum(readings[:, 0] @ dense.vectors.T, readings[:, 1] @ dense.vectors.T)  # (N, I)
        most = min(training.hits_by_meaning, cosines.shape[1])
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        for line, reading, near in zip(chunk, readings, nearest, strict=True):
            found = backend.search(line, most=search.word_hits)
            best = max((score for _, score in found), default=0.0)
            by_words = [item for item, _ in found[: training.hits_by_words]]
            candidates = np.union1d(near, np.array(by_words, dtype=np.int64))
            seen[line] = _Seen(reading, {item: score / best for item, score in found}, candidates)
    return seen


def _readings(typed: Sequence[str], corrected: Sequence[str], dense: DenseIndex) -> np.ndarray:
    """Both readings of N queries, (N, 2, E); where the encoder understands one of them only, that one twice."""
    first, second = dense.encode(typed), dense.encode(corrected)
    first, second = (
        np.where(own.any(axis=1, keepdims=True), own, other) for own, other in ((first, second), (second, first))
    )
    return np.stack([first, second], axis=1)


def _empty(people: int, events: int, width: int, dimension: int) -> QueryExamples:
    return QueryExamples(
        readings=torch.zeros(people, events, 2, dimension),
        items=torch.zeros(people, events, width, dtype=torch.int64),
        words=torch.zeros(people, events, width),
        is_candidate=torch.ones(people, events, width, dtype=torch.bool),
        is_event=torch.zeros(people, events, dtype=torch.bool),
    )


def _fill(made: QueryExamples, at: tuple[int, int], seen: _Seen, *, chosen: int, negatives: np.ndarray) -> None:
    """Write one event; an item is a candidate once."""
    others = np.union1d(seen.candidates, negatives)
    items = np.concatenate([[chosen], others[others != chosen]])
    made.readings[at] = torch.from_numpy(seen.readings)
    made.items[at][: len(items)] = torch.from_numpy(items)
    made.words[at][: len(items)] = torch.tensor([seen.words.get(item, 0.0) for item in items.tolist()])
    made.is_candidate[at][len(items) :] = False
    made.is_event[at] = True
