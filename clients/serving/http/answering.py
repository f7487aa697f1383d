"""From a body to an answer, by what is served at that moment: no HTTP here."""

import time
from collections.abc import Iterable
from math import isfinite
from typing import NamedTuple

import numpy as np
import polars as pl

from clients.serving.events import Event
from clients.serving.explaining import Cause, explain
from clients.serving.http.bodies import (
    MAX_CATEGORIES,
    CatalogueAnswer,
    CauseAnswer,
    EventsAnswer,
    EventsBody,
    ExplainAnswer,
    ExplainBody,
    FilterBody,
    Item,
    ItemsAnswer,
    PriceRange,
    RecommendBody,
    SearchBody,
)
from clients.serving.http.refusals import Refusal
from clients.serving.ranking import CATEGORY, PRICE, Filters, allowed_items
from clients.serving.reading import read_history
from clients.serving.recommending import Recommendation, Wishes, recommend
from clients.serving.scoring import score_parts
from clients.serving.served import Served
from clients.serving.store import EventStore
from fedrec.config_serving import ServingConfig
from fedrec.data.catalogue import Catalogue

_POOL = ServingConfig().pool


class KnownPast(NamedTuple):
    """What a request is ranked by. Sensitive.

    Attributes:
        items: positions in the catalogue, (L,), oldest first; empty where nobody's past is to be used.
        times: as many seconds; None where each event is a visit of its own.
    """

    items: np.ndarray
    times: np.ndarray | None


def past_asked(
    served: Served, store: EventStore, body: RecommendBody | SearchBody | ExplainBody, *, latest: int
) -> KnownPast:
    """The past that a body names, where both the request and the person's own choice let us use it.

    Raises:
        Refusal: an item of the history is not in the catalogue.
        DataError: ``user`` is no id.
    """
    if body.user is not None and body.personalized:
        return KnownPast(*read_history(store, body.user, served.model.catalogue, latest=latest))
    items = positions(served.model.catalogue, body.history or (), field="history")
    return KnownPast(items if body.personalized else items[:0], None)


def positions(catalogue: Catalogue, item_ids: Iterable[str], *, field: str) -> np.ndarray:
    """Places in the catalogue, (L,) int64.

    Raises:
        Refusal: names the first item that is not there.
    """
    found = []
    for item_id in item_ids:
        if item_id not in catalogue.index:
            raise Refusal("unknown_item", f"{field}: item {item_id[:80]!r} is not in the catalogue")
        found.append(catalogue.index[item_id])
    return np.array(found, dtype=np.int64)


def recommend_answer(served: Served, store: EventStore, body: RecommendBody, *, latest: int) -> ItemsAnswer:
    """A list for a past.

    Raises:
        Refusal, ConfigError, DataError: something in the body cannot be answered.
    """
    past = past_asked(served, store, body, latest=latest)
    is_personal = len(past.items) > 0
    wishes = Wishes(body.k, _filters(body.filters), body.diversity, _POOL, personalized=is_personal)
    found = recommend(served.model, past.items, wishes, memory=served.memory, times=past.times, index=served.index)
    reasons = _reasons(served, past, found) if body.reasons else [None] * len(found)
    items = [
        _item(served.model.catalogue, body, one.item, (one.score, one.parts), reason=reason)
        for one, reason in zip(found, reasons, strict=True)
    ]
    return ItemsAnswer(model=served.model.version, personalized=is_personal, items=items)


def search_answer(served: Served, store: EventStore, body: SearchBody, *, latest: int) -> ItemsAnswer:
    """Items for a query, in an order for a past where there is one.

    Raises:
        Refusal, ConfigError, DataError: as ``recommend_answer``.
    """
    past, model = past_asked(served, store, body, latest=latest), served.model
    allowed, own = allowed_items(model.catalogue, _filters(body.filters)), None
    if len(past.items):
        parts = score_parts(model, past.items, memory=served.memory, times=past.times)
        own = np.sum(list(parts.values()), axis=0)
        if body.filters.hide_bought:
            allowed[past.items] = False
    hits = served.searcher.search(body.query, k=body.k, allowed=allowed, user_scores=own)
    items = [
        _item(model.catalogue, body, hit.item, (hit.score, dict(hit.parts)), found_by=list(hit.parts)) for hit in hits
    ]
    return ItemsAnswer(model=model.version, personalized=own is not None, items=items)


def explain_answer(served: Served, store: EventStore, body: ExplainBody, *, latest: int) -> ExplainAnswer:
    """Why an item stands where it does for a past.

    Raises:
        Refusal, DataError: as ``recommend_answer``.
    """
    past, catalogue = past_asked(served, store, body, latest=latest), served.model.catalogue
    asked = positions(catalogue, [body.item], field="item")
    (found,) = explain(served.model, past.items, asked.tolist(), memory=served.memory, times=past.times)
    return ExplainAnswer(
        model=served.model.version,
        personalized=len(past.items) > 0,
        item=_item(catalogue, body, found.item, (found.total, found.parts), reason=found.reason),
        causes=[_cause(catalogue, one, with_drop=body.scores) for one in found.causes],
    )


def catalogue_answer(catalogue: Catalogue) -> CatalogueAnswer:
    """What lists can be filtered by."""
    columns, categories, prices = catalogue.attributes, None, None
    if CATEGORY in columns.columns:
        known = columns[CATEGORY].cast(pl.String).str.strip_chars().drop_nulls()
        counted = known.filter(known != "").value_counts(sort=True)
        categories = sorted(counted[CATEGORY].head(MAX_CATEGORIES).to_list()) or None
    if PRICE in columns.columns:
        known = columns[PRICE].cast(pl.Float64).drop_nulls().drop_nans()
        if len(known):
            prices = PriceRange(lowest=known.min(), highest=known.max())
    return CatalogueAnswer(items=len(catalogue), categories=categories, prices=prices)


def take_events(served: Served, store: EventStore, body: EventsBody) -> EventsAnswer:
    """Put events into the store; on disk on return.

    Raises:
        Refusal: an item is not in the catalogue, and those are not to be kept.
        DataError: names the first event, from 0, and the field that is wrong.
        RunError: they could not be written.
    """
    if not body.keep_unknown:
        for index, one in enumerate(body.events):
            positions(served.model.catalogue, [one.item], field=f"events.{index}.item")
    now = time.time()
    events = [
        Event(one.user, one.item, now if one.timestamp is None else one.timestamp, one.kind, one.query, one.event_id)
        for one in body.events
    ]
    return EventsAnswer(**store.append(events)._asdict())


def _filters(body: FilterBody) -> Filters:
    in_stock = None if body.in_stock is None else frozenset(body.in_stock)
    return Filters(body.category, body.min_price, body.max_price, in_stock, hide_bought=body.hide_bought)


def _reasons(served: Served, past: KnownPast, found: list[Recommendation]) -> list[str]:
    asked = [one.item for one in found]
    return [one.reason for one in explain(served.model, past.items, asked, memory=served.memory, times=past.times)]


def _item(
    catalogue: Catalogue,
    body: RecommendBody | SearchBody | ExplainBody,
    item: int,
    raw: tuple[float, dict[str, float]],
    *,
    reason: str | None = None,
    found_by: list[str] | None = None,
) -> Item:
    """An item with no more about it than the body asks for."""
    score, parts = raw if body.scores else (None, None)
    category, price = _details(catalogue, item) if body.details else (None, None)
    return Item(
        item_id=catalogue.item_ids[item],
        title=catalogue.titles[item],
        category=category,
        price=price,
        reason=reason,
        found_by=found_by,
        score=score,
        parts=parts,
    )


def _details(catalogue: Catalogue, item: int) -> tuple[str | None, float | None]:
    """Category and price of an item, None where they are not known."""
    columns = catalogue.attributes
    category = str(columns[CATEGORY][item] or "").strip() if CATEGORY in columns.columns else ""
    price = columns[PRICE][item] if PRICE in columns.columns else None
    return category or None, None if price is None or not isfinite(price) else float(price)


def _cause(catalogue: Catalogue, cause: Cause, *, with_drop: bool) -> CauseAnswer:
    is_felt = abs(cause.drop) >= 0.005  # logits
    return CauseAnswer(
        item_id=catalogue.item_ids[cause.item],
        title=catalogue.titles[cause.item],
        effect=("raises" if cause.drop > 0 else "lowers") if is_felt else "none",
        drop=cause.drop if with_drop else None,
    )
