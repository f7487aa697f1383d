import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedrec.data.histories import Histories
from fedrec.errors import RunError
from fedrec.model.base import new_ranker
from fedrec.model.pairs import (
    PAIRS,
    PairPart,
    PublicPairs,
    best_next,
    no_pairs,
    pair_table,
    public_pairs,
    scores_with,
    with_weight,
)
from fedrec.model.transitions import Transitions
from fedrec.model.windows import latest_events
from tests.tiny_pairs import GAPS, SPEC, some_pairs
from tests.tiny_ranker import DIMENSIONS, ITEMS, histories, learned, ranker_spec, vectors


def as_dict(pairs: PublicPairs) -> dict[tuple[int, int], float]:
    return {
        (int(first), int(then)): float(count)
        for first, then, count in zip(pairs.first, pairs.then, pairs.counts, strict=True)
    }


def by_loop(part: PairPart, history: np.ndarray) -> np.ndarray:
    """The same formula over dense rows, one event at a time."""
    return part.weight * np.log1p(part.sharpness * part.transitions.after(history[-part.recent :], decay=part.decay))


def test_pairs_that_were_seen_by_hand():
    """0 1 0 2: neighbours (0,1) (1,0) (0,2); at gap 2 (1,2) and (0,0), which is no pair; at gap 3 (0,2)."""
    fit = Histories.from_lists([[0, 1, 0, 2], [1, 0]])
    pairs = public_pairs(learned(), fit, gap_weights=GAPS, suggestions=0, spec=SPEC)
    assert as_dict(pairs) == pytest.approx({(0, 1): 1, (0, 2): 4 / 3, (1, 0): 2, (1, 2): 1 / 2})


def test_suggestions_are_what_the_ranker_scores_best_after_each_item_alone():
    ranker, fit = learned(), histories(9, 4, seed=3)
    seen = as_dict(public_pairs(ranker, fit, gap_weights=GAPS, suggestions=0, spec=SPEC))
    pairs = as_dict(public_pairs(ranker, fit, gap_weights=GAPS, suggestions=5, spec=SPEC))
    suggested = set()
    for item in range(ITEMS):
        with torch.no_grad():
            scores = ranker(torch.tensor([[item]]), torch.tensor([[0]]))[0, 0].numpy()
        best = [other for other in np.argsort(-scores) if other != item][:5]
        suggested |= {(item, int(other)) for other in best}
    assert set(pairs) == suggested | set(seen)
    assert pairs == pytest.approx(dict.fromkeys(suggested, 0.0) | seen)


def test_of_items_that_score_the_same_the_first_are_suggested():
    alike = new_ranker(np.full((6, DIMENSIONS), DIMENSIONS**-0.5), ranker_spec(), seed=0)
    assert best_next(alike, most=3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_suggestions_do_not_depend_on_how_many_items_are_looked_at_in_one_go(block):
    assert np.array_equal(best_next(learned(), most=9, block=block), best_next(learned(), most=9))


def test_small_catalogue_is_suggested_whole_and_the_ranker_is_left_as_it_was():
    ranker = new_ranker(vectors(4), ranker_spec(), seed=0).train()
    assert np.sort(best_next(ranker, most=10)).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert ranker.training


def test_no_pair_is_of_an_item_with_itself_and_all_are_sorted():
    pairs = some_pairs()
    listed = list(as_dict(pairs))
    assert len(listed) == len(pairs) > 3 * ITEMS
    assert listed == sorted(listed)
    assert all(first != then for first, then in listed)
    assert (pairs.counts == 0).any()
    assert (pairs.counts > 0).any()


def test_table_by_hand():
    pairs = PublicPairs(4, *(np.array(row, np.int32) for row in ([0, 0, 2], [1, 3, 0])), np.ones(3, np.float32), SPEC)
    table = pair_table(pairs, np.array([3.0, 0.0, 1.0]), shrinkage=1.0)
    assert (table.offsets.tolist(), table.columns.tolist()) == ([0, 1, 1, 2, 2], [1, 0])
    assert table.values == pytest.approx([3 / 4, 1 / 2])


def test_part_by_hand():
    """Last item 1, before it 0: shares 5/7 and 2/7 at decay .4. P(2) = 5/7 * 1/2 + 2/7 * 1/4."""
    table = Transitions(np.array([0, 2, 3, 3]), np.array([1, 2, 2], np.int32), np.array([0.5, 0.25, 0.5], np.float32))
    part = PairPart(table, weight=1.5, sharpness=30.0, recent=2, decay=0.4)
    expected = [0, 1.5 * math.log1p(30 * 1 / 7), 1.5 * math.log1p(30 * 6 / 14)]
    assert part.scores(np.array([2, 0, 1], np.int32)) == pytest.approx(expected)
    assert part.scores(np.array([2, 0, 1], np.int32)).dtype == np.float32
    assert part.scores(np.array([], np.int32)).tolist() == [0, 0, 0]
    assert replace(part, weight=0.0).scores(np.array([0])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("recent", [1, 3, 50])
def test_many_histories_in_one_go_score_as_one_by_one(recent):
    part, people = some_pairs(recent=recent).part(), histories(1, 9, 3, 6, 2, seed=4)
    items, _ = latest_events(people, np.arange(5), history=9)
    positions = np.array([[0, 0], [8, 3], [2, 1], [5, 0], [1, 1]])
    together = part.after(items.numpy(), positions)
    assert together.shape == (10, ITEMS)
    for row, (person, position) in enumerate((number, at) for number in range(5) for at in positions[number]):
        assert together.toarray()[row] == pytest.approx(by_loop(part, people.of(person)[: position + 1]))


def test_counts_are_what_the_part_reads():
    pairs = some_pairs()
    row = {then: count for (first, then), count in as_dict(pairs).items() if first == pairs.first[5]}
    total = sum(row.values()) + SPEC.shrinkage
    scores = replace(pairs.part(), recent=1).scores(pairs.first[5:6])
    for item in range(ITEMS):
        assert scores[item] == pytest.approx(1.5 * math.log1p(30 * row.get(item, 0.0) / total), abs=1e-5)


def test_scores_are_those_of_the_ranker_plus_each_part():
    ranker, people = learned(), histories(6, 2, 4, seed=6)
    first, second = some_pairs().part(), some_pairs(weight=0.5, recent=1).part()
    items, last = latest_events(people, np.arange(3), history=6)
    with torch.no_grad():
        bare = ranker(items, last).numpy()
    assert np.array_equal(scores_with(ranker, [], items, last).numpy(), bare)
    added = scores_with(ranker, [first, second], items, last).numpy() - bare
    for person in range(3):
        history = people.of(person)
        assert added[person, 0] == pytest.approx(by_loop(first, history) + by_loop(second, history), abs=1e-4)


def test_list_comes_back_bit_for_bit(tmp_path):
    pairs = with_weight(some_pairs(), 2.5)
    pairs.save(tmp_path)
    loaded = PublicPairs.load(tmp_path)
    assert (loaded.items, loaded.spec) == (pairs.items, replace(SPEC, weight=2.5))
    for name in ("first", "then", "counts"):
        assert getattr(loaded, name).tobytes() == getattr(pairs, name).tobytes()
    first = (tmp_path / PAIRS).read_bytes()
    loaded.save(tmp_path)
    assert (tmp_path / PAIRS).read_bytes() == first


def test_empty_list_has_a_part_that_says_nothing(tmp_path):
    no_pairs(ITEMS).save(tmp_path)
    part = PublicPairs.load(tmp_path).part()
    assert not replace(part, weight=1.0).scores(np.array([3, 5])).any()


def damage(folder, **changes):
    some_pairs().save(folder)
    arrays = load_file(folder / PAIRS)
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    save_file(arrays, folder / PAIRS)


def swapped(array):
    return np.ascontiguousarray(array[::-1])


def with_first(value):
    def change(array):
        return np.concatenate([np.array([value], array.dtype), array[1:]])

    return change


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"first": with_first(-1)}, "first: expected items from 0 to 39"),
        ({"then": with_first(40)}, "then: expected items from 0 to 39"),
        ({"then": with_first(0)}, "then: expected another item than first"),
        ({"first": swapped, "then": swapped}, "pairs: expected sorted, each once"),
        (
            {"first": lambda a: np.repeat(a[:1], len(a)), "then": lambda a: np.repeat(a[:1], len(a))},
            "sorted, each once",
        ),
        ({"counts": with_first(np.nan)}, "counts: expected finite, >= 0"),
        ({"counts": with_first(-1.0)}, "counts: expected finite, >= 0"),
        ({"counts": lambda array: array[1:]}, r"counts: expected \(\d+,\) float32"),
        ({"then": lambda array: array.astype(np.int64)}, r"then: expected \(\d+,\) int32"),
        ({"first": lambda array: array[None]}, r"first: expected \(\d+,\) int32"),
        ({"items": lambda _: np.array([40])}, "items and recent: expected whole numbers"),
        ({"recent": lambda _: np.array(1.5)}, "items and recent: expected whole numbers"),
        ({"recent": lambda _: np.array(0)}, "recent: expected a whole number from 1 to 4096"),
        ({"recent": lambda _: np.array(10**9)}, "recent: expected a whole number from 1 to 4096"),
        ({"weight": lambda _: np.array(-1.0)}, "weight: expected >= 0"),
        ({"weight": lambda _: np.array(np.inf)}, "numbers: expected finite ones"),
        ({"weight": lambda _: np.array([1.0, 2.0])}, "can only convert an array of size 1"),
        ({"sharpness": lambda _: np.array(0.0)}, "sharpness: expected > 0"),
        ({"decay": lambda _: np.array(1.5)}, r"decay: expected in \(0, 1\]"),
        ({"shrinkage": lambda _: np.array(-0.5)}, "shrinkage: expected >= 0"),
    ],
)
def test_damaged_list_is_refused_by_name(tmp_path, changes, expected):
    damage(tmp_path, **changes)
    with pytest.raises(RunError, match=rf"pairs\.safetensors: not a usable base: .*{expected}"):
        PublicPairs.load(tmp_path)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"pairs\.safetensors: not a usable base: .*; make one with fedrec pretrain"):
        PublicPairs.load(tmp_path)


def test_list_without_one_of_its_arrays_is_refused(tmp_path):
    some_pairs().save(tmp_path)
    arrays = load_file(tmp_path / PAIRS)
    del arrays["counts"]
    save_file(arrays, tmp_path / PAIRS)
    with pytest.raises(RunError, match=r"pairs\.safetensors: not a usable base: 'counts'"):
        PublicPairs.load(tmp_path)
