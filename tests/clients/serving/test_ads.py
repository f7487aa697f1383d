"""Ads of a real run's model: what is read of each, and what may be shown to whom."""

from dataclasses import replace

import numpy as np
import pytest

from clients.serving.ads import AdWishes, ads_for, click_columns
from clients.serving.auction import Offer
from clients.serving.ranking import Filters
from clients.serving.scoring import score_parts
from fedrec.errors import ConfigError, DataError
from fedrec.model.clicks import ClickHead
from fedrec.model.impressions import Category, ClickSpec
from tests.tiny_serving import shop_of

SPEC = ClickSpec(
    numbers=("score", "score.sequence", "score.transitions", "item.price", "hour"),
    number_bins=4,
    categories=(Category("device", ("phone",)),),
)
CONTEXT = {"hour": 20, "device": "phone"}
OFFERS = [Offer(f"ad {item}", item, 1.0 + item / 100) for item in range(40)]
OPEN = AdWishes(places=40, reserve=0.0, filters=Filters(), context=CONTEXT)
PAST = np.array([3, 9, 12])


@pytest.fixture
def shop(counted_run):
    return shop_of(counted_run.out)


def _head(*, seed: int = 0) -> ClickHead:
    """Weights drawn by chance: every field has something to say."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=SPEC.slots).astype(np.float32)
    return ClickHead(SPEC, {"clicks.bias": np.array([-1.0], np.float32), "clicks.weights": weights})


def _chances(placed) -> dict[str, float]:
    return {one.offer.ad: one.probability for one in placed}


def test_each_field_is_what_its_name_says(shop):
    parts = score_parts(shop.model, PAST)
    items = np.array([5, 7])
    of_items = {name: values[items] for name, values in parts.items()}
    read = click_columns(shop.model, SPEC, items, of_items, CONTEXT)
    assert read["score"] == pytest.approx(np.sum(list(parts.values()), axis=0)[items].tolist())
    assert read["score.sequence"] == pytest.approx(parts["sequence"][items].tolist())
    assert read["score.transitions"] == [None, None]  # nobody's memory was asked
    assert read["item.price"] == [1 + 5 / 4, 1 + 7 / 4]
    assert (read["hour"], read["device"]) == ([20, 20], ["phone", "phone"])


def test_probability_of_each_ad_is_the_heads_own(shop):
    placed = ads_for(shop.model, _head(), OFFERS, PAST, OPEN)
    parts = score_parts(shop.model, PAST)
    everything = np.arange(40)
    slots = SPEC.read(click_columns(shop.model, SPEC, everything, parts, CONTEXT))
    expected = _head().probabilities(slots)
    assert len(placed) > 30
    assert all(one.probability == pytest.approx(expected[one.offer.item]) for one in placed)


def test_what_is_hidden_from_the_list_is_no_ad_whatever_it_bids(shop):
    """The last item bought, and what the filters stop."""
    rich = [*OFFERS[:12], Offer("just bought", 12, 1e6)]
    assert "just bought" not in _chances(ads_for(shop.model, _head(), rich, PAST, OPEN))
    wishes = replace(OPEN, filters=Filters(max_price=3.0, hide_bought=True))
    shown = {one.offer.item for one in ads_for(shop.model, _head(), OFFERS, PAST, wishes)}
    assert shown == set(range(9)) - {3}
    stock = replace(OPEN, filters=Filters(in_stock=frozenset({"i05"})))
    assert [one.offer.item for one in ads_for(shop.model, _head(), OFFERS, PAST, stock)] == [5]


def test_without_personalisation_all_see_the_same_ads(shop):
    """Neither a history, nor its memory, nor the device has a say."""
    wishes = replace(OPEN, personalized=False)
    lists = [
        ads_for(shop.model, _head(), OFFERS, past, replace(wishes, context=context), memory=shop.memory)
        for past in (PAST, np.array([30]), np.zeros(0, np.int64))
        for context in (CONTEXT, {"hour": 3, "device": "desk"})
    ]
    assert len(lists[0]) == 40
    assert all(one == lists[0] for one in lists)
    personal = ads_for(shop.model, _head(), OFFERS, PAST, OPEN, memory=shop.memory)
    assert _chances(personal) != {ad: _chances(lists[0])[ad] for ad in _chances(personal)}


def test_history_context_and_memory_have_a_say_where_they_may(shop):
    first = _chances(ads_for(shop.model, _head(), OFFERS, PAST, OPEN))
    other_past = _chances(ads_for(shop.model, _head(), OFFERS, np.array([30]), OPEN))
    other_hour = _chances(ads_for(shop.model, _head(), OFFERS, PAST, replace(OPEN, context={"hour": 1, "device": "x"})))
    with_memory = _chances(ads_for(shop.model, _head(), OFFERS, PAST, OPEN, memory=shop.memory))
    for other in (other_past, other_hour, with_memory):
        assert any(first[ad] != other[ad] for ad in first.keys() & other.keys())


def test_two_ads_of_one_item_and_no_ads_at_all(shop):
    twice = [Offer("b", 5, 1.0), Offer("a", 5, 1.0), Offer("c", 2, 1.0)]
    placed = ads_for(shop.model, _head(), twice, PAST, OPEN)
    chances = _chances(placed)
    assert chances["a"] == chances["b"] != chances["c"]
    assert ads_for(shop.model, _head(), [], PAST, OPEN) == []
    nothing = replace(OPEN, filters=Filters(in_stock=frozenset()))
    assert ads_for(shop.model, _head(), OFFERS, PAST, nothing) == []


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"hour": 20},
            r"--context device=VALUE: is missing, and the head reads it; known without are score, score\.PART, item\.C",
        ),
        (CONTEXT | {"mood": "good"}, r"--context mood: the head does not read it; it reads score, "),
    ],
)
def test_context_that_does_not_fit_the_head_is_refused(shop, context, message):
    with pytest.raises(ConfigError, match=message):
        ads_for(shop.model, _head(), OFFERS, PAST, replace(OPEN, context=context))


@pytest.mark.parametrize("name", ["score.magic", "item.colour", "item.title"])
def test_field_that_nothing_gives_is_refused(shop, name):
    spec = ClickSpec((name,), 4, ())
    with pytest.raises(ConfigError, match=f"--context {name}=VALUE: is missing"):
        click_columns(shop.model, spec, np.array([1]), {"sequence": np.zeros(1)}, {})


def test_ad_of_an_item_that_is_not_there_is_refused(shop):
    with pytest.raises(DataError, match="items: expected a list of whole numbers from 0 to 39"):
        ads_for(shop.model, _head(), [Offer("ad", 40, 1.0)], PAST, OPEN)
