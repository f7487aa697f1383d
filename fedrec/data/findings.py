"""What looks wrong in events that every rule let through. Each function answers one question about them."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.near_duplicates import near_duplicate_titles
from fedrec.data.splits import FIRST_PLAUSIBLE_CLOCK

Severity = Literal["ok", "note", "look", "problem"]
_DAY_S = 86_400
_FEWEST_PEOPLE, _FEWEST_TIES = 10, 100  # below these a share says nothing
_LAST_PLAUSIBLE_CLOCK = 4_102_444_800  # 2100-01-01: later ones are milliseconds, most likely


@dataclass(frozen=True)
class Thresholds:
    """Where ordinary ends.

    Attributes:
        day_events: events of one person in one day (UTC).
        burst_times: different seconds with an event of one person within a minute.
        heavy_factor: events of a person, in medians over people.
        price_factor: a price against the item's median price, either way.
        item_price_factor: an item's median price against the median over items, either way.
        title_cosine: letter trigrams of two titles.
        title_items: catalogue size up to which all titles are compared.
        sorted_share: share of people whose histories are in the order of the item ids.
        examples: shown for each finding.
    """

    day_events: int = 1_000
    burst_times: int = 30
    heavy_factor: float = 50.0
    price_factor: float = 10.0
    item_price_factor: float = 100.0
    title_cosine: float = 0.97
    title_items: int = 30_000
    sorted_share: float = 0.05
    examples: int = 8


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes:
        name: stable key.
        title: a heading.
        severity: ``ok`` nothing found; ``note`` good to know; ``look`` worth a look; ``problem`` spoils training.
        count: how many ``unit`` are concerned.
        unit: what is counted.
        summary: a sentence.
        examples: a few of them, the worst first.
    """

    name: str
    title: str
    severity: Severity
    count: int
    unit: str
    summary: str
    examples: list[dict[str, object]]

    @property
    def quantity(self) -> str:
        """``1 person``, ``1,695 rows``."""
        singular = {"people": "person", "items": "item", "rows": "row"}
        return f"{self.count:,} {singular[self.unit] if self.count == 1 else self.unit}"


def is_clock(events: pl.DataFrame) -> bool:
    """True when timestamps are seconds since 1970 rather than positions."""
    return int(events["timestamp"].max()) >= FIRST_PLAUSIBLE_CLOCK  # type: ignore[arg-type]


def suspicious_people(events: pl.DataFrame, limits: Thresholds) -> Finding:
    """Bots, shared tills and test accounts: a thousand events a day, bursts, far more events than anyone."""
    per_person = events.group_by("user_id").agg(pl.len().alias("events"))
    median = float(per_person["events"].median())  # type: ignore[arg-type]
    heavy_from = max(limits.heavy_factor * median, limits.day_events)
    reasons = [per_person.filter(pl.col("events") > heavy_from).select("user_id", reason=pl.lit("heavy"))]
    if is_clock(events):
        busy = events.group_by("user_id", pl.col("timestamp") // _DAY_S).len()
        reasons.append(busy.filter(pl.col("len") > limits.day_events).select("user_id", reason=pl.lit("busy day")))
        moments = events.select("user_id", "timestamp").unique().sort("user_id", "timestamp")
        span = pl.col("timestamp") - pl.col("timestamp").shift(limits.burst_times - 1).over("user_id")
        reasons.append(moments.filter(span < 60).select("user_id", reason=pl.lit("burst")))
    people = (
        pl.concat(reasons)
        .group_by("user_id")
        .agg(pl.col("reason").unique().sort().str.join(", "))
        .join(per_person, on="user_id")
        .sort(["events", "user_id"], descending=[True, False])
    )
    rules = (
        f"more than {limits.day_events:,} events in a day, events in {limits.burst_times} different seconds of one "
        f"minute, or more than {heavy_from:,.0f} events in all (the median person has {median:,.0f})"
    )
    return Finding(
        "suspicious_people",
        "People who may not be people",
        "look" if people.height else "ok",
        people.height,
        "people",
        f"{people.height:,} of {per_person.height:,} people have {rules}.",
        people.select("user_id", "events", "reason").head(limits.examples).to_dicts(),
    )


def suspicious_prices(events: pl.DataFrame, limits: Thresholds) -> Finding:
    """Slips of the decimal point, placeholders and free items."""
    name, title = "suspicious_prices", "Prices that stand out"
    if "price" not in events.columns:
        return Finding(name, title, "note", 0, "rows", "The events carry no prices.", [])
    priced = events.select("item_id", "price").drop_nulls()
    free = int((priced["price"] == 0).sum())
    paid = priced.filter(pl.col("price") > 0).with_columns(
        pl.col("price").median().over("item_id").alias("item_median"), pl.len().over("item_id").alias("prices")
    )
    ratio = pl.max_horizontal(pl.col("price") / pl.col("item_median"), pl.col("item_median") / pl.col("price"))
    odd = paid.with_columns(ratio.alias("times_off")).filter(
        (pl.col("prices") >= 5) & (pl.col("times_off") >= limits.price_factor)
    )
    medians = paid.group_by("item_id").agg(pl.col("price").median())
    overall = medians["price"].median()
    odd_items = medians.filter(
        (pl.col("price") >= limits.item_price_factor * pl.lit(overall))
        | (pl.col("price") * limits.item_price_factor <= pl.lit(overall))
    )
    rows = odd.height + free
    summary = (
        f"{odd.height:,} prices are at least {limits.price_factor:g} times above or below their item's median; "
        f"{free:,} are zero; {odd_items.height:,} items cost {limits.item_price_factor:g} times more or less than "
        "the median item."
    )
    examples = odd.sort(["times_off", "item_id", "price"], descending=[True, False, False]).select(
        "item_id", "price", "item_median", pl.col("times_off").round(1)
    )
    return Finding(
        name,
        title,
        "look" if rows + odd_items.height else "ok",
        rows,
        "rows",
        summary,
        examples.head(limits.examples).to_dicts(),
    )


def time_disorder(events: pl.DataFrame, limits: Thresholds) -> Finding:
    """Rows that are older than the row before them of the same person, and clocks that cannot be right."""
    step = pl.col("timestamp") - pl.col("timestamp").shift(1).over("user_id")
    late = events.with_columns(step.alias("seconds_back")).filter(pl.col("seconds_back") < 0)
    future = int((events["timestamp"] >= _LAST_PLAUSIBLE_CLOCK).sum())
    people = late["user_id"].n_unique()
    summary = "Every row is at least as late as the person's row before it."
    if late.height:
        summary = (
            f"{late.height:,} rows of {people:,} people are older than the person's row before them in the file. "
            "Histories are sorted by time, so this only matters where the times are wrong."
        )
    if future:
        summary += f" {future:,} times lie after the year 2099: are they milliseconds? Divide them by 1,000."
    examples = late.sort(["seconds_back", "user_id"]).select("user_id", "item_id", "timestamp", "seconds_back")
    severity: Severity = "problem" if future else "note" if late.height else "ok"
    return Finding(
        "time_disorder",
        "Order of time",
        severity,
        late.height + future,
        "rows",
        summary,
        examples.head(limits.examples).to_dicts(),
    )


def sorted_by_item(events: pl.DataFrame, limits: Thresholds) -> Finding:
    """The trap of a copy whose histories were sorted by item id: the order then says nothing about what comes next."""
    number = pl.col("item_id").cast(pl.Int64, strict=False)
    is_numeric = events["item_id"].cast(pl.Int64, strict=False).null_count() == 0
    ordered = events.select("user_id", "timestamp", (number if is_numeric else pl.col("item_id")).alias("item")).sort(
        "user_id", "timestamp", maintain_order=True
    )
    rises = pl.col("item") >= pl.col("item").shift(1)
    people = ordered.group_by("user_id").agg(
        rises.all(ignore_nulls=True).alias("is_sorted"), pl.col("item").n_unique().alias("items")
    )
    people = people.filter(pl.col("items") >= 5)
    sorted_people = int(people["is_sorted"].sum())
    share = sorted_people / max(people.height, 1)
    is_tied = (pl.col("timestamp") == pl.col("timestamp").shift(1)) & (pl.col("user_id") == pl.col("user_id").shift(1))
    ties = ordered.select(
        rises.alias("rises"), is_tied.alias("is_tied"), changes=pl.col("item") != pl.col("item").shift(1)
    )
    ties = ties.filter(pl.col("is_tied") & pl.col("changes"))
    rising_ties = float(ties["rises"].mean() or 0.0)  # type: ignore[arg-type]
    severity: Severity = "ok"
    if people.height >= _FEWEST_PEOPLE and share > limits.sorted_share:
        severity = "problem" if share > 0.5 else "look"
    elif ties.height >= _FEWEST_TIES and rising_ties > 0.9:
        severity = "look"
    summary = (
        f"{sorted_people:,} of {people.height:,} people with five or more different items have them in the order of "
        "the item ids; fewer than 1 in 120 would by chance, more where ids are given out in the order of release."
    )
    if ties.height:
        summary += (
            f" Of {ties.height:,} neighbours at the same time {rising_ties:.0%} rise with the id; half would by chance."
        )
    return Finding("sorted_by_item", "Histories sorted by item id", severity, sorted_people, "people", summary, [])


def near_duplicates(catalogue: Catalogue | None, limits: Thresholds) -> Finding:
    """One product under two ids splits its evidence and makes its twin a wrong answer."""
    name, title = "near_duplicate_titles", "Titles that are nearly the same"
    if catalogue is None:
        return Finding(name, title, "note", 0, "items", "No titles are known.", [])
    titles = list(catalogue.titles)
    pairs, are_all_compared = near_duplicate_titles(titles, cosine=limits.title_cosine, max_items=limits.title_items)
    summary = (
        f"{len(pairs):,} of {len(titles):,} items have the words of another, or letter trigrams with a cosine above "
        f"{limits.title_cosine:g}; titles that differ in a number count as variants."
    )
    if not are_all_compared:
        summary += f" More than {limits.title_items:,} titles: only the same words were looked for."
    examples = [
        {
            "item_id": catalogue.item_ids[later],
            "title": titles[later],
            "like": catalogue.item_ids[earlier],
            "its title": titles[earlier],
            "cosine": round(similarity, 3),
        }
        for earlier, later, similarity in pairs[: limits.examples]
    ]
    return Finding(name, title, "look" if pairs else "ok", len(pairs), "items", summary, examples)


def missing_titles(catalogue: Catalogue | None, limits: Thresholds) -> Finding:
    """Items are text to the ranker: without a title it knows nothing of them."""
    name, title = "missing_titles", "Items without a readable title"
    if catalogue is None:
        summary = "No catalogue and no titles: the ranker reads text, so give --catalogue or --map title=COLUMN."
        return Finding(name, title, "problem", 0, "items", summary, [])
    items = pl.DataFrame({"item_id": catalogue.item_ids, "title": catalogue.titles})
    blank = items.filter(~pl.col("title").str.contains(r"[\p{L}\p{N}]"))
    markup = items.filter(pl.col("title").str.contains(r"<[a-zA-Z/!][^>]*>"))
    found = pl.concat([blank, markup])
    summary = f"{blank.height:,} of {items.height:,} items have no title; {markup.height:,} titles hold HTML."
    return Finding(
        name,
        title,
        "look" if found.height else "ok",
        found.height,
        "items",
        summary,
        found.head(limits.examples).to_dicts(),
    )


def items_without_catalogue(
    unknown_items: dict[str, int], *, catalogue: Catalogue | None, events: pl.DataFrame, limits: Thresholds
) -> Finding:
    """Events that point nowhere, and products that nobody has touched yet."""
    name, title = "items_without_catalogue_row", "Items and their catalogue rows"
    if catalogue is None:
        return Finding(name, title, "note", 0, "items", "No catalogue was given.", [])
    never = len(catalogue) - events["item_id"].n_unique()
    summary = (
        f"{len(unknown_items):,} items in {sum(unknown_items.values()):,} event rows have no catalogue row (the rule "
        f"unknown_item drops them); "
        f"{never:,} catalogue items have no event."
    )
    examples: list[dict[str, object]] = [
        {"item_id": item, "rows": rows} for item, rows in list(unknown_items.items())[: limits.examples]
    ]
    severity: Severity = "look" if unknown_items else "note" if never else "ok"
    return Finding(name, title, severity, len(unknown_items), "items", summary, examples)
