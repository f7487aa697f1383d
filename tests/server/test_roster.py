"""Only who is enrolled is asked, and only what they signed counts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from fedrec.errors import RunError
from fedrec.signing import SigningKey
from server.job import run_job
from server.measures import Measuring
from server.roster import Registered, Roster, eligible, wait_for_clients
from server.rounds import Conduct, run_rounds
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import SCHEMA, SIGNER, TinyMerchant, arrays, client_app, federation, job, reply_key

MEASURING = Measuring(TinyMerchant.metrics, every=1, noise_std=0.15)


class Signing(TinyMerchant):
    """Signs with a key of its own."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.reply_key = reply_key(partition)


class Forger(Signing):
    """Partition 2 has lost its key, and signs with another's or not at all."""

    foreign: SigningKey | None = None

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        if partition == 2:
            self.reply_key = self.foreign


def _enrolled(*partitions: int) -> Mapping[int, Registered]:
    """Nodes are numbered from 2, as in ``LocalGrid``."""
    return {2 + partition: Registered(reply_key(partition).public) for partition in partitions}


def _run(grid: LocalGrid, roster: Roster | None, **changes: object) -> ServerState:
    start = initial_state(arrays(), SCHEMA, measures={})
    settings = federation(rounds=3, **changes)
    return run_rounds(grid, settings, state=start, conduct=Conduct(SIGNER, roster=roster), save=lambda state: None)


def test_signed_replies_give_the_adapter_of_a_simulation() -> None:
    signed = _run(LocalGrid(client_app(Signing), clients=5), lambda: _enrolled(0, 1, 2, 3, 4), measuring=MEASURING)
    simulated = _run(LocalGrid(client_app(), clients=5), None, measuring=MEASURING)
    np.testing.assert_array_equal(signed.adapter, simulated.adapter)
    assert all(record.reasons == {} and record.admitted == 5 for record in signed.records)
    assert [record.measures for record in signed.records] == [record.measures for record in simulated.records]


@pytest.mark.parametrize("key", [None, reply_key(1), reply_key(99)], ids=["none", "another member's", "a stranger's"])
def test_reply_without_its_own_clients_signature_is_set_aside(key: SigningKey | None) -> None:
    class Case(Forger):
        foreign = key

    roster = lambda: _enrolled(0, 1, 2, 3, 4)  # noqa: E731
    state = _run(LocalGrid(client_app(Case), clients=5), roster, measuring=MEASURING)
    for record in state.records:
        assert record.admitted == 4
        assert record.reasons == {"not-signed": 1, "metrics:not-signed": 1}
    four = _run(LocalGrid(client_app(Signing), clients=5), lambda: _enrolled(0, 1, 3, 4))
    np.testing.assert_array_equal(state.adapter, four.adapter)


class SwappingGrid(LocalGrid):
    """Delivers each reply under the name of the next node, as a transport that lies would."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages):
            reply.metadata.__dict__["_src_node_id"] = 2 + (reply.metadata.src_node_id - 1) % 5
            yield reply


def test_reply_under_another_members_name_is_set_aside() -> None:
    state = _run(SwappingGrid(client_app(Signing), clients=5), lambda: _enrolled(0, 1, 2, 3, 4))
    assert [record.reasons for record in state.records] == [{"not-signed": 5}] * 3
    assert all(record.void for record in state.records)


class TouchingGrid(LocalGrid):
    """Changes one number of one reply on its way."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages):
            if reply.metadata.src_node_id == 3:
                header = dict(reply.content["header"])
                reply.content["header"] = ConfigRecord(header | {"ledger_head": "d" * 64})
            yield reply


def test_reply_that_was_changed_on_its_way_is_set_aside() -> None:
    state = _run(TouchingGrid(client_app(Signing), clients=5), lambda: _enrolled(0, 1, 2, 3, 4))
    assert [record.reasons for record in state.records] == [{"not-signed": 1}] * 3
    assert 3 not in state.ledger_heads


def test_only_who_is_enrolled_is_asked() -> None:
    asked = set()

    class Noting(Signing):
        def train_round(self, instruction):
            asked.add(self.partition)
            return super().train_round(instruction)

    state = _run(LocalGrid(client_app(Noting), clients=5), lambda: _enrolled(0, 2, 3))
    assert asked == {0, 2, 3}
    assert [(record.asked, record.admitted) for record in state.records] == [(3, 3)] * 3


def test_revocation_holds_from_the_next_round() -> None:
    readings = iter([_enrolled(0, 1, 2, 3, 4), _enrolled(0, 1, 2, 3, 4), _enrolled(0, 1, 3, 4)])
    state = _run(LocalGrid(client_app(Signing), clients=5), lambda: next(readings))
    assert [record.asked for record in state.records] == [5, 5, 4]


def test_who_is_enrolled_but_away_is_not_eligible() -> None:
    assert eligible([3, 9], lambda: _enrolled(0, 1)) == {3: Registered(reply_key(1).public)}
    assert eligible([3, 9], None) == {3: None, 9: None}


def test_job_takes_its_roster_to_the_rounds(tmp_path: Path) -> None:
    work = job(tmp_path / "run", roster=lambda: _enrolled(0, 1, 2, 3, 4))
    state = run_job(LocalGrid(client_app(), clients=5), work)
    assert all(record.reasons == {"not-signed": 5} for record in state.records)


def test_a_quorum_that_is_not_even_enrolled_is_said_at_once_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    grid = LocalGrid(client_app(Signing), clients=5)
    with pytest.raises(RunError, match=r"2 of 3 clients joined within 0\.01 s; 2 are enrolled: enrol more, then go on"):
        wait_for_clients(grid, 3, roster=lambda: _enrolled(0, 1), timeout_s=0.01, poll_s=0.02)
    assert caplog.messages == ["waiting=clients there=2 enrolled=2 needed=3"]
    with pytest.raises(RunError, match="5 of 6 clients joined within 0 s; start the missing clients, then go on"):
        wait_for_clients(grid, 6, roster=lambda: _enrolled(*range(6)), timeout_s=0)
