"""Adam by hand, a schedule that wastes no round, an average whose weights sum to one."""

import numpy as np
import pytest

from fedrec.errors import ConfigError
from server.optimizer import AdamState, AverageState, Ema, ServerAdam, learning_rate_at


def test_first_adam_step_is_the_learning_rate_in_the_direction_of_each_sign() -> None:
    change, state = ServerAdam().step(AdamState.zeros(3), np.array([4.0, -0.01, 0.0]), learning_rate=0.1)
    np.testing.assert_allclose(change, [0.1, -0.1, 0.0], rtol=1e-5)
    assert state.steps == 1


def test_second_adam_step_worked_by_hand() -> None:
    adam = ServerAdam(beta1=0.9, beta2=0.99, epsilon=0.0)
    _, state = adam.step(AdamState.zeros(1), np.array([1.0]), learning_rate=1.0)
    change, _ = adam.step(state, np.array([3.0]), learning_rate=1.0)
    first = (0.9 * 0.1 + 0.1 * 3) / (1 - 0.81)
    second = (0.99 * 0.01 + 0.01 * 9) / (1 - 0.99**2)
    np.testing.assert_allclose(change, first / np.sqrt(second), rtol=1e-12)


def test_adam_moves_towards_the_update_not_away() -> None:
    adapter, state = np.zeros(2), AdamState.zeros(2)
    goal = np.array([1.0, -2.0])
    for _ in range(300):
        change, state = ServerAdam().step(state, goal - adapter, learning_rate=0.05)
        adapter = adapter + change
    np.testing.assert_allclose(adapter, goal, atol=0.05)


def test_adam_does_not_edit_its_arguments() -> None:
    state, update = AdamState.zeros(2), np.ones(2)
    ServerAdam().step(state, update, learning_rate=1.0)
    np.testing.assert_array_equal(state.first, 0)
    np.testing.assert_array_equal(update, 1)


def test_schedule_rises_to_the_peak_and_falls_to_zero_just_after_the_last_round() -> None:
    rates = [learning_rate_at(index, peak=1.0, warmup_rounds=3, rounds=7) for index in range(1, 8)]
    np.testing.assert_allclose(rates, [1 / 3, 2 / 3, 1, 1, 3 / 4, 2 / 4, 1 / 4])


@pytest.mark.parametrize(("warmup_rounds", "rounds"), [(0, 1), (0, 5), (3, 3), (9, 4), (3, 30)])
def test_every_round_has_a_positive_step_of_at_most_the_peak(warmup_rounds: int, rounds: int) -> None:
    for index in range(1, rounds + 1):
        assert 0 < learning_rate_at(index, peak=0.5, warmup_rounds=warmup_rounds, rounds=rounds) <= 0.5


@pytest.mark.parametrize("index", [0, 8, -1])
def test_a_round_outside_the_run_has_no_step_size(index: int) -> None:
    with pytest.raises(ConfigError, match=rf"round_index={index}: expected 1 to 7; set federation\.rounds"):
        learning_rate_at(index, peak=1.0, warmup_rounds=3, rounds=7)


def test_average_of_equal_adapters_is_that_adapter() -> None:
    ema, state = Ema(0.9), AverageState.zeros(2)
    for _ in range(5):
        state = ema.add(state, np.array([2.0, -1.0]))
        np.testing.assert_allclose(ema.average(state), [2.0, -1.0])


def test_average_worked_by_hand() -> None:
    ema = Ema(0.5)
    state = ema.add(ema.add(AverageState.zeros(1), np.array([1.0])), np.array([4.0]))
    np.testing.assert_allclose(ema.average(state), [(1 * 0.25 + 4 * 0.5) / 0.75])


def test_without_decay_the_average_is_the_latest() -> None:
    state = Ema(0.0).add(Ema(0.0).add(AverageState.zeros(1), np.array([1.0])), np.array([4.0]))
    np.testing.assert_array_equal(Ema(0.0).average(state), [4.0])


def test_average_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="average of no adapters: expected at least one finished round"):
        Ema().average(AverageState.zeros(1))
