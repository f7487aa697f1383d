"""A list holds what was asked for, nothing that must not be offered, and nothing of a past that is not to be used."""

from dataclasses import replace

import numpy as np
import pytest

from clients.serving.ranking import Filters
from clients.serving.recommending import Wishes, recommend
from clients.serving.scoring import score_parts
from fedrec.errors import ConfigError
from fedrec.evaluation.masking import Masking
from tests.tiny_serving import shop_of

TEN = Wishes(10, Filters(), diversity=0.0, pool=100)
PASTS = ([3], [3, 9], [30, 31, 32, 5, 5, 9], list(range(20)))


@pytest.fixture
def shop(counted_run):
    return shop_of(counted_run.out)


def listed(shop, history, wishes=TEN, **changes):
    model = replace(shop.model, **changes)
    return [one.item for one in recommend(model, np.array(history, int), wishes, memory=shop.memory)]


@pytest.mark.parametrize("history", PASTS)
def test_the_list_is_the_order_of_the_whole_score(shop, history):
    scores = np.sum(list(score_parts(shop.model, np.array(history), memory=shop.memory).values()), axis=0)
    scores[history[-1]] = -np.inf
    assert listed(shop, history) == np.argsort(-scores, kind="stable")[:10].tolist()


def test_each_item_carries_its_score_and_its_parts(shop):
    history = np.array([3, 9, 12])
    parts = score_parts(shop.model, history, memory=shop.memory)
    for one in recommend(shop.model, history, TEN, memory=shop.memory):
        assert set(one.parts) == set(parts)
        for name, values in parts.items():
            assert one.parts[name] == pytest.approx(values[one.item], abs=1e-4)
        assert one.score == pytest.approx(sum(one.parts.values()), abs=1e-4)


def test_what_was_just_bought_is_offered_only_where_the_run_offers_it(shop):
    everything = replace(TEN, k=40)
    assert set(range(40)) - set(listed(shop, [3, 9], everything)) == {9}
    assert set(range(40)) - set(listed(shop, [3, 9], everything, masking=Masking.NONE)) == set()
    assert set(range(40)) - set(listed(shop, [3, 9], everything, masking=Masking.HISTORY)) == {3, 9}


def test_what_was_bought_is_hidden_on_request(shop):
    everything = replace(TEN, k=40, filters=Filters(hide_bought=True))
    assert set(range(40)) - set(listed(shop, [3, 17, 9], everything)) == {3, 17, 9}


def test_nothing_outside_the_filters_is_offered_and_the_list_may_be_short(shop):
    cheap = replace(TEN, filters=Filters(max_price=2.0, in_stock={"i00", "i02", "i04", "i30"}))
    assert set(listed(shop, [3, 9], cheap)) == {0, 2, 4}
    assert listed(shop, [3, 9], replace(TEN, filters=Filters(in_stock=set()))) == []


@pytest.mark.parametrize("filters", [Filters(), Filters(max_price=4.0, hide_bought=True)])
def test_without_personalisation_everybody_gets_the_same_list(shop, filters):
    wishes = replace(TEN, k=40, filters=filters, personalized=False)
    lists = [listed(shop, history, wishes, masking=Masking.HISTORY) for history in ([], *PASTS)]
    assert lists[0]
    assert all(one == lists[0] for one in lists)
    assert lists[0] != listed(shop, PASTS[2], replace(wishes, personalized=True))


def test_without_personalisation_bias_and_popularity_alone_decide(shop):
    scores = shop.model.bias + shop.memory.popular
    wishes = replace(TEN, k=40, personalized=False)
    assert listed(shop, [1, 2], wishes) == np.argsort(-np.round(scores, 5), kind="stable").tolist()


def test_diversity_makes_items_less_alike(shop):
    def likeness(items):
        vectors = shop.model.vectors[items]
        return float(np.triu(vectors @ vectors.T, 1).sum())

    plain, mixed = (
        [likeness(listed(shop, history, replace(TEN, diversity=diversity, k=5))) for history in PASTS]
        for diversity in (0.0, 0.7)
    )
    assert sum(mixed) < sum(plain) - 1
    assert all(after <= before + 1e-6 for before, after in zip(plain, mixed, strict=True))


def test_a_diverse_list_is_chosen_from_the_pool_alone(shop):
    best = set(listed(shop, [3, 9], replace(TEN, k=6)))
    assert set(listed(shop, [3, 9], replace(TEN, k=5, diversity=1.0, pool=6))) <= best


@pytest.mark.parametrize(("changes", "expected"), [({"k": 0}, "k=0: expected >= 1"), ({"diversity": 2}, "diversity=2")])
def test_wishes_out_of_range_are_refused(changes, expected):
    with pytest.raises(ConfigError, match=expected):
        replace(TEN, **changes)
