import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.serving.auction import Offer, rank_ads
from fedrec.errors import ConfigError, DataError

BIDS = st.floats(0.01, 100.0)
CHANCES = st.floats(0.001, 0.999)
AUCTIONS = st.lists(st.tuples(BIDS, CHANCES), min_size=1, max_size=8)


def _offers(bids: list[float]) -> list[Offer]:
    return [Offer(f"ad {number}", number, bid) for number, bid in enumerate(bids)]


def test_three_ads_for_two_places_by_hand():
    """Values 1.0, 1.2, .5: the second ad comes first and pays 1.0 / .3 a click, the first 1; the third waits."""
    placed = rank_ads(_offers([2.0, 4.0, 5.0]), np.array([0.5, 0.3, 0.1]), places=2, reserve=0.1)
    assert [one.offer.ad for one in placed] == ["ad 1", "ad 0"]
    assert [one.value for one in placed] == pytest.approx([1.2, 1.0])
    assert [one.price for one in placed] == pytest.approx([1.0 / 0.3, 0.5 / 0.5])
    assert [one.probability for one in placed] == [0.3, 0.5]


def test_the_last_one_pays_the_reserve_and_who_bids_less_is_not_shown():
    placed = rank_ads(_offers([2.0, 0.4]), np.array([0.1, 0.9]), places=5, reserve=0.5)
    assert [(one.offer.ad, one.price) for one in placed] == [("ad 0", 0.5)]


def test_whom_the_reserve_keeps_out_raises_nobodys_price():
    alone = rank_ads(_offers([2.0]), np.array([0.1]), places=1, reserve=0.5)
    beside = rank_ads(_offers([2.0, 0.49]), np.array([0.1, 0.99]), places=1, reserve=0.5)
    assert alone == beside


@given(AUCTIONS, st.floats(0, 5), st.integers(1, 9))
def test_nobody_pays_more_than_they_bid_nor_less_than_the_reserve(auction, reserve, places):
    bids, chances = map(list, zip(*auction, strict=True))
    placed = rank_ads(_offers(bids), np.array(chances), places=places, reserve=reserve)
    assert len(placed) == min(places, sum(bid >= reserve for bid in bids))
    for one, following in zip(placed, [*placed[1:], None], strict=False):
        assert reserve <= one.price <= one.offer.bid
        assert following is None or one.value >= following.value


@given(AUCTIONS, st.floats(0, 5), st.floats(1.0, 3.0))
def test_a_higher_bid_that_keeps_the_place_costs_nothing_more(auction, reserve, factor):
    bids, chances = map(list, zip(*auction, strict=True))
    before = rank_ads(_offers(bids), np.array(chances), places=8, reserve=reserve)
    for place, one in enumerate(before):
        raised = [bid * factor if number == one.offer.item else bid for number, bid in enumerate(bids)]
        after = rank_ads(_offers(raised), np.array(chances), places=8, reserve=reserve)
        if after[place].offer.ad == one.offer.ad:
            assert after[place].price == pytest.approx(one.price)
        else:
            assert [other.offer.ad for other in after].index(one.offer.ad) < place


@given(AUCTIONS, st.randoms(use_true_random=False))
def test_the_order_of_the_offers_does_not_matter(auction, random):
    bids, chances = map(list, zip(*auction, strict=True))
    order = list(range(len(bids)))
    random.shuffle(order)
    offers = _offers(bids)
    shuffled = rank_ads([offers[at] for at in order], np.array(chances)[order], places=4, reserve=0.0)
    assert shuffled == rank_ads(offers, np.array(chances), places=4, reserve=0.0)


def test_of_equal_values_the_name_decides():
    offers = [Offer("b", 0, 1.0), Offer("a", 1, 2.0)]
    placed = rank_ads(offers, np.array([0.5, 0.25]), places=2, reserve=0.0)
    assert [one.offer.ad for one in placed] == ["a", "b"]
    assert placed[0].price == 2.0


def test_rounding_never_takes_a_price_above_the_bid():
    """Two equal ads: the price is bid * chance / chance, which floating point may round up."""
    rng = np.random.default_rng(0)
    rounded_up = 0
    for bid, chance in zip(rng.uniform(0.1, 9, 500), rng.uniform(0.01, 0.99, 500), strict=True):
        first, _ = rank_ads(_offers([bid, bid]), np.array([chance, chance]), places=2, reserve=0.0)
        rounded_up += bid * chance / chance > bid
        assert first.price <= bid
    assert rounded_up > 0


def test_no_offers_show_nothing():
    assert rank_ads([], np.zeros(0), places=3, reserve=0.0) == []


@pytest.mark.parametrize("bid", [0.0, -1.0, float("nan"), float("inf")])
def test_bids_that_are_none_are_refused(bid):
    with pytest.raises(DataError, match=rf"ad 'shoes': bid={bid}: expected a finite number > 0"):
        Offer("shoes", 0, bid)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"places": 0}, ConfigError, "places=0: expected >= 1"),
        ({"reserve": -0.1}, ConfigError, r"reserve=-0\.1: expected a finite number >= 0"),
        ({"reserve": float("nan")}, ConfigError, "reserve=nan: expected a finite number >= 0"),
        ({"offers": [Offer("ad", 0, 1.0), Offer("ad", 1, 1.0)]}, DataError, "ads: one is there twice"),
        ({"probabilities": np.array([0.5])}, DataError, "probabilities of 2 ads: expected one each, above 0 and below"),
        ({"probabilities": np.array([0.5, 1.0])}, DataError, "expected one each, above 0 and below 1"),
        ({"probabilities": np.array([0.5, np.nan])}, DataError, "expected one each, above 0 and below 1"),
    ],
)
def test_auctions_that_make_no_sense_are_refused(how, error, message):
    values = {"offers": _offers([1.0, 2.0]), "probabilities": np.array([0.5, 0.5]), "places": 1, "reserve": 0.0} | how
    offers, probabilities = values.pop("offers"), values.pop("probabilities")
    with pytest.raises(error, match=message):
        rank_ads(offers, probabilities, **values)
