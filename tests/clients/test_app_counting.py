"""To a message to count, a client answers with the agreed arrays or with one of the six words."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MessageType

from clients.replies import Answer
from fedrec.errors import PrivacyError
from fedrec.schema import ArraySpec
from fedrec.wire import Instruction, Refusal, RefusalCode
from fedrec.wire_statistics import statistics_from_record
from tests.tiny_federation import BASE, PLAN, TinyMerchant, client_app, context_of, head_of, instruction, message_to

SECRET = "user 123 bought X"
SCHEMA = (ArraySpec("popularity", (3,)), ArraySpec("pairs", (5,)))
ARRAYS = {"pairs": np.arange(5, dtype=np.float32), "popularity": np.ones(3, np.float32)}


class Counting(TinyMerchant):
    """Answers as it is told to, and notes whether its data was touched."""

    statistics_schema = SCHEMA

    def __init__(self, answer: Exception | dict[str, Any]) -> None:
        super().__init__(0)
        self.answer = answer
        self.touched = False

    def count_statistics(self, instruction: Instruction) -> Answer:
        self.touched = True
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer, head_of(0, 3))


def _reply(merchant: Any, asked: Instruction | None = None, *, kind: str = MessageType.QUERY) -> Message:
    return client_app(lambda partition: merchant)(message_to(5, asked, kind=kind), context_of(0))


def test_counts_echo_the_instruction_and_come_in_the_agreed_order() -> None:
    answer = statistics_from_record(_reply(Counting(ARRAYS)).content, schema=SCHEMA)
    assert (answer.run_id, answer.round_index, answer.base_digest, answer.agreement_digest) == ("run-1", 3, BASE, PLAN)
    assert list(answer.arrays) == ["popularity", "pairs"]
    assert answer.arrays["pairs"].tolist() == [0, 1, 2, 3, 4]
    assert answer.ledger_head == head_of(0, 3)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ValueError(SECRET), "E_INTERNAL"),
        (PrivacyError(SECRET), "E_BUDGET"),
        (Refusal(RefusalCode.PLAN, SECRET), "E_PLAN"),
        ({"pairs": ARRAYS["pairs"]}, "E_INTERNAL"),
        (ARRAYS | {"people": np.ones(1, np.float32)}, "E_INTERNAL"),
        (ARRAYS | {"pairs": np.ones(6, np.float32)}, "E_INTERNAL"),
        (ARRAYS | {"pairs": np.full(5, np.nan, np.float32)}, "E_SCHEMA"),
    ],
)
def test_anything_but_the_agreed_finite_arrays_leaves_only_a_code(answer: Any, code: str, caplog: Any) -> None:
    reply = _reply(Counting(answer))
    assert (reply.error.code, reply.error.reason) == (2, code)
    assert not reply.has_content()
    assert SECRET not in repr(reply)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("changes", "code"), [({"base_digest": "c" * 64}, "E_BASE"), ({"agreement_digest": "c" * 64}, "E_PLAN")]
)
def test_other_base_or_plan_is_refused_before_data_is_touched(changes: dict[str, str], code: str) -> None:
    merchant = Counting({})
    assert _reply(merchant, instruction(**changes)).error.reason == code
    assert not merchant.touched


@pytest.mark.parametrize("signed_for", [MessageType.TRAIN, MessageType.EVALUATE])
def test_an_instruction_that_was_signed_for_another_purpose_is_refused(signed_for: str) -> None:
    merchant, message = Counting(ARRAYS), message_to(5, kind=signed_for)
    message.metadata.message_type = MessageType.QUERY
    assert client_app(lambda partition: merchant)(message, context_of(0)).error.reason == "E_PLAN"
    assert not merchant.touched
