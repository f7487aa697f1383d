"""The public catalogue: what items there are and what is said about them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.events import numbers_of, text_of
from fedrec.data.rules import Rule, RuleCount, apply_rules, first_true, refuse_bad_rows
from fedrec.data.tables import read_table, take_fields, write_atomically
from fedrec.errors import DataError

CATALOGUE_FIELDS = ("item_id", "title", "category", "brand", "description", "price", "image")
_TEXT_PARTS = ("category", "brand", "description")

_CATALOGUE_RULES = (
    Rule(
        "missing_item",
        "no item named",
        pl.col("item_id").is_null() | (pl.col("item_id").str.strip_chars() == ""),
        "item_id",
        "an item's id",
    ),
    Rule(
        "bad_price",
        "price negative or not a finite number",
        (~pl.col("price").is_finite() | (pl.col("price") < 0)).fill_null(False),
        "price",
        "a finite price >= 0, or nothing",
    ),
)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in a fixed order; position in it is the item's index everywhere else.

    Attributes:
        item_ids: (I,), distinct.
        titles: (I,), ``""`` where the source has none.
        attributes: (I rows), every other column, in the same order.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    attributes: pl.DataFrame

    def __post_init__(self) -> None:
        if len(self.titles) != len(self.item_ids) or (self.attributes.width and self.attributes.height != len(self)):
            raise DataError(f"catalogue: {len(self)} items but {len(self.titles)} titles or other rows of attributes")
        if len(self.index) != len(self):
            raise DataError("catalogue: an item_id appears twice")

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """item_id -> position, 0..I-1."""
        return {item_id: position for position, item_id in enumerate(self.item_ids)}

    @cached_property
    def by_category(self) -> dict[str, np.ndarray]:
        """Each category, in lower case and trimmed, and the positions of its items; empty without such a column."""
        if "category" not in self.attributes.columns:
            return {}
        column = self.attributes["category"].cast(pl.String).fill_null("").str.strip_chars().str.to_lowercase()
        groups = column.to_frame("category").with_row_index("item").group_by("category").agg("item")
        return {name: items.to_numpy() for name, items in zip(groups["category"], groups["item"], strict=True)}

    def texts(self) -> list[str]:
        """(I,) what an encoder reads: the title, then category, brand and description where known."""
        columns = [self.attributes[name].fill_null("").to_list() for name in self._text_parts]
        rows = zip(self.titles, *columns, strict=True)
        return [". ".join(part.strip() for part in row if part.strip()) for row in rows]

    def text_column(self, name: str) -> list[str]:
        """(I,) a column of text, such as brand; ``""`` where the source has none."""
        if self.attributes.schema.get(name) != pl.String:
            return [""] * len(self)
        return self.attributes[name].fill_null("").to_list()

    def text_only(self) -> "Catalogue":
        """The same items with nothing but their text: what a base is made from."""
        return Catalogue(self.item_ids, self.titles, self.attributes.select(self._text_parts))

    @property
    def _text_parts(self) -> list[str]:
        return [name for name in _TEXT_PARTS if self.attributes.schema.get(name) == pl.String]

    def digest(self) -> str:
        """sha256 over ids, titles and attributes, hex; the same for equal content on every machine."""
        content = [self.item_ids, self.titles, self.attributes.to_dict(as_series=False)]
        return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


def read_catalogue(path: Path, *, columns: Mapping[str, str]) -> Catalogue:
    """Read a catalogue, in file order.

    A repeated item keeps its first row when the titles agree, so order lines can serve as a catalogue.

    Args:
        path: .parquet, .csv, .tsv (also .gz) or RecBole .item.
        columns: our field = the file's column, for names that differ; never guessed.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: a column is missing, an id is blank, a price is no finite number >= 0, or one item has two titles.
    """
    raw = read_table(path)
    frame, source = _typed_items(raw, columns=columns, path=path)
    refuse_bad_rows(frame, _CATALOGUE_RULES, raw=raw, source=source, path=path)
    _refuse_second_titles(frame, path=path)
    return catalogue_of(frame.unique("item_id", keep="first", maintain_order=True))


def clean_catalogue(path: Path, *, columns: Mapping[str, str]) -> tuple[Catalogue, list[RuleCount]]:
    """Read a catalogue, mending what ``read_catalogue`` would refuse.

    Returns:
        The catalogue, and what each rule did: rows without an id go, an unusable price is removed from its item,
        and of a repeated item the first row stays.

    Raises:
        ConfigError: ``columns`` names an unknown field.
        DataError: unreadable, a column is missing, or no item is left.
    """
    frame, _ = _typed_items(read_table(path), columns=columns, path=path)
    missing, price = _CATALOGUE_RULES
    frame, counts = apply_rules(frame, [missing])
    if price.field in frame.columns:
        bad = int(frame.select(price.is_bad.sum()).item())
        frame = frame.with_columns(pl.when(price.is_bad).then(None).otherwise(pl.col("price")).alias("price"))
        counts.append(RuleCount("bad_price", f"{price.description}: the price is removed", bad, frame.height))
    kept = frame.unique("item_id", keep="first", maintain_order=True)
    counts.append(RuleCount("repeated_item", "an earlier row has this item", frame.height - kept.height, kept.height))
    if kept.height == 0:
        raise DataError(f"{path}: no item is left after cleaning; missing_item dropped {counts[0].dropped}")
    return catalogue_of(kept), counts


def _typed_items(raw: pl.DataFrame, *, columns: Mapping[str, str], path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Rename and type; an unreadable price becomes NaN, an absent title ``""``."""
    frame, source = take_fields(raw, CATALOGUE_FIELDS, required=("item_id", "title"), columns=columns, path=path)
    for field, column in source.items():
        if frame[field].dtype.is_nested() or frame[field].dtype in (pl.Binary, pl.Object):
            if field != "image":  # an image may be a vector
                raise DataError(f"{path}: column {column!r} has type {frame[field].dtype}, which cannot be a {field}")
        elif field == "price":
            frame = frame.with_columns(numbers_of(frame[field], where=f"{path}: column {column!r}"))
        else:
            frame = frame.with_columns(text_of(frame[field]))
    return frame.with_columns(pl.col("title").fill_null("").str.strip_chars()), source


def catalogue_of(frame: pl.DataFrame) -> Catalogue:
    """A catalogue from a table with distinct ``item_id`` and non-null ``title``, in its order."""
    return Catalogue(tuple(frame["item_id"]), tuple(frame["title"]), frame.drop("item_id", "title"))


def catalogue_from_events(events: pl.DataFrame) -> Catalogue:
    """A catalogue from events that carry a ``title``: each item's most frequent one, and its median price.

    Args:
        events: with ``item_id`` and ``title``, perhaps ``price``.

    Returns:
        Items sorted by id. Of equally frequent titles the alphabetically first; ``""`` where an item has none.

    Raises:
        DataError: the events carry no titles.
    """
    if "title" not in events.columns:
        raise DataError("no catalogue is given and the events carry no title; map title=COLUMN or give a catalogue")
    titles = (
        events.select("item_id", pl.col("title").str.strip_chars().str.replace_all(r"\s+", " "))
        .filter(pl.col("title").is_not_null() & (pl.col("title") != ""))
        .group_by("item_id", "title")
        .len()
        .sort(["item_id", "len", "title"], descending=[False, True, False])
        .unique("item_id", keep="first", maintain_order=True)
        .select("item_id", "title")
    )
    prices = [pl.col("price").median()] if "price" in events.columns else []
    items = events.group_by("item_id").agg(prices).sort("item_id")
    joined = items.join(titles, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("title").fill_null("")
    )
    return catalogue_of(joined)


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write as Parquet, atomically; ``read_catalogue`` gives an equal digest back.

    Raises:
        DataError: the file cannot be written.
    """
    frame = pl.DataFrame({"item_id": catalogue.item_ids, "title": catalogue.titles})
    frame = frame.hstack(catalogue.attributes) if catalogue.attributes.width else frame
    write_atomically(path, frame.write_parquet)


def refuse_unknown_items(events: pl.DataFrame, catalogue: Catalogue, *, source: str) -> None:
    """Raise for the first event whose item has no catalogue row.

    Raises:
        DataError: names ``source``, row (1-based) and item.
    """
    is_unknown = ~events["item_id"].is_in(list(catalogue.item_ids))
    row = first_true(is_unknown)
    if row is not None:
        raise DataError(
            f"{source}: row {row + 1}: item_id={events['item_id'][row]!r} is not in the catalogue "
            f"({is_unknown.sum()} such rows); `fedrec data prepare` drops such rows and counts them"
        )


def _refuse_second_titles(frame: pl.DataFrame, *, path: Path) -> None:
    """One item, two titles: which is right cannot be guessed."""
    differs = frame["title"] != frame.select(pl.col("title").first().over("item_id"))["title"]
    row = first_true(differs)
    if row is not None:
        item = frame["item_id"][row]
        raise DataError(f"{path}: row {row + 1}: item_id={item!r} has a second title {frame['title'][row]!r}")
