import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.histories import Histories
from fedrec.data.splits import Split, draw_cold_items, hold_out_items, leave_last_out, next_basket, time_cut
from fedrec.errors import ConfigError, DataError

DAY = 86400
START = 15_000 * DAY  # 2011-01-26


def as_lists(histories):
    return [histories.of(person).tolist() for person in range(len(histories))]


def test_the_last_event_is_held_out():
    split = leave_last_out(Histories.from_lists([[3, 1, 2], [5], [], [7, 7]]))
    assert as_lists(split.train) == [[3, 1], [5], [], [7]]
    assert as_lists(split.targets) == [[2], [], [], [7]]


def test_the_next_basket_is_everything_at_the_first_time_after_the_cut_once():
    histories = Histories.from_lists(
        [[1, 2, 3, 4, 3, 9], [1, 2], [5, 6], [1, 8]],
        times=[[0, 5, 10, 10, 10, 11], [0, 1], [10, 10], [9, 30]],
    )
    split = next_basket(histories, cut=10)
    assert as_lists(split.train) == [[1, 2], [1, 2], [], [1]]
    assert as_lists(split.targets) == [[3, 4], [], [], [8]]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=8), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_no_split_lets_the_future_into_training(rows, cut):
    rows = [sorted(row, key=lambda event: event[1]) for row in rows]
    histories = Histories.from_lists([[i for i, _ in row] for row in rows], times=[[t for _, t in row] for row in rows])
    split = next_basket(histories, cut=cut)
    for person, row in enumerate(rows):
        assert split.train.of(person).tolist() == [item for item, time in row if time < cut]
        later = [time for _, time in row if time >= cut]
        expected = {item for item, time in row if later and time == later[0]} if len(later) < len(row) else set()
        assert sorted(split.targets.of(person).tolist()) == sorted(expected)
        assert (split.targets.times(person) >= cut).all()


def test_a_split_of_different_people_is_refused():
    with pytest.raises(DataError, match="split: 1 people to train on but 2 with targets"):
        Split(Histories.from_lists([[1]]), Histories.from_lists([[1], [2]]))


def test_the_default_cut_leaves_a_tenth_of_the_events_behind_it():
    times = [[START + day * DAY for day in range(100)]]
    histories = Histories.from_lists([[0] * 100], times=times)
    cut = time_cut(histories, date=None)
    assert int((histories.timestamps >= cut).sum()) in (10, 11)


def test_a_date_is_its_midnight_in_utc():
    histories = Histories.from_lists([[0, 0]], times=[[START, START + 10 * DAY]])
    assert time_cut(histories, date="2011-01-28") == START + 2 * DAY
    assert time_cut(histories, date="2011-01-28T01:00:00+01:00") == START + 2 * DAY


@pytest.mark.parametrize(
    ("date", "message"),
    [
        ("next week", r"data\.time_cut='next week': expected an ISO date"),
        ("2015-01-01", "expected inside the data's span, 2011-01-26 to 2011-02-05"),
        ("2011-01-26", "expected inside the data's span"),
    ],
)
def test_a_cut_that_splits_nothing_is_refused(date, message):
    histories = Histories.from_lists([[0, 0]], times=[[START, START + 10 * DAY]])
    with pytest.raises(ConfigError, match=message):
        time_cut(histories, date=date)


def test_positions_cannot_be_cut_by_time():
    with pytest.raises(DataError, match="timestamps are positions, not clock times"):
        time_cut(Histories.from_lists([np.arange(50).tolist()]), date=None)


def test_cold_items_leave_training_and_stay_targets():
    split = leave_last_out(Histories.from_lists([[1, 9, 2, 3], [4, 9], [9, 5], [6, 7, 9, 6]]))
    held = hold_out_items(split, np.array([9]), merge_repeats=True, masks_last=True)
    assert as_lists(held.train) == [[1, 2], [4], [], [6, 7]]
    assert as_lists(held.targets) == [[3], [9], [], [6]]  # of the third person nothing is known any more


def test_repeats_that_holding_out_makes_are_merged_and_a_target_that_became_one_is_not_asked():
    split = leave_last_out(Histories.from_lists([[1, 9, 1, 2], [3, 4, 9, 4]]))
    merged = hold_out_items(split, np.array([9]), merge_repeats=True, masks_last=True)
    assert as_lists(merged.train) == [[1], [3, 4]]
    assert as_lists(merged.targets) == [[2], []]  # the second person's 4 is masked: nobody could find it
    kept = hold_out_items(split, np.array([9]), merge_repeats=False, masks_last=False)
    assert as_lists(kept.train) == [[1, 1], [3, 4]]
    assert as_lists(kept.targets) == [[2], [4]]


def test_no_cold_items_change_nothing():
    split = leave_last_out(Histories.from_lists([[1, 2, 1], [3], []]))
    same = hold_out_items(split, np.array([], np.int64), merge_repeats=True, masks_last=True)
    assert as_lists(same.train) == as_lists(split.train)
    assert as_lists(same.targets) == as_lists(split.targets)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.001, 1), (0.1, 4), (0.25, 10)])
def test_cold_items_are_drawn_among_targets_by_the_seed(share, count):
    targets = Histories.from_lists([[item, item + 1] for item in range(0, 24, 2)] + [[3]])
    drawn = draw_cold_items(targets, items=40, share=share, seed=1)
    assert len(np.unique(drawn)) == len(drawn) == count
    assert set(drawn.tolist()) <= set(range(24))
    assert drawn.tolist() == draw_cold_items(targets, items=40, share=share, seed=1).tolist()
    if count > 1:
        assert drawn.tolist() != draw_cold_items(targets, items=40, share=share, seed=2).tolist()


def test_more_cold_items_than_anyone_is_asked_for_are_refused():
    with pytest.raises(ConfigError, match=r"data\.cold_items=0\.5: 5 of 10 items, but .* asked for 2 only; lower it"):
        draw_cold_items(Histories.from_lists([[1, 2], [2]]), items=10, share=0.5, seed=0)
