"""One cell of the results: what one ranker achieved on one data set and seed, in a file that is there whole or not.

Differences are reckoned from the cells, so each holds NDCG@10 person by person; a ranker that could not be measured
leaves a cell that says why.
"""

import base64
import binascii
import hashlib
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import RunError
from fedrec.evaluation.protocol import Evaluation, paired_difference
from fedrec.runfolder import write_json

RESAMPLES = 1_000  # bootstrap of a difference between worst deciles; its own error is some 2 % then

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Part):
    """What was asked of whom: the same for every cell of a case."""

    people: int
    who: str  # digest of the people, in order
    merchants: int
    items: int
    masking: str
    split: str


class Federated(_Part):
    """How a federation went."""

    statement: str
    rounds: int
    published_round: int
    void_rounds: int
    trainable_parameters: int


class Cell(_Part):
    """What stands in the file.

    Attributes:
        settings: digest of everything that shaped it but code.
        seconds: that measuring took, training included.
        refused: why there is nothing else; None when measured.
        means: over people and over merchants, as ``Evaluation.means``.
        cold_people: who were asked for an item in nobody's training events.
        merchants: NDCG@10 of each, None where nobody had a target.
        ndcg: NDCG@10 person by person, float32, packed.
    """

    settings: str
    seconds: Finite
    refused: str | None = None
    question: Question | None = None
    means: dict[str, Finite] = {}
    cold_people: int = 0
    merchants: tuple[Finite | None, ...] = ()
    ndcg: str = ""
    federated: Federated | None = None

    def per_person(self) -> np.ndarray:
        """NDCG@10, (N,) float32."""
        return np.frombuffer(zlib.decompress(base64.b85decode(self.ndcg)), np.float32)


def measured_cell(
    found: Evaluation,
    *,
    settings: str,
    seconds: float,
    items: int,
    masking: str,
    split: str,
    federated: Federated | None,
) -> Cell:
    """Pack an evaluation."""
    means = found.client_means("ndcg@10")
    return Cell(
        settings=settings,
        seconds=round(seconds, 1),
        question=Question(
            people=len(found.people),
            who=hashlib.sha256(np.ascontiguousarray(found.people, np.int64).tobytes()).hexdigest()[:16],
            merchants=len(found.clients),
            items=items,
            masking=masking,
            split=split,
        ),
        means=found.means(),
        cold_people=found.cold_people,
        merchants=tuple(None if np.isnan(mean) else float(mean) for mean in means),
        ndcg=base64.b85encode(zlib.compress(found.per_person["ndcg@10"].astype(np.float32).tobytes(), 9)).decode(),
        federated=federated,
    )


def write_cell(path: Path, cell: Cell) -> None:
    """Write it atomically, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, cell.model_dump(mode="json", exclude_none=True))


def read_cell(path: Path) -> Cell | None:
    """Read a cell; None when it was not measured yet.

    Raises:
        RunError: the file is damaged; names it.
    """
    try:
        cell = Cell.model_validate_json(path.read_bytes())
        if cell.refused is None and (cell.question is None or len(cell.per_person()) != cell.question.people):
            raise ValueError("people are missing")
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError, binascii.Error, zlib.error):
        raise RunError(f"{path}: damaged; remove it to measure it again") from None
    return cell


def difference(first: Cell, second: Cell) -> tuple[float, float]:
    """How much better the second did on the same people: NDCG@10 and its standard error."""
    _same_people(first, second)
    return paired_difference(first.per_person(), second.per_person())


def worst_decile_difference(first: Cell, second: Cell) -> tuple[float, float]:
    """How much better the second's worst tenth of merchants is, and its standard error by bootstrap over merchants."""
    _same_people(first, second)
    both = np.array([first.merchants, second.merchants], dtype=np.float64)  # (2, C); None becomes NaN
    both = both[:, ~np.isnan(both).any(axis=0)]
    merchants = both.shape[1]
    drawn = np.random.default_rng(0).integers(merchants, size=(RESAMPLES, merchants))
    resampled = _worst(both[:, drawn])  # (2, RESAMPLES)
    worst = _worst(both)
    return float(worst[1] - worst[0]), float((resampled[1] - resampled[0]).std(ddof=1))


def merchants_ahead(first: Cell, second: Cell) -> tuple[int, int]:
    """At how many merchants the second did better, and at how many worse."""
    _same_people(first, second)
    pairs = [pair for pair in zip(first.merchants, second.merchants, strict=True) if None not in pair]
    return sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)


def _worst(means: np.ndarray) -> np.ndarray:
    """Mean of the lowest tenth along the last axis, at least one."""
    return np.sort(means, axis=-1)[..., : -(-means.shape[-1] // 10)].mean(axis=-1)


def _same_people(first: Cell, second: Cell) -> None:
    if first.question != second.question:
        raise RunError(f"cells of other people cannot be compared: {first.question} and {second.question}")
