import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.data.histories import Histories
from fedrec.data.splits import Split, leave_last_out, next_basket, time_cut
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
