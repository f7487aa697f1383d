"""To a message to measure, a client answers with the agreed metrics or with one of the six words."""

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from clients.replies import Answer
from fedrec.errors import PrivacyError
from fedrec.wire import Instruction, Refusal, RefusalCode
from fedrec.wire_metrics import measures_from_record
from tests.tiny_federation import BASE, PLAN, TinyMerchant, client_app, context_of, head_of, instruction, message_to

SECRET = "user 123 bought X"


class Measuring(TinyMerchant):
    """Answers as it is told to, and notes whether its data was touched."""

    def __init__(self, answer: Exception | dict[str, Any]) -> None:
        super().__init__(0)
        self.answer = answer
        self.touched = False

    def measure_round(self, instruction: Instruction) -> Answer:
        self.touched = True
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer, head_of(0, 3))


def _reply(merchant: Any, asked: Instruction | None = None) -> Message:
    return client_app(lambda partition: merchant)(message_to(5, asked, kind=MessageType.EVALUATE), context_of(0))


def test_measures_echo_the_instruction_and_answer_to_it() -> None:
    asked = message_to(5, kind=MessageType.EVALUATE)
    reply = client_app()(asked, context_of(2))
    answer = measures_from_record(reply.content, names=TinyMerchant.metrics)
    assert (answer.run_id, answer.round_index, answer.base_digest, answer.agreement_digest) == ("run-1", 3, BASE, PLAN)
    assert answer.values == {"ndcg@10": float(np.float32(0.2)), "hr@10": float(np.float32(0.4))}
    assert answer.ledger_head == head_of(2, 1003)
    assert reply.metadata.dst_node_id == asked.metadata.src_node_id


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ValueError(SECRET), "E_INTERNAL"),
        (PrivacyError(SECRET), "E_BUDGET"),
        (Refusal(RefusalCode.PLAN, SECRET), "E_PLAN"),
        ({"ndcg@10": np.float32(0.1)}, "E_SCHEMA"),
        ({"ndcg@10": np.float32(0.1), "hr@10": np.float32(0.1), "people": np.float32(80)}, "E_SCHEMA"),
        ({"ndcg@10": np.float32(np.nan), "hr@10": np.float32(0.1)}, "E_SCHEMA"),
        ({"ndcg@10": np.ones(3), "hr@10": np.float32(0.1)}, "E_INTERNAL"),
    ],
)
def test_anything_but_the_agreed_finite_numbers_leaves_only_a_code(answer: Any, code: str, caplog: Any) -> None:
    reply = _reply(Measuring(answer))
    assert (reply.error.code, reply.error.reason) == (2, code)
    assert not reply.has_content()
    assert SECRET not in repr(reply)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("changes", "code"), [({"base_digest": "c" * 64}, "E_BASE"), ({"agreement_digest": "c" * 64}, "E_PLAN")]
)
def test_other_base_or_plan_is_refused_before_data_is_touched(changes: dict[str, str], code: str) -> None:
    merchant = Measuring({})
    assert _reply(merchant, instruction(**changes)).error.reason == code
    assert not merchant.touched


def test_malformed_instruction_is_refused_before_data_is_touched() -> None:
    merchant, message = Measuring({}), message_to(5, kind=MessageType.EVALUATE)
    message.content = RecordDict({"header": ConfigRecord({"a": 1})})
    assert client_app(lambda partition: merchant)(message, context_of(0)).error.reason == "E_SCHEMA"
    assert not merchant.touched
