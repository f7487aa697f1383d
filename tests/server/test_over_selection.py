"""A round is over as soon as enough replies count; who is late is not waited for, and nobody is always late."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from server.averaging import Averaging
from server.measures import Measuring
from server.roster import Registered
from server.rounds import Conduct, run_rounds
from server.strategy import ServerState, choose_clients, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import SCHEMA, SIGNER, TinyMerchant, arrays, client_app, federation, reply_key


def _run(grid: LocalGrid, **changes: Any) -> ServerState:
    start = initial_state(arrays(), SCHEMA, measures={})
    return run_rounds(grid, federation(**changes), state=start, conduct=Conduct(SIGNER), save=lambda state: None)


@pytest.mark.parametrize(
    ("over_selection", "per_round", "asked"), [(1.0, 3, 3), (1.1, 10, 11), (1.3, 10, 13), (1.31, 10, 14), (3, 40, 50)]
)
def test_asked_are_the_next_whole_number_but_never_more_than_there_are(
    over_selection: float, per_round: int, asked: int
) -> None:
    settings = federation(clients=50, clients_per_round=per_round, over_selection=over_selection)
    assert settings.asked_per_round == asked
    assert len(set(choose_clients(range(2, 52), settings, round_index=1))) == asked


def test_quorum_is_of_the_replies_that_are_wanted_and_not_of_those_asked() -> None:
    assert federation(clients=50, clients_per_round=10, over_selection=2.0, min_replies=0.5).quorum == 5
    assert federation(clients=50, clients_per_round=20, min_replies=0.55).quorum == 11


def test_round_is_closed_once_enough_replies_count_and_says_how_many_it_did_not_wait_for() -> None:
    state = _run(LocalGrid(client_app(), clients=5), clients_per_round=3, over_selection=1.5)
    for record in state.records:
        assert (record.asked, record.admitted, record.reasons) == (5, 3, {"not-waited-for": 2})
        assert record.quarantined == 0


def test_bad_replies_do_not_close_a_round() -> None:
    class Failing(TinyMerchant):
        def train_round(self, instruction: Any) -> Any:
            if self.partition in (1, 2):
                raise ValueError
            return super().train_round(instruction)

    state = _run(LocalGrid(client_app(Failing), clients=5), clients_per_round=3, over_selection=2.0)
    for record in state.records:
        assert record.admitted == 3
        assert sum(record.reasons.values()) == 2
    assert any("E_INTERNAL" in record.reasons for record in state.records)


class HangingGrid(LocalGrid):
    """Two of the five never answer, and the transport would wait for them for ever."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        replies = list(super().send_and_receive(messages))
        yield from (reply for reply in replies if reply.metadata.src_node_id > 3)
        raise AssertionError("waited for those who are late")


def test_who_is_late_is_not_waited_for() -> None:
    assert _run(HangingGrid(client_app(), clients=5), clients_per_round=3, over_selection=2.0).round_index == 8
    with pytest.raises(AssertionError, match="waited for those who are late"):
        _run(HangingGrid(client_app(), clients=5))


def test_deadline_of_a_round_reaches_the_transport() -> None:
    told = []

    class Noting(LocalGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
            told.append(timeout)
            return super().send_and_receive(messages)

    run_rounds(
        Noting(client_app(), clients=5),
        federation(rounds=2, measuring=Measuring(TinyMerchant.metrics, every=2, noise_std=0.1)),
        state=initial_state(arrays(), SCHEMA, measures={}),
        conduct=Conduct(SIGNER, timeout_s=7.5),
        save=lambda state: None,
    )
    assert told == [7.5] * 3


def test_metrics_are_not_waited_for_either() -> None:
    measuring = Measuring(TinyMerchant.metrics, every=2, noise_std=0.15)
    state = _run(HangingGrid(client_app(), clients=5), clients_per_round=3, over_selection=2.0, measuring=measuring)
    assert state.records[1].reasons == {"not-waited-for": 2, "metrics:not-waited-for": 2}
    assert state.records[1].measures["private_replies"] == 3


def test_nobody_is_always_last() -> None:
    settings = federation(clients_per_round=3, over_selection=2.0, rounds=40)
    first = [choose_clients(range(2, 7), settings, round_index=index)[:3] for index in range(1, 41)]
    assert {node for chosen in first for node in chosen} == set(range(2, 7))
    assert first == [choose_clients(range(2, 7), settings, round_index=index)[:3] for index in range(1, 41)]


def test_registered_weights_move_the_mean_only_when_they_are_asked_for() -> None:
    """By hand, as in the uniform test: Adam's first moment is a tenth of the mean target."""

    class Signing(TinyMerchant):
        def __init__(self, partition: int) -> None:
            super().__init__(partition)
            self.reply_key = reply_key(partition)

    weights = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    targets = 1 + np.arange(5) / 7
    roster = {2 + i: Registered(reply_key(i).public, weight) for i, weight in enumerate(weights.tolist())}
    for weighted, mean in ((False, targets.mean()), (True, (weights * targets).sum() / weights.sum())):
        state = run_rounds(
            LocalGrid(client_app(Signing), clients=5),
            federation(averaging=Averaging(weighted=weighted)),
            state=initial_state(arrays(), SCHEMA, measures={}),
            conduct=Conduct(SIGNER, roster=lambda: roster),
            save=lambda state: None,
            until_round=1,
        )
        np.testing.assert_allclose(state.adam.first[-1], 0.1 * mean, rtol=1e-6)
        assert state.round_index == 1
