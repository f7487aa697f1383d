"""Public pairs: what follows what among public people, and what the base ranker would suggest after each item.

They are part of the base and cost no privacy. Their counts are a part of the score, and their list says which pairs
a federation may count in private.

    pairs   weight * log(1 + sharpness * P(item | recent items))
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.errors import RunError
from fedrec.model.ranker import Ranker
from fedrec.model.transitions import Transitions, count_pairs, transition_table

PAIRS = "pairs.safetensors"  # in the folder of a base
_BLOCK = 256  # items whose suggestions are looked for at a time: (256, I) scores in memory
_DIGITS = 6  # of a score; items that differ by less are equal, and the first of them is taken


@dataclass(frozen=True)
class PairSpec:
    """How the counts of public pairs are read; chosen on the public panel.

    Attributes:
        weight: logits of the part, >= 0; 0 turns it off.
        sharpness: how soon a probability counts, > 0; the part is linear below ``1 / sharpness``.
        recent: events of a history that are looked up, >= 1.
        decay: weight of a looked-up event relative to the next later one, in (0, 1].
        shrinkage: pseudo-counts added to each row, >= 0.
    """

    weight: float
    sharpness: float
    recent: int
    decay: float
    shrinkage: float

    def __post_init__(self) -> None:
        _expect(np.isfinite(list(asdict(self).values())).all(), "numbers", "finite ones")
        _expect(self.weight >= 0, "weight", ">= 0")
        _expect(self.sharpness > 0, "sharpness", "> 0")
        _expect(1 <= self.recent <= 4096, "recent", "a whole number from 1 to 4096")
        _expect(0 < self.decay <= 1, "decay", "in (0, 1]")
        _expect(self.shrinkage >= 0, "shrinkage", ">= 0")


@dataclass(frozen=True, eq=False)
class PublicPairs:
    """A list of pairs over a catalogue, sorted by both items, each once; none of an item with itself.

    Attributes:
        items: size of the catalogue, I.
        first: (C,) int32, the earlier item.
        then: (C,) int32, the later one.
        counts: (C,) float32, weighted count among public people, >= 0; 0 for a pair that was only suggested.
        spec: how the counts are read.
    """

    items: int
    first: np.ndarray
    then: np.ndarray
    counts: np.ndarray
    spec: PairSpec

    def __post_init__(self) -> None:
        for name, kind in (("first", np.int32), ("then", np.int32), ("counts", np.float32)):
            array = getattr(self, name)
            _expect(array.dtype == kind and array.shape == (len(self),), name, f"({len(self)},) {np.dtype(kind)}")
        for name in ("first", "then"):
            array = getattr(self, name)
            _expect(((array >= 0) & (array < self.items)).all(), name, f"items from 0 to {self.items - 1}")
        _expect((self.first != self.then).all(), "then", "another item than first")
        _expect((np.diff(self.first.astype(np.int64) * self.items + self.then) > 0).all(), "pairs", "sorted, each once")
        _expect((np.isfinite(self.counts) & (self.counts >= 0)).all(), "counts", "finite, >= 0")

    def __len__(self) -> int:
        return self.first.size

    def part(self) -> "PairPart":
        """What the counts add to the score."""
        spec = self.spec
        table = pair_table(self, self.counts, shrinkage=spec.shrinkage)
        return PairPart(table, weight=spec.weight, sharpness=spec.sharpness, recent=spec.recent, decay=spec.decay)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, as a file holds it."""
        lists = {name: np.ascontiguousarray(getattr(self, name)) for name in ("first", "then", "counts")}
        numbers = {name: np.array(value) for name, value in ({"items": self.items} | asdict(self.spec)).items()}
        return lists | numbers

    def save(self, folder: Path) -> None:
        """Write ``pairs.safetensors`` into the folder of a base."""
        save_file(self.arrays(), folder / PAIRS)

    @classmethod
    def load(cls, folder: Path, *, file: str = PAIRS) -> "PublicPairs":
        """Read what ``save`` wrote, or another file that holds ``arrays`` among others.

        Raises:
            RunError: missing, truncated, or not a list of pairs; names the file.
        """
        path = folder / file
        try:
            return cls.of_arrays(load_file(path))
        except OSError as error:
            raise RunError(
                f"{path}: not a usable base: {error.strerror or error}; make one with fedrec pretrain"
            ) from None
        except (ValueError, SafetensorError) as error:
            raise RunError(f"{path}: not a usable base: {str(error).splitlines()[0]}") from None

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PublicPairs":
        """Build from what ``arrays`` gave, perhaps among others; ``ValueError`` when it is not a list of pairs."""
        try:
            items, recent = (_whole(arrays[name]) for name in ("items", "recent"))
            numbers = {name: float(arrays[name].item()) for name in ("weight", "sharpness", "decay", "shrinkage")}
            return cls(items, arrays["first"], arrays["then"], arrays["counts"], PairSpec(recent=recent, **numbers))
        except KeyError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True, eq=False)
class PairPart:
    """What pairs add to the score after a history: ``weight * log(1 + sharpness * P)``, 0 for what never followed.

    Attributes:
        transitions: P of each item after each other one.
        weight: logits, >= 0; 0 turns it off.
        sharpness: how soon a probability counts, > 0.
        recent: events of a history that are looked up, >= 1.
        decay: weight of a looked-up event relative to the next later one, in (0, 1].
    """

    transitions: Transitions
    weight: float
    sharpness: float
    recent: int
    decay: float

    @property
    def items(self) -> int:
        """Size of the catalogue, I."""
        return self.transitions.items

    def scores(self, history: np.ndarray) -> np.ndarray:
        """Return the part after a history of item indices, oldest first: (I,) float32, >= 0."""
        scores = np.zeros(self.items, np.float32)
        items, logits = self.following(history)
        scores[items] = logits
        return scores

    def following(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, of the C items alone that it speaks of: ascending, and (C,) float32; without a step over all I."""
        if not self.weight:
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        items, shares = self.transitions.following(history[-self.recent :], decay=self.decay)
        return items, (self.weight * np.log1p(self.sharpness * shares)).astype(np.float32)

    def after(self, items: np.ndarray, positions: np.ndarray) -> csr_array:
        """Return the part after chosen events of many histories; the arguments are those of the ranker.

        Args:
            items: item indices in order of time, (B, L), padded at the end with any valid index.
            positions: which events to score after, (B, T), each in [0, L); -1 is before the first, and gives zeros.

        Returns:
            (B * T, I) float64, sparse, >= 0, each cell stored once.
        """
        rows = positions.size
        if not self.weight:
            return csr_array((rows, self.items))
        ages = np.arange(self.recent)
        looked_up = positions[..., None] - ages  # (B, T, recent)
        is_there = looked_up >= 0
        shares = np.where(is_there, self.decay**ages, 0.0)
        shares /= shares.sum(axis=-1, keepdims=True).clip(min=1e-12)
        row_of = np.broadcast_to(np.arange(rows).reshape(*positions.shape, 1), is_there.shape)
        recent = items[np.arange(len(items))[:, None, None], looked_up.clip(min=0)]
        chosen = csr_array((shares[is_there], (row_of[is_there], recent[is_there])), shape=(rows, self.items))
        mixed = chosen @ self._matrix
        mixed.data = self.weight * np.log1p(self.sharpness * mixed.data)
        return mixed

    @cached_property
    def _matrix(self) -> csr_array:
        table = self.transitions
        return csr_array((table.values, table.columns, table.offsets), shape=(table.items, table.items))


def pair_table(pairs: PublicPairs, values: np.ndarray, *, shrinkage: float) -> Transitions:
    """Turn a value for each pair, (C,), >= 0, into rows of shares; ``shrinkage`` is added to each row's total."""
    return transition_table(pairs.first, pairs.then, values, items=pairs.items, shrinkage=shrinkage)


@torch.no_grad()
def scores_with(ranker: Ranker, parts: Iterable[PairPart], items: Tensor, positions: Tensor) -> Tensor:
    """Score the whole catalogue with the ranker, and add what pairs say: (B, T, I), without a graph.

    Args:
        items: item indices in order of time, (B, L), padded at the end with any valid index.
        positions: which events to score after, (B, T), each in [0, L).
    """
    logits = ranker(items, positions)
    flat = logits.view(-1, ranker.items).numpy()  # the same memory
    for part in parts:
        added = part.after(items.numpy(), positions.numpy())
        flat[np.repeat(np.arange(len(flat)), np.diff(added.indptr)), added.indices] += added.data
    return logits


def public_pairs(
    ranker: Ranker, fit: Histories, *, gap_weights: Sequence[float], suggestions: int, spec: PairSpec
) -> PublicPairs:
    """List the pairs seen among public people, and after each item what the ranker would suggest.

    Args:
        ranker: the base; without an adapter.
        fit: public people whose pairs are counted. Not those on whom ``spec.weight`` is chosen.
        gap_weights: weight of a pair that is 1, 2, ... events apart.
        suggestions: best next items of the ranker after a history of one item alone, >= 0; of equals the first.
        spec: how the counts are read.
    """
    seen_first, seen_then, seen = count_pairs(fit, items=ranker.items, gap_weights=gap_weights)
    suggested = best_next(ranker, most=suggestions)  # (I, S)
    first = np.concatenate([seen_first, np.repeat(np.arange(ranker.items), suggested.shape[1])]).astype(np.int64)
    then = np.concatenate([seen_then, suggested.ravel()])
    counts = np.concatenate([seen, np.zeros(suggested.size)])
    is_pair = first != then
    keys, place = np.unique((first * ranker.items + then)[is_pair], return_inverse=True)
    totals = np.bincount(place, weights=counts[is_pair], minlength=len(keys)).astype(np.float32)
    first, then = np.divmod(keys, ranker.items)
    return PublicPairs(ranker.items, first.astype(np.int32), then.astype(np.int32), totals, spec)


def no_pairs(items: int) -> PublicPairs:
    """An empty list over a catalogue, whose part is off."""
    nothing = np.zeros(0, np.int32)
    spec = PairSpec(weight=0.0, sharpness=1.0, recent=1, decay=1.0, shrinkage=0.0)
    return PublicPairs(items, nothing, nothing, nothing.astype(np.float32), spec)


def with_weight(pairs: PublicPairs, weight: float) -> PublicPairs:
    """The same pairs, read with another weight."""
    return replace(pairs, spec=replace(pairs.spec, weight=weight))


@torch.no_grad()
def best_next(ranker: Ranker, *, most: int, block: int = _BLOCK) -> np.ndarray:
    """Each item's best next items after a history of that item alone, itself left out: (I, min(most, I - 1)).

    Args:
        most: >= 0.
        block: items looked at in one go; changes memory and nothing else.
    """
    was_training, items = ranker.training, ranker.items
    most = min(most, items - 1)
    found = np.empty((items, most), np.int64)
    vectors, bias = ranker.vectors.double(), ranker.bias.double()
    ranker.eval()
    for start in range(0, items if most else 0, block):
        own = torch.arange(start, min(start + block, items))[:, None]
        sequence, text = ranker.states(own, torch.zeros_like(own))
        wanted = (sequence + text)[:, 0].double()  # (block, K)
        costs = -(wanted @ vectors.T + bias).numpy().round(_DIGITS)  # (block, I)
        costs[np.arange(len(own)), own[:, 0]] = np.inf
        limits = np.partition(costs, most - 1, axis=1)[:, most - 1]
        for item, row, limit in zip(own[:, 0].tolist(), costs, limits, strict=True):
            candidates = np.flatnonzero(row <= limit)
            found[item] = candidates[np.argsort(row[candidates], kind="stable")[:most]]
    ranker.train(was_training)
    return found


def _whole(number: np.ndarray) -> int:
    _expect(number.shape == () and number.dtype == np.int64, "items and recent", "whole numbers")
    return int(number)


def _expect(holds: bool | np.bool_, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}")
