"""Ads for somebody, or for nobody in particular: how likely each is clicked, then the auction.

A field of the head that is called ``score`` is the ranker's score of the item for the person, ``score.NAME`` one of its
parts, and ``item.NAME`` a column of the catalogue. All others come with the request, such as the hour or the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clients.memory import LocalMemory
from clients.serving.auction import Offer, Placed, rank_ads
from clients.serving.model import ServedModel
from clients.serving.ranking import Filters, allowed_items
from clients.serving.scoring import MEANINGS, known_items, past_of, terms_of
from fedrec.data.catalogue import Catalogue
from fedrec.data.tables import read_table
from fedrec.errors import ConfigError, DataError
from fedrec.model.clicks import ClickHead
from fedrec.model.impressions import ClickSpec

SCORE, PART, ITEM = "score", "score.", "item."
OFFER_COLUMNS = ("ad", "item_id", "bid")


@dataclass(frozen=True)
class AdWishes:
    """What may be shown, and to whom.

    Attributes:
        places: ads at most, >= 1.
        reserve: least price of a click, >= 0.
        filters: what may be offered; bids buy no way round them.
        personalized: false for the ads that are the same for all: neither history nor context is looked at.
        context: of the request, by name of a field.
    """

    places: int
    reserve: float
    filters: Filters
    personalized: bool = True
    context: Mapping[str, object] = field(default_factory=dict)


def ads_for(
    model: ServedModel,
    head: ClickHead,
    offers: Sequence[Offer],
    history: np.ndarray,
    wishes: AdWishes,
    *,
    memory: LocalMemory | None = None,
    times: np.ndarray | None = None,
) -> list[Placed]:
    """Return the ads that are shown, best first.

    What the list of recommendations hides is not shown as an ad either: what the filters stop, and of the past what the
    run's own figures leave out.

    Args:
        history: item indices, oldest first.
        memory: of the merchant at which the person is.
        times: timestamps, as many; each event is a visit of its own when None.

    Raises:
        ConfigError: a wish out of range, a filter that the catalogue cannot answer, or a field that nothing gives.
        DataError: an item is not in the catalogue, an ad is there twice, or a value cannot be read.
    """
    items = known_items(model, [offer.item for offer in offers])
    past = past_of(model, history, times=times, personalized=wishes.personalized)
    allowed = allowed_items(model.catalogue, wishes.filters)
    allowed[past.items if wishes.filters.hide_bought else model.masking.hidden(past.items)] = False
    left = [offer for offer, is_allowed in zip(offers, allowed[items], strict=True) if is_allowed]
    shown = items[allowed[items]]
    context = wishes.context if wishes.personalized else dict.fromkeys(wishes.context)
    terms = terms_of(model, [past], memory=memory)[0]
    distinct, place = np.unique(shown, return_inverse=True)
    parts = {name: values[place] for name, values in terms.over(model.vectors, distinct).items()}
    columns = click_columns(model, head.spec, shown, parts, context)
    return rank_ads(left, head.probabilities(head.spec.read(columns)), places=wishes.places, reserve=wishes.reserve)


def read_offers(path: Path, catalogue: Catalogue) -> list[Offer]:
    """Read a CSV or Parquet file with a row an ad: ``ad``, ``item_id`` and ``bid``.

    Raises:
        DataError: the file cannot be read, lacks a column, or names an item that the catalogue has not; a bid is none,
            or an ad is there twice.
    """
    frame = read_table(path)
    for name in OFFER_COLUMNS:
        if name not in frame.columns:
            raise DataError(f"{path}: no column {name!r}; expected {', '.join(OFFER_COLUMNS)}")
    offers: dict[str, Offer] = {}
    for row, (ad, item_id, bid) in enumerate(frame.select(OFFER_COLUMNS).iter_rows(), start=1):
        if str(item_id) not in catalogue.index:
            raise DataError(f"{path}: row {row}: item_id: not in the catalogue of the run")
        if str(ad) in offers:
            raise DataError(f"{path}: row {row}: ad {str(ad)[:80]!r}: is there twice; expected each name once")
        try:
            offers[str(ad)] = Offer(str(ad), catalogue.index[str(item_id)], float(bid))
        except DataError as error:
            raise DataError(f"{path}: row {row}: {error}") from None
        except (TypeError, ValueError):
            raise DataError(f"{path}: row {row}: bid: expected a number") from None
    return list(offers.values())


def click_columns(
    model: ServedModel,
    spec: ClickSpec,
    items: np.ndarray,
    parts: Mapping[str, np.ndarray],
    context: Mapping[str, object],
) -> dict[str, list[object]]:
    """What a head reads of these items, for its training as for its use: one column a field.

    Args:
        items: item indices, (N,).
        parts: of the score, by name, (N,) each; a part of the merchant's memory that is not there is missing.
        context: one value a field, the same for all items.

    Raises:
        ConfigError: a field of the head is neither a part, nor in the catalogue, nor in the context; or the context has
            one that the head does not read.
    """
    if unread := [name for name in context if name not in spec.names]:
        raise ConfigError(f"--context {unread[0]}: the head does not read it; it reads {', '.join(spec.names)}")
    return {name: _column(model, name, items, parts, context) for name in spec.names}


def _column(
    model: ServedModel, name: str, items: np.ndarray, parts: Mapping[str, np.ndarray], context: Mapping[str, object]
) -> list[object]:
    if name == SCORE:
        return list(np.sum(list(parts.values()), axis=0).tolist())
    if name.startswith(PART) and name.removeprefix(PART) in MEANINGS:
        values = parts.get(name.removeprefix(PART))
        return [None] * len(items) if values is None else list(values.tolist())
    if name.startswith(ITEM) and name.removeprefix(ITEM) in model.catalogue.attributes.columns:
        return model.catalogue.attributes[name.removeprefix(ITEM)].gather(items).to_list()
    if name in context:
        return [context[name]] * len(items)
    raise ConfigError(
        f"--context {name}=VALUE: is missing, and the head reads it; known without are score, score.PART, item.COLUMN"
    )
