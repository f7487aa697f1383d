import numpy as np
import pytest
import torch

from fedrec.data.histories import Histories
from fedrec.model.windows import latest_events, padded, tiled_windows, window_of_step


def test_padded_by_hand():
    windows = padded([np.array([4, 5, 6, 7]), np.array([8, 9])])
    assert windows.items.tolist() == [[4, 5, 6], [8, 0, 0]]
    assert windows.targets.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert windows.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert windows.is_target.tolist() == [[True, True, True], [True, False, False]]
    assert len(windows) == 2
    assert windows.items.dtype == windows.targets.dtype == windows.positions.dtype == torch.int64


def test_rows_keep_every_field_of_a_person_together():
    rows = padded([np.array([4, 5, 6]), np.array([8, 9]), np.array([1, 2, 3])]).rows(torch.tensor([2, 0]))
    assert rows.items.tolist() == [[1, 2], [4, 5]]
    assert rows.targets.tolist() == [[2, 3], [5, 6]]
    assert rows.is_target.tolist() == [[True, True], [True, True]]
    assert rows.rows(slice(0, 1)).items.tolist() == [[1, 2]]


def test_window_of_step_by_hand():
    sequence = np.arange(8)  # seven events to predict, three at a time
    shown = [window_of_step(sequence, step=step, history=3).tolist() for step in range(4)]
    assert shown == [[4, 5, 6, 7], [1, 2, 3, 4], [0, 1], [4, 5, 6, 7]]


@pytest.mark.parametrize("length", range(2, 20))
@pytest.mark.parametrize("history", [1, 2, 5, 24])
def test_window_of_step_cycles_through_every_event_once_and_never_shows_fewer_than_two(length, history):
    sequence = np.arange(length)
    cycle = -(-(length - 1) // history)
    windows = [window_of_step(sequence, step=step, history=history) for step in range(2 * cycle)]
    assert all(2 <= len(window) <= history + 1 for window in windows)
    assert all((np.diff(window) == 1).all() for window in windows)
    predicted = np.concatenate([window[1:] for window in windows[:cycle]])
    assert sorted(predicted) == list(range(1, length))
    assert windows[0][-1] == length - 1
    assert all(np.array_equal(a, b) for a, b in zip(windows[:cycle], windows[cycle:], strict=True))


def test_window_of_step_asks_no_random_number():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    window_of_step(np.arange(9), step=3, history=2)
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("history", [1, 2, 5, 24])
def test_tiled_windows_cover_every_event_and_stay_inside_a_person(history, seed):
    people = Histories.from_lists([list(range(100 * i, 100 * i + n)) for i, n in enumerate([2, 3, 6, 7, 30, 25, 49])])
    windows = tiled_windows(people, history=history, rng=np.random.default_rng(seed))
    assert all(2 <= len(window) <= history + 1 for window in windows)
    assert all((np.diff(window) == 1).all() for window in windows)  # one person, in order, no gap
    predicted = {int(item) for window in windows for item in window[1:]}
    assert predicted == {int(item) for person in range(len(people)) for item in people.of(person)[1:]}


def test_tiled_windows_leave_out_who_has_nothing_to_predict_and_move_with_the_seed():
    assert tiled_windows(Histories.from_lists([[], [3]]), history=4, rng=np.random.default_rng(0)) == []
    long = Histories.from_lists([list(range(40))])
    firsts = {tiled_windows(long, history=8, rng=np.random.default_rng(seed))[0][-1] for seed in range(20)}
    assert len(firsts) > 3


def test_latest_events_by_hand():
    people = Histories.from_lists([[1, 2, 3, 4], [5], [6, 7]])
    items, last = latest_events(people, np.array([2, 0, 1]), history=3)
    assert items.tolist() == [[6, 7, 0], [2, 3, 4], [5, 0, 0]]
    assert last.tolist() == [[1], [2], [0]]
