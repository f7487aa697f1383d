"""How admitted updates become one: worked by hand, whatever their order, and bounded under liars."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import ConfigError
from server.averaging import Averaging
from tests.tiny_federation import federation

TRIMMED = Averaging(trim=0.2)


def _average(averaging: Averaging, updates: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    total = averaging.start(updates.shape[1])
    for update, weight in zip(updates, np.ones(len(updates)) if weights is None else weights, strict=True):
        total.add(update, weight=float(weight))
    return total.mean()


def test_uniform_mean_gives_registered_weights_no_influence() -> None:
    updates = np.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(_average(Averaging(), updates, np.array([1.0, 9.0])), [2.0, 4.0])


def test_weighted_mean_by_hand() -> None:
    updates = np.array([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(_average(Averaging(weighted=True), updates, np.array([3.0, 1.0])), [1.5, 3.0])


def test_trimmed_mean_by_hand() -> None:
    """One of five is cut at each end of each coordinate, on its own."""
    updates = np.array([[1, 50], [2, 40], [3, 30], [4, 20], [100, -900]], dtype=float)
    np.testing.assert_array_equal(_average(TRIMMED, updates), [3.0, 30.0])


@pytest.mark.parametrize(("replies", "cut"), [(3, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_share_is_rounded_up_so_that_a_small_round_is_trimmed_too(replies: int, cut: int) -> None:
    updates = np.arange(replies, dtype=float)[:, None] ** 3
    kept = np.arange(replies, dtype=float)[cut : replies - cut] ** 3
    assert _average(TRIMMED, updates)[0] == pytest.approx(kept.mean())


@pytest.mark.parametrize("replies", [1, 2, 3, 4, 5])
def test_something_is_always_left(replies: int) -> None:
    """A share just below a half leaves the middle one or two: the median."""
    updates = np.random.default_rng(0).normal(size=(replies, 3)).astype(np.float32)
    np.testing.assert_allclose(_average(Averaging(trim=0.49), updates), np.median(updates, axis=0), rtol=1e-6)


@given(st.permutations(range(7)))
def test_order_of_arrival_changes_no_bit_of_a_trimmed_mean(order: list[int]) -> None:
    updates = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(_average(TRIMMED, updates[order]), _average(TRIMMED, updates))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2), st.integers(0, 2**32 - 1))
def test_fewer_liars_than_the_share_never_leave_the_range_of_the_honest(lies: list[float], seed: int) -> None:
    """Yin et al. 2018: every value that is kept lies between two honest ones."""
    honest = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
    liars = np.array(lies, np.float32)[:, None] * np.ones((2, 4), np.float32)
    found = _average(TRIMMED, np.concatenate([liars, honest]).astype(np.float64))
    assert (found >= honest.min(axis=0) - 1e-6).all()
    assert (found <= honest.max(axis=0) + 1e-6).all()


def test_the_plain_mean_does_leave_it() -> None:
    """What the trimming is for."""
    honest = np.random.default_rng(0).normal(size=(8, 4))
    found = _average(Averaging(), np.concatenate([np.full((2, 4), 100.0), honest]))
    assert (found > honest.max(axis=0)).all()


@pytest.mark.parametrize("trim", [0.0, 0.5, -0.1, math.nan])
def test_share_out_of_range_is_refused(trim: float) -> None:
    with pytest.raises(ConfigError, match=r"expected more than 0 and less than 0\.5; set federation\.trim"):
        Averaging(trim=trim)


def test_weights_and_trimming_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a trimmed mean has no weights; set federation\.weights = uniform"):
        Averaging(trim=0.1, weighted=True)


@pytest.mark.parametrize(("min_replies", "clients_per_round"), [(0.5, 4), (0.4, 5), (1.0, 2)])
def test_trimmed_mean_with_a_quorum_that_it_cannot_trim_is_refused(min_replies: float, clients_per_round: int) -> None:
    with pytest.raises(ConfigError, match="a trimmed mean of 2 replies trims nothing: expected a quorum of 3 or more"):
        federation(averaging=TRIMMED, min_replies=min_replies, clients_per_round=clients_per_round)
