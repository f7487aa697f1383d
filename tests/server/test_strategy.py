"""Uniform weights, seeded choice of clients, and the best round on the panel."""

import math

import numpy as np
import pytest

from fedrec.errors import ConfigError
from server.strategy import RoundRecord, choose_clients, initial_state, keep_best, move, published
from tests.tiny_federation import SCHEMA, arrays, federation

RECORD = RoundRecord(
    round_index=2,
    asked=5,
    admitted=4,
    quarantined=1,
    reasons={"malformed": 1},
    void=False,
    seconds=0.5,
    bytes_up=100,
    measures={"panel_loss": 1.5, "panel_ndcg@10": 0.1},
    epsilon_spent=0.7,
)


def test_record_is_written_flat_and_read_back() -> None:
    assert RECORD.to_dict() == {
        "round": 2,
        "asked": 5,
        "admitted": 4,
        "quarantined": 1,
        "reasons": {"malformed": 1},
        "void": False,
        "seconds": 0.5,
        "bytes_up": 100,
        "panel_loss": 1.5,
        "panel_ndcg@10": 0.1,
        "epsilon_spent": 0.7,
    }
    assert RoundRecord.from_dict(RECORD.to_dict()) == RECORD


@pytest.mark.parametrize("asked", [0, 6])
def test_more_clients_a_round_than_there_are_is_refused(asked: int) -> None:
    with pytest.raises(ConfigError, match=rf"clients_per_round={asked}: expected 1 to 5; set federation\.clients_per"):
        federation(clients_per_round=asked)


def test_quorum_rounds_up() -> None:
    assert federation(min_replies=0.5).quorum == 3
    assert federation(min_replies=0.01).quorum == 1
    assert federation(min_replies=1.0).quorum == 5


def test_digest_depends_on_every_constant() -> None:
    digests = {
        federation(**change).digest() for change in ({}, {"seed": 1}, {"ema": 0.8}, {"rounds": 9}, {"run_id": "r"})
    }
    assert len(digests) == 5
    assert federation().digest() == federation().digest()


def test_choice_of_clients_repeats_for_a_round_and_differs_between_rounds() -> None:
    some = federation(clients=1000, clients_per_round=10)
    nodes = list(range(2, 1002))
    chosen = [choose_clients(nodes, some, round_index=index) for index in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 10
    assert choose_clients(nodes[::-1], some, round_index=1) == chosen[0]


def test_every_client_is_asked_about_equally_often() -> None:
    some = federation(clients=10, clients_per_round=3)
    counts = np.zeros(10)
    for index in range(1, 1001):
        counts[choose_clients(list(range(10)), some, round_index=index)] += 1
    assert abs(counts - 300).max() < 5 * math.sqrt(1000 * 0.3 * 0.7)


def test_all_are_asked_when_there_are_no_more_than_wanted() -> None:
    assert choose_clients([9, 4, 7], federation(), round_index=1) == [4, 7, 9]


def test_void_round_only_counts() -> None:
    before = initial_state(arrays(0.5), SCHEMA, measures={})
    after = move(before, None, federation())
    assert after.round_index == 1
    np.testing.assert_array_equal(after.adapter, before.adapter)
    assert after.adam.steps == after.average.count == 0
    np.testing.assert_array_equal(published(after, federation()), before.adapter)


def test_round_moves_along_the_mean_update() -> None:
    before = initial_state(arrays(), SCHEMA, measures={})
    after = move(before, np.full(11, 3.0), federation())
    np.testing.assert_allclose(after.adapter, 0.05, rtol=1e-5)  # half the peak of 0.1: first of two warm-up rounds
    np.testing.assert_allclose(published(after, federation()), after.adapter)


def test_best_round_is_the_one_with_the_lowest_finite_panel_loss() -> None:
    run = federation()
    state = initial_state(arrays(), SCHEMA, measures={"panel_loss": 2.0})
    for loss, best_round in ((2.5, 0), (math.nan, 0), (2.0, 0), (1.0, 4), (1.5, 4), (math.inf, 4)):
        state = keep_best(move(state, np.ones(11), run), run, measures={"panel_loss": loss})
        assert state.best_round == best_round
    assert state.best_loss == 1.0


def test_no_round_is_published_that_does_not_surely_rank_the_panel_better_than_the_base() -> None:
    run = federation()
    state = initial_state(arrays(), SCHEMA, measures={"panel_loss": 2.0, "panel_gain": 0.0})
    rounds = ((1.0, -0.1, 0), (1.2, 2.5, 0), (1.9, 2.6, 3), (1.5, 2.4, 3), (1.6, 2.7, 5), (1.7, 9.0, 5))
    for loss, gain, best_round in rounds:
        state = keep_best(move(state, np.ones(11), run), run, measures={"panel_loss": loss, "panel_gain": gain})
        assert state.best_round == best_round
    assert state.best_loss == 1.6


def test_base_is_published_when_no_round_beats_it() -> None:
    run = federation()
    state = initial_state(arrays(0.5), SCHEMA, measures={"panel_loss": 1.0})
    state = keep_best(move(state, np.ones(11), run), run, measures={"panel_loss": 1.0})
    np.testing.assert_array_equal(state.best, np.full(11, 0.5))


def test_without_a_panel_the_latest_round_is_published() -> None:
    run = federation()
    state = initial_state(arrays(), SCHEMA, measures={})
    for index in (1, 2):
        state = keep_best(move(state, np.ones(11), run), run, measures={})
        assert state.best_round == index
