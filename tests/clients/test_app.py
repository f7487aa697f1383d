"""Whatever happens in a client, the server sees an update or one of six words."""

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from clients.app import app, check_agreement
from clients.replies import Answer
from fedrec.errors import PrivacyError
from fedrec.wire import Instruction, Refusal, RefusalCode, update_from_record
from simulations.local_grid import LocalGrid
from tests.tiny_federation import BASE, PLAN, SCHEMA, TinyMerchant, client_app, context_of, instruction, message_to

SECRET = "user 123 bought X"


class Touchy(TinyMerchant):
    """Raises what it is told to when its data is touched."""

    def __init__(self, error: Exception) -> None:
        super().__init__(0)
        self.error = error
        self.touched = False

    def train_round(self, instruction: Instruction) -> Answer:
        self.touched = True
        raise self.error


def _reply(merchant: Any, asked: Instruction | None = None) -> Message:
    return client_app(lambda partition: merchant)(message_to(5, asked), context_of(0))


def test_update_echoes_the_instruction_and_answers_to_it() -> None:
    asked = message_to(5)
    reply = client_app()(asked, context_of(2))
    answer = update_from_record(reply.content, schema=SCHEMA)
    assert (answer.run_id, answer.round_index, answer.base_digest, answer.agreement_digest) == ("run-1", 3, BASE, PLAN)
    assert answer.arrays["scale"] == np.float32(1 + 2 / 7) - np.float32(0.5)
    assert reply.metadata.dst_node_id == asked.metadata.src_node_id


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(SECRET), "E_INTERNAL"),
        (KeyError(SECRET), "E_INTERNAL"),
        (RecursionError(SECRET), "E_INTERNAL"),
        (MemoryError(SECRET), "E_INTERNAL"),
        (PrivacyError(SECRET), "E_BUDGET"),
        (Refusal(RefusalCode.REPLAY, SECRET), "E_REPLAY"),
    ],
)
def test_exception_leaves_only_its_code(error: Exception, code: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reply = _reply(Touchy(error))
    assert reply.has_error()
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (2, code)
    assert SECRET.encode() not in reply.deflate()
    assert SECRET not in repr(reply)
    assert SECRET not in caplog.text
    assert f"refused={code}" in caplog.text


def test_merchant_that_cannot_be_opened_leaves_only_a_code() -> None:
    def closed(partition: int) -> TinyMerchant:
        raise OSError(SECRET)

    reply = client_app(closed)(message_to(5), context_of(0))
    assert reply.error.reason == "E_INTERNAL"


def test_without_this_app_flower_would_forward_the_text() -> None:
    """The defence is the app's: the grid below it behaves as Flower does."""
    from flwr.clientapp import ClientApp

    bare = ClientApp()

    @bare.train()
    def train(message: Message, context: Any) -> Message:
        raise ValueError(SECRET)

    grid = LocalGrid(bare, clients=1)
    [reply] = grid.send_and_receive([message_to(2)])
    assert SECRET in reply.error.reason


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"base_digest": "c" * 64}, "E_BASE"), ({"agreement_digest": "c" * 64}, "E_PLAN")],
)
def test_other_base_or_plan_is_refused_before_data_is_touched(changes: dict[str, str], code: str) -> None:
    merchant = Touchy(ValueError(SECRET))
    assert _reply(merchant, instruction(**changes)).error.reason == code
    assert not merchant.touched


def test_refusal_tells_its_own_side_what_differs() -> None:
    with pytest.raises(Refusal, match="E_BASE: the instruction is for another base; fetch the base"):
        check_agreement(instruction(base_digest="c" * 64), TinyMerchant(0))
    with pytest.raises(Refusal, match="E_PLAN: the instruction is under another agreement"):
        check_agreement(instruction(agreement_digest="c" * 64), TinyMerchant(0))


def test_malformed_instruction_is_refused_before_data_is_touched() -> None:
    merchant = Touchy(ValueError(SECRET))
    message = message_to(5)
    message.content = RecordDict({"header": ConfigRecord({"a": 1})})
    reply = client_app(lambda partition: merchant)(message, context_of(0))
    assert reply.error.reason == "E_SCHEMA"
    assert not merchant.touched


@pytest.mark.parametrize("wrong", [{"scale": np.zeros(())}, {"norm.weight": np.zeros(5)}])
def test_update_of_another_shape_than_the_schema_stays_home(wrong: dict[str, np.ndarray]) -> None:
    class Odd(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            answer = super().train_round(instruction)
            return answer._replace(arrays=wrong if "scale" in wrong else answer.arrays | wrong)

    assert _reply(Odd(0)).error.reason == "E_INTERNAL"


def test_update_that_is_not_finite_stays_home() -> None:
    class Diverged(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            answer = super().train_round(instruction)
            return answer._replace(arrays=answer.arrays | {"scale": np.array(np.nan)})

    assert _reply(Diverged(0)).error.reason == "E_SCHEMA"


def test_shipped_app_without_a_workspace_refuses() -> None:
    assert app(message_to(5), context_of(0)).error.reason == "E_INTERNAL"


def test_shipped_app_knows_training_measuring_and_counting_alone() -> None:
    for kind in (MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY):
        known = message_to(5, kind=kind)
        assert app(known, context_of(0)).error.reason == "E_INTERNAL"  # registered, though without a workspace
    with pytest.raises(ValueError, match="No train function registered with name 'again'"):
        app(Message(RecordDict(), 5, f"{MessageType.TRAIN}.again"), context_of(0))
