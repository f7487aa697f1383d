"""Interactions: who did what with which item, when.

Reading is strict: the first row that a rule below would drop is an error that names it. Only
``fedrec data prepare`` drops rows, by the same rules, and counts them; ``fedrec data check`` counts without writing.
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import polars.selectors as cs

from fedrec.data.rules import Rule, RuleCount, apply_rules, drop_duplicates, refuse_bad_rows
from fedrec.data.tables import read_table, take_fields
from fedrec.errors import DataError

REQUIRED_FIELDS = ("user_id", "item_id", "timestamp")
_TEXT_FIELDS = ("user_id", "item_id", "event", "query", "merchant_id", "title")
_NUMBER_FIELDS = ("quantity", "price")
# "title" is the item's name as printed on the line; a catalogue can be made of it.
EVENT_FIELDS = (*REQUIRED_FIELDS, "event", "quantity", "price", "query", "merchant_id", "title")

_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_TIME_FORMATS_WITH_ZONE = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z")


def _is_blank(field: str) -> pl.Expr:
    return pl.col(field).is_null() | (pl.col(field).str.strip_chars() == "")


def _is_not_finite(field: str) -> pl.Expr:
    return (pl.col(field).is_nan() | pl.col(field).is_infinite()).fill_null(False)


EVENT_RULES = (
    Rule("missing_user", "no person named", _is_blank("user_id"), "user_id", "a person's id"),
    Rule("missing_item", "no item named", _is_blank("item_id"), "item_id", "an item's id"),
    Rule(
        "missing_timestamp",
        "time absent or unreadable",
        pl.col("timestamp").is_null(),
        "timestamp",
        "seconds since 1970, a position, or an ISO date and time",
    ),
    Rule(
        "negative_timestamp",
        "time before 1970",
        (pl.col("timestamp") < 0).fill_null(False),
        "timestamp",
        "a time of 0 or later",
    ),
    Rule(
        "bad_quantity",
        "quantity zero, negative or not a number",
        _is_not_finite("quantity") | (pl.col("quantity") <= 0).fill_null(False),
        "quantity",
        "a quantity > 0, or nothing",
    ),
    Rule(
        "bad_price",
        "price negative or not a finite number",
        _is_not_finite("price") | (pl.col("price") < 0).fill_null(False),
        "price",
        "a finite price >= 0, or nothing",
    ),
)


def read_events(path: Path, *, columns: Mapping[str, str]) -> pl.DataFrame:
    """Read events for training, refusing the first bad row.

    Args:
        path: .parquet, .csv, .tsv (also .gz) or RecBole .inter.
        columns: our field = the file's column, for names that differ; never guessed.

    Returns:
        One row an event in file order: ``user_id`` str, ``item_id`` str, ``timestamp`` int64 (seconds since 1970,
        or position), then where present ``event, query, merchant_id, title`` str and ``quantity, price`` float64,
        then every other column of the file as it was.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: names file, row (1-based, the header not counted) and column.
    """
    raw = read_table(path)
    events, source = type_events(raw, columns=columns, path=path)
    refuse_bad_rows(events, EVENT_RULES, raw=raw, source=source, path=path)
    return events


def clean_events(path: Path, *, columns: Mapping[str, str]) -> tuple[pl.DataFrame, list[RuleCount]]:
    """Read events, dropping what ``read_events`` would refuse and exact duplicates.

    Returns:
        The rows left in file order, and what each rule dropped.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: unreadable, a column is missing, or no row is left.
    """
    events, _ = type_events(read_table(path), columns=columns, path=path)
    events, counts = apply_rules(events, EVENT_RULES)
    events, duplicates = drop_duplicates(events, description="equal to an earlier row in every column")
    if events.height == 0:
        worst = max(counts, key=lambda count: count.dropped)
        raise DataError(f"{path}: no row is left after cleaning; {worst.rule} dropped {worst.dropped}")
    return events, [*counts, duplicates]


def type_events(raw: pl.DataFrame, *, columns: Mapping[str, str], path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Rename and type; what cannot be read becomes null (times) or NaN (numbers), for the rules to find.

    Returns:
        The typed table, same rows, and for each field present the file's column.

    Raises:
        ConfigError, DataError: as ``take_fields``, or a column whose type can never fit.
    """
    frame, source = take_fields(raw, EVENT_FIELDS, required=REQUIRED_FIELDS, columns=columns, path=path)
    typed = []
    for field, column in source.items():
        series = frame[field]
        if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
            raise DataError(f"{path}: column {column!r} has type {series.dtype}, which cannot be a {field}")
        typed.append(_typed(field, series, where=f"{path}: column {column!r}"))
    return frame.with_columns(typed), source


def _typed(field: str, series: pl.Series, *, where: str) -> pl.Series:
    """One field in its type."""
    if field in _TEXT_FIELDS:
        return text_of(series)
    if series.dtype in (pl.Boolean, pl.Time, pl.Duration):
        raise DataError(f"{where} has type {series.dtype}; {field} wants numbers")
    if field in _NUMBER_FIELDS:
        return numbers_of(series, where=where)
    return _seconds_of(series)


def text_of(series: pl.Series) -> pl.Series:
    """Ids and words as text; whole numbers stored as floats lose their ``.0``."""
    if series.dtype.is_float():
        series = series.fill_nan(None)
        if series.drop_nulls().is_finite().all() and (series.drop_nulls() % 1 == 0).all():
            series = series.cast(pl.Int64, strict=False)
    return series.cast(pl.String)


def numbers_of(series: pl.Series, *, where: str) -> pl.Series:
    """Numbers as float64; text that is none becomes NaN.

    Raises:
        DataError: the column holds dates.
    """
    if series.dtype.is_temporal():
        raise DataError(f"{where} has type {series.dtype}; expected numbers")
    is_given = series.is_not_null()
    if series.dtype == pl.String:
        series = series.str.strip_chars()
        is_given = is_given & (series != "").fill_null(False)
    numbers = series.cast(pl.Float64, strict=False)
    return numbers.to_frame("number").select(
        pl.when(pl.col("number").is_null() & is_given).then(float("nan")).otherwise(pl.col("number")).alias(series.name)
    )[series.name]


def _seconds_of(series: pl.Series) -> pl.Series:
    """Whole seconds; null where absent or unreadable. Zoneless clock times are taken as UTC."""
    if series.dtype in (pl.Date, pl.Datetime):
        return series.dt.epoch("s").cast(pl.Int64)
    if series.dtype.is_float():
        return series.to_frame().select(pl.all().floor().cast(pl.Int64, strict=False)).to_series()
    if series.dtype != pl.String:
        return series.cast(pl.Int64, strict=False)
    text = pl.col(series.name).str.strip_chars()
    readings = [
        text.cast(pl.Int64, strict=False),
        text.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False),
        text.str.to_date("%Y-%m-%d", strict=False).dt.epoch("s").cast(pl.Int64),
        *(text.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s") for form in _TIME_FORMATS),
        *(
            text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC").dt.epoch("s")
            for form in _TIME_FORMATS_WITH_ZONE
        ),
    ]
    frame = series.to_frame()
    seconds = frame.select(pl.coalesce(readings[:1])).to_series()
    for tried in range(2, len(readings) + 1):  # stop once every row is explained: large files are in one format
        if seconds.null_count() == series.null_count():
            break
        seconds = frame.select(pl.coalesce(readings[:tried])).to_series()
    return seconds.rename(series.name)


def other_columns(events: pl.DataFrame) -> list[str]:
    """Names of the columns of words or whole numbers that may describe a person or a merchant."""
    skipped = ("user_id", "item_id", "timestamp", "quantity", "price", "query", "title")
    kinds = cs.string() | cs.categorical() | cs.boolean() | cs.integer()
    return [name for name in events.select(kinds).columns if name not in skipped]
