"""A part of the catalogue is compared, and nearly all of the best are found, whatever is allowed and whatever sells."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clients.serving.approximate import ApproximateIndex, Lists, approximate_index
from clients.serving.ranking import Filters
from clients.serving.recall import ExactIndex
from clients.serving.recommending import Wishes, recommend
from clients.serving.scoring import shared_parts
from clients.serving.served import Current, load_served
from clients.serving.store_file import files_of
from fedrec.config_serving import RecallConfig
from fedrec.errors import RunError
from tests.clients.serving.shops import new_store, view
from tests.tiny_serving import shop_of

ITEMS, WIDTH, K = 6_000, 24, 20
SOME = RecallConfig(exact_up_to=100, compared=600, nearest=100, liked=100)
ALL = np.ones(ITEMS, bool)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def shop():
    """Vectors of 120 kinds of items, a bias, and people who look for something between two kinds."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(120, WIDTH))
    vectors = unit(kinds[rng.integers(120, size=ITEMS)] + 0.5 * rng.normal(size=(ITEMS, WIDTH)))
    states = 10 * unit(kinds[rng.integers(120, size=100)] + 0.5 * kinds[rng.integers(120, size=100)])
    return vectors, rng.normal(0, 0.5, ITEMS).astype(np.float32), states


@pytest.fixture(scope="module")
def index(shop):
    vectors, bias, _ = shop
    return ApproximateIndex.of(vectors, bias, lists=Lists.of(vectors), config=SOME)


def recall(index, states, *, allowed=ALL):
    """Share of the best K of an exact index that are found; each list is within what is allowed, best first."""
    exact, shares = ExactIndex(index.vectors, index.shared), []
    for state in states:
        found = index.best(state, most=K, allowed=allowed)
        assert allowed[found].all()
        scores = index.vectors[found] @ state + index.shared[found]
        assert (np.diff(scores) <= 1e-5).all()
        best = exact.best(state, most=K, allowed=allowed)
        assert len(found) == len(best)
        shares.append(len(np.intersect1d(found, best)) / max(len(best), 1))
    return np.mean(shares)


def test_nearly_all_of_the_best_are_found_though_a_tenth_is_compared(index, shop):
    assert recall(index, shop[2]) >= 0.97  # .993 measured
    assert recall(replace(index, config=RecallConfig(compared=1, nearest=K, liked=1)), shop[2]) < 0.95


def test_all_of_the_best_are_found_where_everything_is_compared(index, shop):
    assert recall(replace(index, config=replace_config(compared=ITEMS)), shop[2]) >= 0.999


def replace_config(**changes):
    return SOME.model_copy(update=changes)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_the_fewer_are_allowed_the_more_of_them_are_found(index, shop, share):
    allowed = np.random.default_rng(1).random(ITEMS) < share
    assert recall(index, shop[2], allowed=allowed) >= (0.97 if share > 0.1 else 0.999)


def test_where_nothing_is_allowed_nothing_is_found(index, shop):
    for state in (shop[2][0], np.zeros(WIDTH)):
        assert len(index.best(state, most=K, allowed=~ALL)) == 0


def test_what_is_allowed_may_lie_far_from_what_a_person_wants(index, shop):
    """As with a category: the lists nearest to the person hold none of it."""
    for state in shop[2][:20]:
        allowed = shop[0] @ state < 0
        assert recall(index, [state], allowed=allowed) >= 0.6
        few = allowed & (np.cumsum(allowed) <= 90)
        assert recall(index, [state], allowed=few) == 1.0


@pytest.mark.parametrize("share", [1.0, 0.3, 0.001])
def test_without_a_past_the_list_is_exactly_what_is_best_liked(index, share):
    allowed = np.random.default_rng(2).random(ITEMS) < share
    assert recall(index, [np.zeros(WIDTH, np.float32)], allowed=allowed) == 1.0


@pytest.mark.parametrize(("sellers", "logits"), [(100, 8.0), (1_500, 4.0)])
def test_another_memory_counts_at_once_and_sorts_nothing_anew(index, shop, sellers, logits):
    """Few items sell very well, or every other item sells a little."""
    popular = np.zeros(ITEMS, np.float32)
    popular[np.random.default_rng(3).choice(ITEMS, sellers, replace=False)] = logits
    narrow = replace(index, config=replace_config(compared=3_000, nearest=K, liked=100))
    selling = narrow.sharing(shop[1] + popular)
    assert selling.lists is index.lists
    assert recall(selling, shop[2]) >= 0.9
    assert recall(replace(selling, by_shared=index.by_shared, codes=index.codes), shop[2]) < 0.85
    assert selling.sharing(shop[1] + popular) is selling


def test_equal_vectors_give_equal_lists_and_each_item_is_in_the_nearest(shop):
    one, other = Lists.of(shop[0]), Lists.of(shop[0])
    assert np.array_equal(one.list_of, other.list_of)
    assert np.array_equal(one.centres, other.centres)
    assert np.allclose(
        (shop[0] @ one.centres.T).max(axis=1), (shop[0] * one.centres[one.list_of]).sum(axis=1), atol=1e-5
    )
    assert one.sizes.sum() == ITEMS


def test_items_without_a_text_and_catalogues_of_few_items_can_be_indexed():
    vectors = unit(np.eye(3, WIDTH))
    vectors[1] = 0
    index = ApproximateIndex.of(vectors, np.zeros(3, np.float32), lists=Lists.of(vectors))
    assert index.best(vectors[2], most=5, allowed=np.ones(3, bool)).tolist() == [2, 0, 1]


def test_lists_are_made_once_and_a_file_that_is_not_whole_is_made_again(shop, tmp_path):
    vectors = shop[0][:500]
    lists = Lists.cached(vectors, tmp_path)
    (path,) = tmp_path.iterdir()
    other = (lists.list_of + 1) % len(lists.centres)
    save_file({"centres": lists.centres, "list_of": other}, path)
    assert np.array_equal(Lists.cached(vectors, tmp_path).list_of, other), "the file is read"
    for damage in (
        {"list_of": np.full(500, len(lists.centres), np.int32)},
        {"list_of": lists.list_of - 1 - lists.list_of.max()},
        {"list_of": lists.list_of[1:]},
        {"list_of": lists.list_of.astype(np.int64)},
        {"centres": lists.centres[:, 1:]},
        {"centres": np.array(1.0, np.float32)},
        {"centres": lists.centres * np.float32(np.nan)},
    ):
        save_file({"centres": lists.centres, "list_of": lists.list_of} | damage, path)
        assert np.array_equal(Lists.cached(vectors, tmp_path).list_of, lists.list_of)
        assert np.array_equal(load_file(path)["list_of"], lists.list_of)
    path.write_bytes(path.read_bytes()[:-7])
    assert np.array_equal(Lists.cached(vectors, tmp_path).list_of, lists.list_of)
    Lists.cached(shop[0][1:501], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "other vectors, another file"


def test_a_catalogue_that_is_small_enough_is_compared_whole(shop, tmp_path):
    vectors, bias = shop[0][:100], shop[1][:100]
    assert approximate_index(vectors, bias, cache=tmp_path, config=SOME) is None
    assert approximate_index(*(rows[:101] for rows in shop[:2]), cache=tmp_path, config=SOME) is not None


def test_without_faiss_everything_is_compared_and_a_line_says_so(shop, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("clients.serving.approximate.find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert approximate_index(shop[0], shop[1], cache=tmp_path, config=SOME) is None
    assert caplog.messages == [
        "recall: all 6000 items are compared: needs the package faiss-cpu; pip install 'fedrec[faiss]'"
    ]


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_list_is_the_same_by_either_index(counted_run, with_memory):
    tiny = shop_of(counted_run.out)
    memory, vectors = tiny.memory if with_memory else None, tiny.model.vectors
    shared = np.sum(list(shared_parts(tiny.model, memory).values()), axis=0)
    index = ApproximateIndex.of(vectors, tiny.model.bias, lists=Lists.of(vectors)).sharing(shared)
    for person in range(20):
        history, times = tiny.past(person)
        asked = {"memory": memory, "times": times}
        wishes = Wishes(10, Filters(max_price=7.0), diversity=0.0, pool=100)
        found = [recommend(tiny.model, history, wishes, index=one, **asked) for one in (None, index)]
        assert [one.item for one in found[0]] == [one.item for one in found[1]]


def test_what_is_served_finds_by_the_memory_it_has_and_by_none_that_it_must_not_have(counted_run, tmp_path):
    model = shop_of(counted_run.out).model
    index = ApproximateIndex.of(model.vectors, model.bias, lists=Lists.of(model.vectors))

    def load(run):
        served = load_served(run, encoder=None, cache=tmp_path)
        local = served.config.local.model_copy(update={"popular_weight": 5.0})
        return replace(served, config=served.config.model_copy(update={"local": local}), index=index)

    with new_store(tmp_path) as store:
        items = model.catalogue.item_ids
        store.append([view(f"p{n}", items[(n + at) % 7], 100 + at) for n in range(30) for at in range(9)])
        current = Current(load, store, run=counted_run.out)
        assert np.allclose(current.served.index.shared, model.bias + current.served.memory.popular)
        assert current.served.memory.popular.any()
        for file in files_of(tmp_path / "shop.sqlite"):
            if file.exists():
                file.write_bytes(b"no database" * 4096)
        with pytest.raises(RunError):
            current.remember()
    assert current.served.memory is None
    assert np.array_equal(current.served.index.shared, model.bias)
