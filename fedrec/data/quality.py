"""What is in a data set, what cleaning takes out of it, and what looks wrong in the rest."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from fedrec.data import findings as questions
from fedrec.data.cleaning import Cleaned
from fedrec.data.findings import Finding, Thresholds
from fedrec.data.rules import RuleCount

__all__ = ["Bar", "Finding", "QualityReport", "RuleCount", "Thresholds", "check"]

_TIMELINE_BARS = 40
_SHORT_HISTORY = 4


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    label: str
    count: int


@dataclass(frozen=True)
class QualityReport:
    """Everything ``fedrec data check`` shows; ``to_json`` is the content of ``check.json``.

    Attributes:
        source: the file, or ``bundled``.
        rows_read, rows_kept: event rows before and after the rules.
        rules, catalogue_rules: in the order applied.
        people, items: distinct, in the rows kept.
        catalogue_items: None without a catalogue.
        first, last: UTC, ISO; None where timestamps are positions.
        is_clock: timestamps are seconds since 1970.
        event_types: rows of each; empty when the source names none.
        events_per_person: ``min, median, mean, max``.
        people_with_four: people with at least four events after merging repeats, the default of a run.
        repeat_share: share of events with an item that the person had before, in [0, 1].
        immediate_repeat_share: share of events with the item just before, in [0, 1].
        timeline: events over time; empty where timestamps are positions.
        history_lengths: people by their number of events.
        findings: one an aspect, found or not.
        thresholds: that the findings were judged by.
    """

    source: str
    rows_read: int
    rows_kept: int
    rules: list[RuleCount]
    catalogue_rules: list[RuleCount]
    people: int
    items: int
    catalogue_items: int | None
    first: str | None
    last: str | None
    is_clock: bool
    event_types: dict[str, int]
    events_per_person: dict[str, float]
    people_with_four: int
    repeat_share: float
    immediate_repeat_share: float
    timeline: list[Bar]
    history_lengths: list[Bar]
    findings: list[Finding]
    thresholds: Thresholds

    def to_json(self) -> dict[str, object]:
        """Plain values under the attributes' names."""
        return asdict(self)


def check(cleaned: Cleaned, *, thresholds: Thresholds | None = None) -> QualityReport:
    """Look at a cleaned data set from every side.

    Args:
        cleaned: as ``clean`` gives it, at least one row.
        thresholds: where ordinary ends; the defaults when None.
    """
    limits = thresholds or Thresholds()
    events, catalogue = cleaned.events, cleaned.catalogue
    has_clock = questions.is_clock(events)
    lengths = events.group_by("user_id").len()["len"].to_numpy()
    repeats = _repeats(events)
    return QualityReport(
        source=cleaned.source,
        rows_read=cleaned.rows_read,
        rows_kept=events.height,
        rules=cleaned.counts,
        catalogue_rules=cleaned.catalogue_counts,
        people=len(lengths),
        items=events["item_id"].n_unique(),
        catalogue_items=None if catalogue is None else len(catalogue),
        first=_iso(events["timestamp"].min()) if has_clock else None,
        last=_iso(events["timestamp"].max()) if has_clock else None,
        is_clock=has_clock,
        event_types=_event_types(events),
        events_per_person=_spread(lengths),
        people_with_four=_people_with_four(repeats),
        repeat_share=float(repeats["is_repeat"].mean()),  # type: ignore[arg-type]
        immediate_repeat_share=float(repeats["is_immediate"].mean()),  # type: ignore[arg-type]
        timeline=_timeline(events["timestamp"].to_numpy()) if has_clock else [],
        history_lengths=_length_bars(lengths),
        findings=[
            questions.items_without_catalogue(cleaned.unknown_items, catalogue=catalogue, events=events, limits=limits),
            questions.missing_titles(catalogue, limits),
            questions.near_duplicates(catalogue, limits),
            questions.suspicious_people(events, limits),
            questions.suspicious_prices(events, limits),
            questions.time_disorder(events, limits),
            questions.sorted_by_item(events, limits),
        ],
        thresholds=limits,
    )


def _iso(seconds: object) -> str:
    """UTC, to the second; far-off times keep their number."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).isoformat()  # type: ignore[call-overload]
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def _event_types(events: pl.DataFrame) -> dict[str, int]:
    """Rows of each type, most first."""
    if "event" not in events.columns:
        return {}
    counts = events["event"].fill_null("(none)").value_counts().sort(["count", "event"], descending=[True, False])
    return dict(counts.head(50).iter_rows())


def _repeats(events: pl.DataFrame) -> pl.DataFrame:
    """For each event by person and time: had the person the item before, or just before."""
    ordered = events.select("user_id", "item_id", "timestamp").sort("user_id", "timestamp", maintain_order=True)
    same_item = pl.col("item_id") == pl.col("item_id").shift(1)
    same_person = pl.col("user_id") == pl.col("user_id").shift(1)
    return ordered.select(
        "user_id",
        (~pl.struct("user_id", "item_id").is_first_distinct()).alias("is_repeat"),
        (same_item & same_person).fill_null(False).alias("is_immediate"),
    )


def _people_with_four(repeats: pl.DataFrame) -> int:
    """People long enough for the default run."""
    kept = repeats.filter(~pl.col("is_immediate")).group_by("user_id").len()
    return int((kept["len"] >= _SHORT_HISTORY).sum())


def _spread(lengths: np.ndarray) -> dict[str, float]:
    """Four numbers about events per person."""
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": round(float(lengths.mean()), 2),
        "max": int(lengths.max()),
    }


def _timeline(seconds: np.ndarray) -> list[Bar]:
    """Events in equal stretches of time, each labelled by its first day."""
    edges = np.linspace(seconds.min(), seconds.max() + 1, _TIMELINE_BARS + 1)
    counts, _ = np.histogram(seconds, bins=edges)
    labels = [_iso(edge)[:10] for edge in edges[:-1]]
    return [Bar(label, int(count)) for label, count in zip(labels, counts, strict=True)]


def _length_bars(lengths: np.ndarray) -> list[Bar]:
    """People by number of events, in doubling steps: 1, 2-3, 4-7, ..."""
    exponents = np.floor(np.log2(lengths)).astype(int)
    bars = []
    for exponent in range(exponents.max() + 1):
        low, high = 2**exponent, 2 ** (exponent + 1) - 1
        label = str(low) if low == high else f"{low}-{high}"
        bars.append(Bar(label, int((exponents == exponent).sum())))
    return bars
