"""Which ads are shown, in which order, and what a click on each costs: the generalised second price.

An ad is worth its bid times the probability of a click. Whoever is shown pays, for a click, the least bid that would
have kept the place: never more than was bid, and nothing that depends on the bid itself.

Source: Edelman, Ostrovsky and Schwarz 2007, section I, https://doi.org/10.1257/aer.97.1.242, with bids weighed by the
probability of a click as in Varian 2007, section 6, https://doi.org/10.1016/j.ijindorg.2006.10.002
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedrec.errors import ConfigError, DataError


@dataclass(frozen=True)
class Offer:
    """Somebody wants an item shown.

    Attributes:
        ad: its name, as the shop calls it.
        item: position in the catalogue.
        bid: the most a click may cost, > 0, in the shop's currency.

    Raises:
        DataError: the bid is no finite number > 0.
    """

    ad: str
    item: int
    bid: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bid) and self.bid > 0):
            raise DataError(f"ad {self.ad[:80]!r}: bid={self.bid}: expected a finite number > 0")


class Placed(NamedTuple):
    """An ad that is shown.

    Attributes:
        offer: as it was made.
        probability: of a click, in (0, 1).
        value: bid times probability, by which ads are put in order.
        price: of a click, from the reserve to the bid.
    """

    offer: Offer
    probability: float
    value: float
    price: float


def rank_ads(offers: Sequence[Offer], probabilities: np.ndarray, *, places: int, reserve: float) -> list[Placed]:
    """Put ads in order and price them; best first, fewer than ``places`` where no more bid the reserve.

    Args:
        offers: each ad once.
        probabilities: of a click on each, (N,) in (0, 1).
        places: ads shown at most, >= 1.
        reserve: least price of a click, >= 0; who bids less is not shown.

    Returns:
        Of equal values, the ad whose name comes first in the alphabet comes first.

    Raises:
        ConfigError: ``places`` or ``reserve`` is out of range.
        DataError: an ad is there twice, or the probabilities do not fit.
    """
    if places < 1:
        raise ConfigError(f"places={places}: expected >= 1")
    if not (math.isfinite(reserve) and reserve >= 0):
        raise ConfigError(f"reserve={reserve}: expected a finite number >= 0")
    if len({offer.ad for offer in offers}) < len(offers):
        raise DataError("ads: one is there twice; expected each name once")
    if probabilities.shape != (len(offers),) or not ((probabilities > 0) & (probabilities < 1)).all():
        raise DataError(f"probabilities of {len(offers)} ads: expected one each, above 0 and below 1")
    valued = [
        (offer.bid * float(chance), float(chance), offer)
        for offer, chance in zip(offers, probabilities, strict=True)
        if offer.bid >= reserve
    ]
    ranked = sorted(valued, key=lambda one: (-one[0], one[2].ad))
    below = [value for value, _, _ in ranked[1:]] + [0.0]  # who is next sets the price, shown or not
    return [
        Placed(offer, chance, value, min(offer.bid, max(reserve, following / chance)))
        for (value, chance, offer), following in zip(ranked[:places], below, strict=False)
    ]
