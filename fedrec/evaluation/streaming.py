"""Ranking a catalogue of any size: scores are made a block of people and items at a time, and counted at once.

A ranker's score is an inner product with each item's vector, so a person's place in the ranking needs no row of
scores: what counts is how many items score higher than the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from fedrec.errors import RunError

ITEMS_AT_A_TIME = 4_096  # with 256 people 4 MB of scores, which stay in the cache; a multiple of every processor's tile


class Wanted(NamedTuple):
    """What some people look for.

    Attributes:
        states: (B, K) float32.
        added: what comes on top for single items, (B, I), sparse, each cell stored once; None for nothing.
    """

    states: Tensor
    added: csr_array | None = None


@dataclass(frozen=True, eq=False)
class DotScorer:
    """A scorer whose scores are ``<state, vector(item)> + bias(item)``, and a little on top for few items.

    Attributes:
        vectors: (I, K) float32; may be mapped from a file, and is read in order.
        bias: (I,) float32.
        wanted: what people, given as indices, look for.
    """

    vectors: Tensor
    bias: Tensor
    wanted: Callable[[np.ndarray], Wanted]

    def __len__(self) -> int:
        return len(self.vectors)


class Cells(NamedTuple):
    """Cells of the matrix (people, items), by item: what lies in a block of items is a slice of them.

    Attributes:
        rows: (C,) int64.
        items: (C,) int64, ascending.
        values: (C,) float32; what is added there.
        order: where each stood before it was sorted, (C,).
    """

    rows: Tensor
    items: Tensor
    values: Tensor
    order: Tensor

    @classmethod
    def of(cls, rows: np.ndarray, items: np.ndarray, values: np.ndarray | None = None) -> "Cells":
        """Sort cells by item; without values zeros are added."""
        order = np.argsort(items, kind="stable")
        given = np.zeros(len(items)) if values is None else values
        columns = (rows[order].astype(np.int64), items[order].astype(np.int64), given[order].astype(np.float32), order)
        return cls(*(torch.from_numpy(column) for column in columns))

    def within(self, first: int, end: int) -> "Cells":
        """Those of the items from ``first`` up to ``end``, counted from ``first``."""
        start, stop = torch.searchsorted(self.items, torch.tensor([first, end])).tolist()
        return Cells(
            self.rows[start:stop], self.items[start:stop] - first, self.values[start:stop], self.order[start:stop]
        )


@torch.no_grad()
def ranks_and_best(
    scorer: DotScorer,
    people: np.ndarray,
    *,
    targets: Sequence[np.ndarray],
    hidden: Sequence[np.ndarray],
    shown: int,
    items_at_a_time: int = ITEMS_AT_A_TIME,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Place people's targets in the ranking of the whole catalogue, and find everybody's best items.

    Memory is that of a block, ``len(people) * items_at_a_time`` scores, whatever the catalogue; exact, ties included.

    Args:
        scorer: of I items.
        people: (B,), as ``scorer`` knows them.
        targets: distinct item indices of each.
        hidden: item indices that each is not offered.
        shown: K, length of the list of best items, >= 1.
        items_at_a_time: >= 1; where it is a multiple of 64, items with the same vector and bias tie.

    Returns:
        For each person (T,) float64, as ``metrics.target_ranks`` gives them; and (B, min(K, I)) item indices, best
        first, equals in no particular order.

    Raises:
        RunError: a score is not finite.
    """
    wanted = scorer.wanted(people)
    added = wanted.added.tocoo() if wanted.added is not None else None
    rows = np.repeat(np.arange(len(people)), [len(each) for each in targets])
    asked = Cells.of(rows, _joined(targets))
    sums = _Sums(
        scorer,
        wanted.states.contiguous(),
        Cells.of(added.row, added.col, added.data) if added is not None else None,
        Cells.of(np.repeat(np.arange(len(people)), [len(each) for each in hidden]), _joined(hidden)),
        items_at_a_time,
    )
    scores = sums.single(asked)
    while True:
        higher, same, found, best = _counted(sums, asked, scores, shown=shown)
        if torch.equal(found, scores):
            break
        scores = found  # an item alone came out differently, in its last bit, than in its block: the block's counts
    ranks = np.empty(len(rows))
    ranks[asked.order.numpy()] = (1 + higher + 0.5 * (same - 1)).numpy()
    return np.split(ranks, np.cumsum([len(each) for each in targets])[:-1]), best.numpy()


@dataclass(frozen=True, eq=False)
class _Sums:
    """The scores of some people, (B, I), a block of items at a time."""

    scorer: DotScorer
    states: Tensor
    added: Cells | None
    hidden: Cells
    width: int

    def block(self, first: int) -> Tensor:
        """(B, width or what is left) scores of the items from ``first`` on; minus infinity where one is hidden."""
        end = min(first + self.width, len(self.scorer))
        block = self._dots(self.scorer.vectors[first:end])
        block += self.scorer.bias[first:end]
        if self.added is not None:
            cells = self.added.within(first, end)
            block[cells.rows, cells.items] += cells.values
        if not torch.isfinite(block.sum()):  # a single one that is not finite shows in the sum
            raise RunError("scores are not finite: training diverged; lower the step size")
        cells = self.hidden.within(first, end)
        block[cells.rows, cells.items] = float("-inf")
        return block

    def single(self, cells: Cells) -> Tensor:
        """(C,) scores of single cells, made in blocks of the same shape, so that they are most likely the same."""
        scores = torch.zeros(len(cells.items))
        for first in range(0, len(cells.items), self.width):
            some = slice(first, first + self.width)
            items, rows = cells.items[some], cells.rows[some]
            dots = self._dots(self.scorer.vectors[items])[rows, torch.arange(len(items))]
            scores[some] = dots + self.scorer.bias[items]
        return scores

    def _dots(self, vectors: Tensor) -> Tensor:
        """(B, items): products of one shape always. Others would add in another order, and twins would not be equal."""
        padded = torch.nn.functional.pad(vectors, (0, 0, 0, self.width - len(vectors)))
        return (self.states @ padded.T)[:, : len(vectors)]


def _counted(sums: _Sums, asked: Cells, scores: Tensor, *, shown: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One way through the catalogue: items above each asked one, equal to it, its own score, everybody's best items."""
    higher, same, found = (torch.zeros(len(scores), dtype=kind) for kind in (torch.long, torch.long, torch.float32))
    people = len(sums.states)
    best, best_scores = torch.empty(people, 0, dtype=torch.long), torch.empty(people, 0)
    is_one_each = torch.equal(asked.rows, torch.arange(people))
    for first in range(0, len(sums.scorer), sums.width):
        block = sums.block(first)
        inside = asked.within(first, first + sums.width)
        places = torch.searchsorted(asked.items, torch.tensor([first, first + sums.width])).tolist()
        found[slice(*places)] = block[inside.rows, inside.items]
        against = block if is_one_each else block[asked.rows]
        higher += _count(torch.gt, against, scores)
        same += _count(torch.eq, against, scores)
        values, columns = block.topk(min(shown, block.shape[1]), dim=1)
        best_scores, best = torch.cat([best_scores, values], dim=1), torch.cat([best, columns + first], dim=1)
        best_scores, kept = best_scores.topk(min(shown, best.shape[1]), dim=1)
        best = torch.gather(best, 1, kept)
    return higher, same, found, best


def _count(holds: Callable[..., Tensor], block: Tensor, scores: Tensor) -> Tensor:
    """(T,) how many scores of each row of (T, W) compare so with the row's own; sums of floats are ten times as fast
    as those of truth values, and exact up to 2**24."""
    held = holds(block, scores[:, None], out=torch.empty(block.shape))
    return (held @ torch.ones(block.shape[1])).long()


def _joined(items: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(items) if items else np.empty(0, np.int64)
