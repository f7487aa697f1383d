"""Noised metrics are averaged uniformly, told with the deviation of their noise, and decide nothing."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.replies import Answer
from fedrec.signing import Purpose, is_signed
from fedrec.wire import Instruction, RefusalCode, refusal_to_error
from fedrec.wire_metrics import Measures, measures_to_record
from server.admission import CROWD, TAIL, Admitted, Quarantined
from server.measures import Measuring, admit_measures
from server.rounds import Conduct, run_round, run_rounds
from server.strategy import RoundRecord, ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import (
    BASE,
    HEAD,
    PLAN,
    SCHEMA,
    SERVER,
    SIGNER,
    TinyMerchant,
    arrays,
    client_app,
    distance,
    federation,
    head_of,
    instruction,
    message_to,
)

NAMES = TinyMerchant.metrics
MEASURING = Measuring(NAMES, every=4, noise_std=0.15)
PRIVATE = {"private_ndcg@10", "private_hr@10", "private_noise_std", "private_replies"}


def _start() -> ServerState:
    return initial_state(arrays(), SCHEMA, measures={})


def _run(grid: LocalGrid, *, measuring: Measuring | None = MEASURING, **how: Any) -> ServerState:
    return run_rounds(
        grid, federation(measuring=measuring), state=_start(), save=lambda state: None, conduct=Conduct(SIGNER, **how)
    )


def test_mean_and_deviation_by_hand_in_the_rounds_agreed_on() -> None:
    """Partition p measures p/10 and p/5; five replies: 0.2, 0.4, and noise of 0.15 over the root of five."""
    state = _run(LocalGrid(client_app(), clients=5))
    for record in state.records:
        assert set(record.measures) == (PRIVATE if record.round_index in (4, 8) else set())
    found = state.records[3].measures
    assert (found["private_ndcg@10"], found["private_hr@10"]) == (pytest.approx(0.2), pytest.approx(0.4))
    assert found["private_noise_std"] == pytest.approx(0.15 / math.sqrt(5))
    assert found["private_replies"] == 5


def test_without_measuring_nobody_is_asked() -> None:
    class Unasked(TinyMerchant):
        def measure_round(self, instruction: Instruction) -> Answer:
            raise AssertionError("asked for metrics")

    state = _run(LocalGrid(client_app(Unasked), clients=5), measuring=None)
    assert all(not record.measures and not record.reasons for record in state.records)


def test_measuring_changes_neither_the_adapter_nor_what_is_published() -> None:
    plain, measured = (
        _run(LocalGrid(client_app(), clients=5), measuring=measuring, judge=distance) for measuring in (None, MEASURING)
    )
    np.testing.assert_array_equal(plain.adapter, measured.adapter)
    np.testing.assert_array_equal(plain.best, measured.best)
    assert (plain.best_round, plain.best_loss) == (measured.best_round, measured.best_loss)


def test_clients_measure_what_would_be_published_and_not_what_they_trained() -> None:
    asked: list[tuple[int, float]] = []

    class Noting(TinyMerchant):
        def measure_round(self, instruction: Instruction) -> Answer:
            asked.append((instruction.round_index, float(instruction.adapter["scale"])))
            return super().measure_round(instruction)

    published = {}

    def judge(adapter: dict[str, np.ndarray]) -> dict[str, float]:
        published[len(published)] = float(adapter["scale"])
        return {}

    state = run_rounds(
        LocalGrid(client_app(Noting), clients=5),
        federation(measuring=MEASURING),
        state=_start(),
        conduct=Conduct(SIGNER, judge=judge),
        save=lambda state: None,
    )
    assert asked == [(4, published[3])] * 5 + [(8, published[7])] * 5
    assert published[3] != pytest.approx(float(state.adapter[-1]))


def test_the_same_clients_measure_that_trained() -> None:
    trained, measured = [], []

    class Noting(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            trained.append((instruction.round_index, self.partition))
            return super().train_round(instruction)

        def measure_round(self, instruction: Instruction) -> Answer:
            measured.append((instruction.round_index, self.partition))
            return super().measure_round(instruction)

    settings = federation(clients_per_round=3, measuring=MEASURING)
    run_rounds(
        LocalGrid(client_app(Noting), clients=5),
        settings,
        state=_start(),
        conduct=Conduct(SIGNER),
        save=lambda state: None,
    )
    assert measured == [pair for pair in trained if pair[0] in (4, 8)]
    assert len(measured) == 6


def test_receipts_and_heads_of_both_kinds_of_reply_follow_each_other() -> None:
    seen = []

    class Receiving(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            seen.append((self.partition, instruction.round_index, "train", instruction.receipt))
            return super().train_round(instruction)

        def measure_round(self, instruction: Instruction) -> Answer:
            seen.append((self.partition, instruction.round_index, "measure", instruction.receipt))
            return super().measure_round(instruction)

    state = _run(LocalGrid(client_app(Receiving), clients=5))
    assert state.ledger_heads == {2 + partition: head_of(partition, 1008) for partition in range(5)}
    for partition, round_index, kind, receipt in seen:
        if round_index in (4, 5):
            before = {(4, "train"): 3, (4, "measure"): 4, (5, "train"): 1004}[round_index, kind]
            assert receipt.head == head_of(partition, before)
            head = bytes.fromhex(receipt.head)
            assert is_signed(head, receipt.signature, public=SERVER.public, purpose=Purpose.LEDGER_HEAD)


def _break(reply: Message, how: str) -> Message:
    if how == "error":
        return Message(Error(code=0, reason="user 123"), reply_to=message_to(reply.metadata.src_node_id))
    if how == "refusal":
        return Message(refusal_to_error(RefusalCode.PLAN), reply_to=message_to(reply.metadata.src_node_id))
    values = {"ndcg@10": 0.1, "hr@10": 0.1}
    if how == "extra":
        values["people"] = 80.0
    else:
        values["hr@10"] = float(how)
    reply.content["metrics"] = MetricRecord(values)
    return reply


BAD = {
    "nan": "metrics:not-finite",
    "1e9": "metrics:out-of-range",
    "-1.0": "metrics:out-of-range",
    "extra": "metrics:malformed",
    "error": "metrics:failed",
    "refusal": "metrics:E_PLAN",
}


@pytest.mark.parametrize("how", BAD)
def test_bad_reply_is_set_aside_and_counted_and_the_others_are_averaged(how: str) -> None:
    honest, app = client_app(), ClientApp()
    app.train()(honest)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        return _break(reply, how) if context.node_config["partition-id"] == 4 else reply

    record = _run(LocalGrid(app, clients=5)).records[3]
    assert record.reasons == {BAD[how]: 1}
    assert (record.admitted, record.quarantined, record.void) == (5, 1, False)
    assert record.measures["private_ndcg@10"] == pytest.approx((0 + 0.1 + 0.2 + 0.3) / 4)
    assert record.measures["private_replies"] == 4
    assert record.measures["private_noise_std"] == pytest.approx(0.15 / 2)


def test_round_in_which_nobody_measures_has_no_measure_and_goes_on() -> None:
    class Unwilling(TinyMerchant):
        def measure_round(self, instruction: Instruction) -> Answer:
            raise ValueError("user 123 bought X")

    state = _run(LocalGrid(client_app(Unwilling), clients=5))
    assert state.round_index == 8
    assert state.records[3].measures == {}
    assert state.records[3].reasons == {"metrics:E_INTERNAL": 5}


def test_void_round_spends_nothing_on_metrics() -> None:
    class Failing(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            raise ValueError

        def measure_round(self, instruction: Instruction) -> Answer:
            raise AssertionError("asked for metrics")

    settings = federation(measuring=replace(MEASURING, every=1))
    state = run_round(LocalGrid(client_app(Failing), clients=5), settings, state=_start(), conduct=Conduct(SIGNER))
    assert state.records[0].void
    assert state.records[0].reasons == {"E_INTERNAL": 5}


def test_record_comes_back_from_its_line_with_the_measures() -> None:
    record = _run(LocalGrid(client_app(), clients=5)).records[3]
    assert RoundRecord.from_dict(record.to_dict()) == record


def _verdict(message: Message, measuring: Measuring = MEASURING, **changes: Any) -> Admitted | Quarantined:
    settings: dict[str, Any] = {"asked": {5: None, 6: None}, "seen": set(), "instruction": instruction()}
    return admit_measures(message, **(settings | changes), measuring=measuring)


def _reply(ndcg: float = 0.25, **changes: Any) -> Message:
    values = {"ndcg@10": ndcg, "hr@10": 0.5}
    measures = replace(Measures("run-1", 3, BASE, PLAN, ledger_head=HEAD, values=values), **changes)
    asked = message_to(5, kind=MessageType.EVALUATE)
    return Message(measures_to_record(measures, names=NAMES), reply_to=asked)


def test_proper_reply_is_admitted_with_its_sender_numbers_and_head() -> None:
    verdict = _verdict(_reply())
    assert isinstance(verdict, Admitted)
    assert (verdict.sender, verdict.ledger_head) == (5, HEAD)
    assert {name: float(value) for name, value in verdict.arrays.items()} == {"ndcg@10": 0.25, "hr@10": 0.5}


def test_sender_must_have_been_asked_and_counts_once() -> None:
    assert _verdict(_reply(), asked={6: None}) == Quarantined("not-asked")
    assert _verdict(_reply(), seen={5}) == Quarantined("twice")


def test_update_in_place_of_measures_and_another_round_do_not_count() -> None:
    assert _verdict(_reply(round_index=2)) == Quarantined("other-round")
    assert _verdict(Message(RecordDict(), reply_to=message_to(5))) == Quarantined("malformed")


def test_range_is_what_an_honest_client_leaves_once_in_a_thousand_million_replies() -> None:
    reach = math.sqrt(2 * TAIL) * 0.15
    assert isinstance(_verdict(_reply(-reach + 1e-9)), Admitted)
    assert isinstance(_verdict(_reply(CROWD + reach - 1e-9)), Admitted)
    assert _verdict(_reply(-reach - 1e-9)) == Quarantined("out-of-range")
    assert _verdict(_reply(CROWD + reach + 1e-9)) == Quarantined("out-of-range")
    assert _verdict(_reply(-1e-9), replace(MEASURING, noise_std=0.0)) == Quarantined("out-of-range")
    assert isinstance(_verdict(_reply(0.0), replace(MEASURING, noise_std=0.0)), Admitted)
