"""Rules that a row must pass: counted when cleaning, refused at the first failure when reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fedrec.errors import DataError


@dataclass(frozen=True)
class Rule:
    """One reason to leave a row out.

    Attributes:
        name: short and stable; a key in ``check.json``.
        description: what is dropped, for a reader.
        is_bad: boolean expression over the table, true for a row that fails; never null.
        field: our field that it judges; the rule is skipped where the table has no such field.
        expected: what the field should have held, for an error message.
    """

    name: str
    description: str
    is_bad: pl.Expr
    field: str
    expected: str


@dataclass(frozen=True)
class RuleCount:
    """What one rule did: rows dropped by it, and rows kept after it."""

    rule: str
    description: str
    dropped: int
    kept: int


def apply_rules(frame: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, list[RuleCount]]:
    """Drop the rows that fail, rule by rule in order, and count.

    Returns:
        The rows left in their order, and one count for each rule whose field the table has.
    """
    counts = []
    for rule in rules:
        if rule.field not in frame.columns:
            continue
        before = frame.height
        frame = frame.filter(~rule.is_bad)
        counts.append(RuleCount(rule.name, rule.description, before - frame.height, frame.height))
    return frame, counts


def drop_duplicates(frame: pl.DataFrame, *, description: str) -> tuple[pl.DataFrame, RuleCount]:
    """Keep the first of rows that agree in every column, in their order."""
    kept = frame.unique(keep="first", maintain_order=True)
    return kept, RuleCount("exact_duplicate", description, frame.height - kept.height, kept.height)


def first_true(marks: pl.Series) -> int | None:
    """Row of the first true, 0-based; None when there is none."""
    return marks.arg_max() if marks.any() else None


def refuse_bad_rows(
    frame: pl.DataFrame, rules: Sequence[Rule], *, raw: pl.DataFrame, source: dict[str, str], path: Path
) -> None:
    """Raise for the first row, by file order, that fails a rule.

    Args:
        frame: the typed table.
        rules: in order; the first that a bad row fails is named.
        raw: the table as read, same rows, for the value to show.
        source: for each of our fields the file's column.
        path: for the message.

    Raises:
        DataError: names file, row (1-based, the header not counted), column and value.
    """
    failures = []
    for rule in rules:
        if rule.field in source:
            first = first_true(frame.select(rule.is_bad.alias("bad"))["bad"])
            if first is not None:
                failures.append((first, rule))
    if not failures:
        return
    row, rule = min(failures, key=lambda failure: failure[0])
    column = source[rule.field]
    raise DataError(
        f"{path}: row {row + 1}: {column}={raw[column][row]!r}: expected {rule.expected}; "
        "`fedrec data prepare` drops such rows and counts them"
    )
