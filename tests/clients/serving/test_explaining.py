"""A reason is faithful: take away what it names, score again, and the score falls by what was said."""

import re
from dataclasses import replace

import numpy as np
import pytest

from clients.serving.explaining import explain
from clients.serving.scoring import score_parts
from tests.tiny_serving import shop_of

CASES = 200


@pytest.fixture
def shop(counted_run):
    return shop_of(counted_run.out)


@pytest.fixture
def memory(shop):
    """A memory whose every part has something to say; of tiny people nobody buys again."""
    return replace(shop.memory, again=0.5)


def random_case(rng):
    """A history with repeats, several events a visit, and an item to explain."""
    length = int(rng.integers(1, 14))
    history = rng.integers(0, 12 if rng.random() < 0.5 else 40, length)
    return history, np.sort(rng.integers(0, 6, length)), int(rng.integers(40))


def score(shop, history, item, *, memory, times):
    parts = score_parts(shop.model, history, memory=memory, times=times)
    return {name: float(values[item]) for name, values in parts.items()}


@pytest.mark.parametrize(
    ("how", "cases"), [({}, CASES), ({"merges_repeats": False}, 50), ({"max_history": 4}, 50)], ids=str
)
def test_without_the_named_cause_the_score_falls_by_what_was_said(shop, memory, how, cases):
    rng, told = np.random.default_rng(1), 0
    shop = replace(shop, model=replace(shop.model, **how))
    for _ in range(cases):
        history, times, item = random_case(rng)
        found = explain(shop.model, history, [item], memory=memory, times=times)[0]
        before = score(shop, history, item, memory=memory, times=times)
        assert found.total == pytest.approx(sum(before.values()), abs=1e-4)
        for cause in (found.causes[0], found.causes[-1]):
            assert (history[list(cause.positions)] == cause.item).all()
            without, moments = (np.delete(values, cause.positions) for values in (history, times))
            after = score(shop, without, item, memory=memory, times=moments)
            assert sum(before.values()) - sum(after.values()) == pytest.approx(cause.drop, abs=1e-4)
            for name, share in cause.by_part.items():
                assert before[name] - after[name] == pytest.approx(share, abs=1e-4)
        assert found.causes[0].drop == max(cause.drop for cause in found.causes)
        told += found.causes[0].drop > 0.05
    assert told > cases / 2  # else there was little to be faithful about


def test_the_numbers_of_the_sentence_are_those_of_the_cause(shop, memory):
    rng, seen = np.random.default_rng(2), set()
    for _ in range(CASES):
        history, times, item = random_case(rng)
        found = explain(shop.model, history, [item], memory=memory, times=times)[0]
        cause, numbers = found.causes[0], [float(text) for text in re.findall(r"-?\d+\.\d\d", found.sentence)]
        if cause.drop < 0.005:
            assert found.sentence.startswith("nothing that you bought raises it: ")
            continue
        assert shop.model.catalogue.titles[cause.item] in found.sentence
        expected = [cause.drop, found.total, max(cause.by_part.values())]
        assert numbers == pytest.approx(expected, abs=0.0051)
        seen.add(found.sentence.split(" ")[0])
    assert seen == {"because", "often"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", "because you bought red mug: 2.00 of 7.00, above all through text similarity (2.50)"),
        ("sequence", "because you bought red mug: 2.00 of 7.00, above all through what usually comes next (2.50)"),
        ("repeats", "because you bought red mug: 2.00 of 7.00, above all through having bought it before (2.50)"),
        ("pairs", "often bought after red mug: 2.00 of 7.00, above all through this (2.50)"),
        ("counted", "often bought after red mug at all merchants: 2.00 of 7.00, above all through this (2.50)"),
        ("transitions", "often bought after red mug here: 2.00 of 7.00, above all through this (2.50)"),
    ],
)
def test_the_sentence_names_the_part_that_the_cause_came_through(shop, name, expected):
    from clients.serving.explaining import Cause, _words

    cause = Cause(0, (3,), 2.0, {"in_basket": -0.5, name: 2.5})
    reason, sentence = _words(shop.model.catalogue, 7.0, {"bias": 1.0}, [cause])
    assert sentence == expected
    assert reason == expected.split(": ")[0], "the same, without a number"


def test_many_items_at_once_are_explained_as_each_alone_and_in_the_order_asked(shop, memory):
    history, items = np.array([3, 9, 9, 12, 3]), [20, 4, 13]
    together = explain(shop.model, history, items, memory=memory)
    assert [one.item for one in together] == items
    for one in together:
        alone = explain(shop.model, history, [one.item], memory=memory)[0]
        assert alone.total == pytest.approx(one.total, abs=1e-4)
        assert [cause.positions for cause in alone.causes] == [cause.positions for cause in one.causes]
        assert sum(one.parts.values()) == pytest.approx(one.total, abs=1e-6)


def test_an_event_with_its_immediate_repeats_is_one_cause(shop):
    found = explain(shop.model, np.array([3, 9, 9, 9, 12]), [20])[0]
    assert sorted(cause.positions for cause in found.causes) == [(0,), (1, 2, 3), (4,)]


@pytest.mark.parametrize("how", [{"history": []}, {"history": [3, 9], "personalized": False}])
def test_without_a_past_the_reason_is_what_is_the_same_for_everybody(shop, memory, how):
    history, personalized = np.array(how["history"], int), how.get("personalized", True)
    found = explain(shop.model, history, [5], memory=memory, personalized=personalized)[0]
    assert found.causes == ()
    assert found.total == pytest.approx(float(shop.model.bias[5] + memory.popular[5]), abs=1e-6)
    assert found.reason in ("liked by everybody", "selling well here")
    assert found.sentence.startswith(f"the same for everybody: {found.reason} ")
    assert found.sentence.endswith(f" of {found.total:.2f}")
