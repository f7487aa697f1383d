"""The loop with real Flower messages: attackers are set aside, silence makes a void round, the run goes on."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.replies import Answer
from fedrec.errors import RunError
from fedrec.signing import Purpose, is_signed
from fedrec.wire import Instruction, Receipt
from server.admission import NormBounds
from server.roster import wait_for_clients
from server.rounds import Conduct, run_round, run_rounds
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import (
    SCHEMA,
    SERVER,
    SIGNER,
    TinyMerchant,
    arrays,
    client_app,
    distance,
    federation,
    head_of,
)


def _start() -> ServerState:
    return initial_state(arrays(), SCHEMA, measures={})


def _run(grid: LocalGrid, **changes: Any) -> ServerState:
    return run_rounds(grid, federation(**changes), state=_start(), conduct=Conduct(SIGNER), save=lambda state: None)


def _break(reply: Message, how: str) -> Message:
    """Turn an honest reply into an attack."""
    content = reply.content
    update = content["update"]
    assert isinstance(update, ArrayRecord)
    if how == "error":
        return Message(Error(code=0, reason="user 123"), reply_to=_asked(reply))
    if how == "npz":
        update["scale"] = Array("float32", (), "numpy.ndarray", b"PK\x03\x04" + bytes(100))
    elif how == "extra key":
        content["metrics"] = ConfigRecord({"num-examples": 10**12})
    elif how == "empty values":
        content["header"] = ConfigRecord({"": "", "x": []})
    elif how == "shape":
        update["norm.weight"] = Array(np.zeros((2, 2), np.float32))
    else:
        update["norm.weight"] = Array(np.full(4, float(how), np.float32))
    return reply


def _asked(reply: Message) -> Message:
    """A message whose answer carries the same addresses as ``reply``."""
    from tests.tiny_federation import message_to

    return message_to(reply.metadata.src_node_id)


def _app_with_attacker(how: str) -> ClientApp:
    """The tiny client app, in which partition 2 attacks."""
    honest, app = client_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        return _break(reply, how) if context.node_config["partition-id"] == 2 else reply

    return app


ATTACKS = {
    "nan": "not-finite",
    "inf": "not-finite",
    "-inf": "not-finite",
    "1e30": "too-long",
    "shape": "malformed",
    "npz": "malformed",
    "extra key": "malformed",
    "empty values": "malformed",
    "error": "failed",
}


@pytest.mark.parametrize("how", ATTACKS)
def test_attacker_is_set_aside_and_the_run_equals_one_without_it(how: str) -> None:
    attacked = _run(LocalGrid(_app_with_attacker(how), clients=5))

    class WithoutTwo(LocalGrid):
        def get_node_ids(self) -> Any:
            return [node for node in super().get_node_ids() if node != 4]

    honest = run_rounds(
        WithoutTwo(client_app(), clients=5),
        federation(clients=4, clients_per_round=4),
        state=_start(),
        conduct=Conduct(SIGNER),
        save=lambda state: None,
    )
    np.testing.assert_array_equal(attacked.adapter, honest.adapter)
    for record in attacked.records:
        assert (record.asked, record.admitted, record.quarantined) == (5, 4, 1)
        assert record.reasons == {ATTACKS[how]: 1}
        assert not record.void


def test_update_is_a_uniform_mean_whatever_the_clients_claim() -> None:
    """By hand: one round, scale starts at 0, so every client's update of it is its target and Adam steps its sign."""
    state = run_round(LocalGrid(client_app(), clients=5), federation(), state=_start(), conduct=Conduct(SIGNER))
    mean = np.mean([1 + partition / 7 for partition in range(5)])
    np.testing.assert_allclose(state.adam.first[-1], 0.1 * mean, rtol=1e-6)


class RepeatingGrid(LocalGrid):
    """Delivers every reply three times, and adds one from a node that was never asked."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages):
            yield from (reply, reply, reply)
        stranger = Message(RecordDict(), reply_to=_asked(reply))
        stranger.metadata.__dict__["_src_node_id"] = 999
        yield stranger


def test_repeated_and_uninvited_replies_count_for_nothing() -> None:
    state = _run(RepeatingGrid(client_app(), clients=5))
    np.testing.assert_array_equal(state.adapter, _run(LocalGrid(client_app(), clients=5)).adapter)
    assert state.records[0].admitted == 5
    assert state.records[0].reasons == {"not-asked": 1, "twice": 10}


class Receiving(TinyMerchant):
    """Keeps the receipts that it is sent."""

    seen: ClassVar[dict[tuple[int, int], Receipt | None]] = {}

    def train_round(self, instruction: Instruction) -> Answer:
        self.seen[self.partition, instruction.round_index] = instruction.receipt
        return super().train_round(instruction)


def test_each_client_gets_back_the_end_of_its_own_ledger_under_the_servers_signature() -> None:
    state = run_rounds(
        LocalGrid(client_app(Receiving), clients=5),
        federation(rounds=3),
        state=_start(),
        save=lambda state: None,
        conduct=Conduct(SIGNER),
    )
    assert state.ledger_heads == {2 + partition: head_of(partition, 3) for partition in range(5)}
    for (partition, round_index), receipt in Receiving.seen.items():
        if round_index == 1:
            assert receipt is None
            continue
        assert receipt is not None
        assert receipt.head == head_of(partition, round_index - 1)
        head = bytes.fromhex(receipt.head)
        assert is_signed(head, receipt.signature, public=SERVER.public, purpose=Purpose.LEDGER_HEAD)
    assert len(Receiving.seen) == 15


class Failing(TinyMerchant):
    """Fails in rounds 2 and 3, everywhere."""

    def train_round(self, instruction: Instruction) -> Answer:
        if instruction.round_index in (2, 3):
            raise ValueError("user 123 bought X")
        return super().train_round(instruction)


def test_round_in_which_all_fail_is_void_and_the_run_continues() -> None:
    adapters = {0: _start().adapter}
    state = run_rounds(
        LocalGrid(client_app(Failing), clients=5),
        federation(),
        state=_start(),
        conduct=Conduct(SIGNER),
        save=lambda state: adapters.update({state.round_index: state.adapter}),
    )
    assert [record.void for record in state.records] == [False, True, True, False, False, False, False, False]
    assert state.records[1].reasons == {"E_INTERNAL": 5}
    np.testing.assert_array_equal(adapters[1], adapters[3])
    assert not np.array_equal(adapters[3], adapters[4])


class SilentGrid(LocalGrid):
    """Loses the replies of two clients of five."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages):
            if reply.metadata.src_node_id > 3:
                yield reply


@pytest.mark.parametrize(("min_replies", "void"), [(0.6, False), (0.61, True)])
def test_quorum_decides_whether_a_round_counts(min_replies: float, void: bool) -> None:
    state = _run(SilentGrid(client_app(), clients=5), min_replies=min_replies)
    assert {record.void for record in state.records} == {void}
    assert state.records[0].reasons == {"no-reply": 2}
    assert np.array_equal(state.adapter, _start().adapter) == void


def test_client_whose_noise_is_missing_is_set_aside() -> None:
    state = _run(LocalGrid(client_app(), clients=5), bounds=NormBounds(50.0, 100.0))
    assert state.records[0].reasons == {"too-short": 5}
    assert state.records[0].void


def test_records_say_who_was_asked_what_it_took_and_what_was_measured() -> None:
    state = run_rounds(
        LocalGrid(client_app(), clients=5),
        federation(clients_per_round=3),
        state=_start(),
        conduct=Conduct(SIGNER, judge=distance, epsilon_after=lambda rounds: rounds / 10),
        save=lambda state: None,
    )
    assert [record.round_index for record in state.records] == list(range(1, 9))
    assert [record.epsilon_spent for record in state.records] == [index / 10 for index in range(1, 9)]
    for record in state.records:
        assert record.asked == record.admitted == 3
        assert record.bytes_up > 3 * 4 * 11
        assert set(record.measures) == {"panel_loss", "panel_ndcg@10"}
    best = min(state.records, key=lambda record: record.measures["panel_loss"])
    assert state.best_round == best.round_index
    assert state.best_loss == best.measures["panel_loss"]


def test_a_round_is_logged_without_reasons_or_arrays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="server.rounds"):
        run_round(LocalGrid(client_app(), clients=5), federation(), state=_start(), conduct=Conduct(SIGNER))
    assert "round=1 asked=5 admitted=5 quarantined=0 void=False" in caplog.text


def test_missing_clients_are_an_error_that_counts_them() -> None:
    grid = LocalGrid(client_app(), clients=3)
    with pytest.raises(RunError, match="3 of 5 clients joined within 0 s; start the missing clients, then go on with"):
        wait_for_clients(grid, 5, timeout_s=0)


def test_clients_may_join_late() -> None:
    class Slow(LocalGrid):
        calls = 0

        def get_node_ids(self) -> range:
            self.calls += 1
            return super().get_node_ids()[: self.calls]

    grid = Slow(client_app(), clients=5)
    wait_for_clients(grid, 5, timeout_s=30, poll_s=0)
    assert grid.calls == 5


def test_finished_run_asks_nobody() -> None:
    state = _run(LocalGrid(client_app(), clients=5))
    again = run_rounds(
        LocalGrid(client_app(), clients=0), federation(), state=state, conduct=Conduct(SIGNER), save=lambda state: None
    )
    assert again is state
