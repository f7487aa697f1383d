"""The named parts are the whole score, and the score that the run was judged by."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clients.serving.scoring import MEANINGS, past_of, score_parts, terms_of
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.errors import DataError
from fedrec.runfolder import ADAPTER
from simulations.rows import MerchantScorer, ranker_scorer
from tests.tiny_serving import shop_of


@pytest.fixture
def shop(counted_run):
    return shop_of(counted_run.out)


def test_the_parts_sum_to_what_the_run_was_judged_by(shop, counted_run):
    published = load_file(counted_run.out / ADAPTER)
    scorer = MerchantScorer(
        agreed_ranker(read_agreement(counted_run.out), counted_run.out),
        shop.train,
        shop.clients,
        adapters=[published] * len(shop.clients),
        memory=shop.memory.spec,
        parts=list(shop.model.parts.values()),
    )
    expected = scorer(np.array(shop.people))
    for row, person in enumerate(shop.people):
        history, times = shop.past(person)
        parts = score_parts(shop.model, history, memory=shop.memory, times=times)
        np.testing.assert_allclose(np.sum(list(parts.values()), axis=0), expected[row], atol=1e-4)


def test_without_a_memory_the_parts_are_the_shared_score(shop):
    expected = ranker_scorer(shop.model.ranker, shop.train, parts=list(shop.model.parts.values()))(np.arange(30))
    for person in range(30):
        parts = score_parts(shop.model, shop.train.of(person))
        assert list(parts) == ["sequence", "text", "bias", "pairs", "counted"]
        np.testing.assert_allclose(np.sum(list(parts.values()), axis=0), expected[person], atol=1e-4)


def test_each_part_is_what_its_name_says(shop):
    history, times = shop.past(shop.people[0])
    window = history[-shop.model.ranker.spec.history :]
    memory = replace(shop.memory, again=0.5)  # of tiny people nobody buys again
    parts = score_parts(shop.model, history, memory=memory, times=times)
    with torch.no_grad():
        own = shop.model.ranker.parts(
            torch.from_numpy(window.astype(np.int64))[None], torch.tensor([[len(window) - 1]])
        )
    expected = {name: values[0, 0].numpy() for name, values in own.items()}
    expected |= {name: part.scores(window) for name, part in shop.model.parts.items()}
    expected |= memory.parts(history, times)
    assert set(parts) == set(expected) == set(MEANINGS)
    for name, values in expected.items():
        assert parts[name].dtype == np.float32
        np.testing.assert_allclose(parts[name], values, atol=1e-5, err_msg=name)
        assert np.abs(values).max() > 0, f"{name} says nothing here, so nothing was compared"


@pytest.mark.parametrize("how", [{"history": []}, {"history": [4, 8, 1], "personalized": False}])
def test_without_a_past_what_is_left_is_the_same_for_everybody(shop, how):
    history = np.array(how["history"], int)
    parts = score_parts(shop.model, history, memory=shop.memory, personalized=how.get("personalized", True))
    np.testing.assert_array_equal(parts.pop("bias"), shop.model.bias)
    np.testing.assert_array_equal(parts.pop("popular"), shop.memory.popular)
    assert all((values == 0).all() for values in parts.values())


def test_immediate_repeats_do_not_count_where_the_run_merged_them(shop):
    once, thrice = (score_parts(shop.model, np.array(items)) for items in ([5, 9, 2], [5, 9, 9, 9, 2]))
    for name, values in once.items():
        np.testing.assert_array_equal(values, thrice[name])


def test_events_older_than_training_kept_do_not_count(shop):
    model = replace(shop.model, max_history=3)
    expected = past_of(shop.model, np.array([7, 3, 1]), times=np.array([4, 5, 9]))
    cut = past_of(model, np.array([9, 9, 2, 7, 7, 3, 1]), times=np.array([0, 1, 2, 4, 4, 5, 9]))
    assert [values.tolist() for values in cut] == [values.tolist() for values in expected]


def test_some_items_score_as_they_do_among_all(shop):
    history, times = shop.past(shop.people[1])
    terms = terms_of(shop.model, [past_of(shop.model, history, times=times)], memory=shop.memory)[0]
    whole = terms.over(shop.model.vectors)
    for items in (np.array([], int), np.array([0, 7, 39]), np.arange(40)):
        for name, values in terms.over(shop.model.vectors, items).items():
            np.testing.assert_allclose(values, whole[name][items], atol=1e-5)


def test_many_pasts_at_once_score_as_each_alone(shop):
    pasts = [past_of(shop.model, np.array(items, int)) for items in ([], [3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [8, 2])]
    for past, terms in zip(pasts, terms_of(shop.model, pasts), strict=True):
        alone = score_parts(shop.model, past.items)
        for name, values in terms.over(shop.model.vectors).items():
            np.testing.assert_allclose(values, alone[name], atol=1e-4)


def test_what_scores_give_back_is_the_callers_to_change(shop):
    before = shop.model.bias.copy()
    parts = score_parts(shop.model, np.array([1]), memory=shop.memory)
    parts["bias"] += 1
    parts["popular"] += 1
    np.testing.assert_array_equal(shop.model.bias, before)


@pytest.mark.parametrize(
    ("history", "times", "expected"),
    [
        ([1, 40], None, "items: expected a list of whole numbers from 0 to 39"),
        ([-1], None, "items: expected a list of whole numbers from 0 to 39"),
        ([1, 2], [5], "times: expected one an event"),
        ([1, 2], [5, 4], "none earlier than the one before it"),
        ([[1, 2]], None, "items: expected a list"),
    ],
)
def test_a_past_that_cannot_be_is_refused(shop, history, times, expected):
    with pytest.raises(DataError, match=expected):
        score_parts(shop.model, np.array(history), times=None if times is None else np.array(times))
