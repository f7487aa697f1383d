"""Nothing but the agreed structure crosses, in either direction; every deviation has its own message."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from fedrec.errors import FedrecError, PrivacyError, WireError
from fedrec.wire import (
    Address,
    Refusal,
    RefusalCode,
    instruction_from_record,
    instruction_to_record,
    payload_bytes,
    refusal_code,
    refusal_from_error,
    refusal_to_error,
    update_from_record,
    update_to_record,
)
from tests.tiny_federation import BASE, HEAD, PLAN, SCHEMA, arrays, instruction, signed, update

NAMES = [spec.name for spec in SCHEMA]
COMMON = {"version": 4, "run_id": "run-1", "round_index": 3, "base_digest": BASE, "agreement_digest": PLAN}
HEADER = COMMON | {"ledger_head": HEAD, "signature": ""}
ADDRESS = Address("train", 5, 1_800_000_000)
ASKED = (
    COMMON
    | {"kind": "train", "recipient": 5, "expires_at": 1_800_000_000}
    | {"receipt_head": "", "receipt_signature": ""}
)


def _everything_in(record: RecordDict) -> dict[str, Any]:
    """A record as plain values, array bytes included."""
    return {
        key: {name: value.data if isinstance(value, Array) else value for name, value in part.items()}
        for key, part in record.items()
    }


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def test_golden_instruction_holds_these_keys_and_no_other() -> None:
    asked = signed(address=ADDRESS)
    header = ASKED | {"signature": asked.signature}
    expected = {"header": header, "adapter": {name: _npy(values) for name, values in arrays(0.5).items()}}
    assert _everything_in(instruction_to_record(asked)) == expected


def test_golden_update_holds_these_keys_and_no_other() -> None:
    expected = {"header": HEADER, "update": {name: _npy(values) for name, values in arrays(0.25).items()}}
    assert _everything_in(update_to_record(update())) == expected


def test_golden_refusals_are_six_words() -> None:
    words = {"E_INTERNAL", "E_BUDGET", "E_PLAN", "E_BASE", "E_SCHEMA", "E_REPLAY"}
    assert {code.value for code in RefusalCode} == words
    assert {(refusal_to_error(code).code, refusal_to_error(code).reason) for code in RefusalCode} == {
        (2, word) for word in words
    }


def test_both_messages_come_back_as_they_went() -> None:
    asked = instruction_from_record(instruction_to_record(signed(address=ADDRESS)), schema=SCHEMA)
    assert asked.address == ADDRESS
    answer = update_from_record(update_to_record(update()), schema=SCHEMA)
    for message, values, number in ((asked, asked.adapter, 0.5), (answer, answer.arrays, 0.25)):
        assert (message.run_id, message.round_index) == ("run-1", 3)
        assert (message.base_digest, message.agreement_digest) == (BASE, PLAN)
        assert list(values) == NAMES
        for spec in SCHEMA:
            assert values[spec.name].dtype == np.float32
            np.testing.assert_array_equal(values[spec.name], np.full(spec.shape, number))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("run_id", "", "header run_id: expected 1 to 128"),
        ("run_id", "x" * 129, "header run_id: expected 1 to 128"),
        ("run_id", "run 1\n", "header run_id: expected 1 to 128"),
        ("run_id", 5, "header run_id: expected 1 to 128"),
        ("round_index", 0, "header round_index: expected a whole number >= 1"),
        ("round_index", True, "header round_index: expected a whole number >= 1"),
        ("round_index", 1.0, "header round_index: expected a whole number >= 1"),
        ("base_digest", "A" * 64, "header base_digest: expected 64 lower-case hex digits"),
        ("base_digest", 7, "header base_digest: expected 64 lower-case hex digits"),
        ("agreement_digest", "b" * 63, "header agreement_digest: expected 64 lower-case hex digits"),
        ("agreement_digest", [PLAN], "header agreement_digest: expected 64 lower-case hex digits"),
        ("ledger_head", "", "header ledger_head: expected 64 lower-case hex digits"),
        ("ledger_head", 12, "header ledger_head: expected 64 lower-case hex digits"),
        ("signature", "d" * 127, "header signature: expected 128 lower-case hex digits"),
        ("signature", "D" * 128, "header signature: expected 128 lower-case hex digits"),
        ("signature", 0, "header signature: expected 128 lower-case hex digits"),
        ("version", 2, "header version: expected 4; use the same fedrec on both sides"),
        ("version", True, "header version: expected 4; use the same fedrec on both sides"),
    ],
)
def test_header_field_of_another_type_or_range_is_refused(key: str, value: Any, said: str) -> None:
    record = update_to_record(update())
    record["header"] = ConfigRecord(HEADER | {key: value})
    with pytest.raises(WireError, match=said):
        update_from_record(record, schema=SCHEMA)


def test_sender_cannot_pack_a_bad_header_either() -> None:
    with pytest.raises(WireError, match="header round_index"):
        instruction_to_record(signed(instruction(round_index=0)))
    with pytest.raises(WireError, match="instruction: expected it to be addressed and signed before it is sent"):
        instruction_to_record(instruction())
    for field, value in (("kind", "system"), ("recipient", -1), ("expires_at", 0.5)):
        with pytest.raises(WireError, match=f"header {field}: expected"):
            instruction_to_record(replace(signed(), address=ADDRESS._replace(**{field: value})))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("kind", "system", "header kind: expected one of train, evaluate, query"),
        ("kind", "Train", "header kind: expected one of train, evaluate, query"),
        ("kind", 1, "header kind: expected one of train, evaluate, query"),
        ("recipient", "5", "header recipient: expected a whole number >= 0 of at most 64 bits"),
        ("recipient", True, "header recipient: expected a whole number >= 0 of at most 64 bits"),
        ("recipient", -1, "header recipient: expected a whole number >= 0 of at most 64 bits"),
        ("recipient", 2**64, "header recipient: expected a whole number >= 0 of at most 64 bits"),
        ("expires_at", 1e9, "header expires_at: expected a whole number >= 0 of at most 64 bits"),
        ("signature", "", "header signature: expected 128 lower-case hex digits"),
        ("signature", "D" * 128, "header signature: expected 128 lower-case hex digits"),
        ("signature", b"d" * 128, "header signature: expected 128 lower-case hex digits"),
    ],
)
def test_address_or_signature_of_another_form_is_refused(key: str, value: Any, said: str) -> None:
    record = instruction_to_record(signed())
    record["header"] = ConfigRecord(dict(record["header"]) | {key: value})
    with pytest.raises(WireError, match=said):
        instruction_from_record(record, schema=SCHEMA)


@pytest.mark.parametrize("number", [0, 2**63, 2**64 - 1])
def test_every_node_number_of_flowers_crosses_its_wire(number: int) -> None:
    """They are random 64-bit numbers, and Flower's own encoding must bring them back."""
    record = instruction_to_record(signed(address=ADDRESS._replace(recipient=number)))
    there = recorddict_from_proto(recorddict_to_proto(record))
    address = instruction_from_record(there, schema=SCHEMA).address
    assert address is not None
    assert address.recipient == number


@pytest.mark.parametrize("change", ["extra", "missing"])
def test_header_has_exactly_its_fields(change: str) -> None:
    record = update_to_record(update())
    record["header"] = ConfigRecord(
        HEADER | {"num-examples": 10} if change == "extra" else {k: v for k, v in HEADER.items() if k != "run_id"}
    )
    with pytest.raises(WireError, match="header: expected exactly the fields version, run_id, round_index"):
        update_from_record(record, schema=SCHEMA)


def test_message_has_exactly_its_two_records() -> None:
    said = "message: expected exactly the records header and update"
    extra = update_to_record(update())
    extra["metrics"] = MetricRecord({"loss": 0.1})
    with pytest.raises(WireError, match=said):
        update_from_record(extra, schema=SCHEMA)
    with pytest.raises(WireError, match=said):
        update_from_record(instruction_to_record(signed()), schema=SCHEMA)
    with pytest.raises(WireError, match=said):
        update_from_record(RecordDict(), schema=SCHEMA)


def test_records_have_their_own_kind() -> None:
    record = RecordDict({"header": MetricRecord({"version": 1}), "update": ArrayRecord()})
    with pytest.raises(WireError, match="message: expected header to hold settings and update to hold arrays"):
        update_from_record(record, schema=SCHEMA)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("user 123 bought X"), "E_INTERNAL"),
        (FedrecError("x"), "E_INTERNAL"),
        (MemoryError(), "E_INTERNAL"),
        (PrivacyError("budget"), "E_BUDGET"),
        (WireError("shape"), "E_SCHEMA"),
        (Refusal(RefusalCode.REPLAY, "round 3 again"), "E_REPLAY"),
        (Refusal(RefusalCode.PLAN), "E_PLAN"),
    ],
)
def test_any_exception_becomes_one_code(error: Exception, code: str) -> None:
    packed = refusal_to_error(refusal_code(error))
    assert (packed.reason, refusal_from_error(packed)) == (code, RefusalCode(code))


def test_refusal_says_its_code_and_why_to_its_own_side() -> None:
    assert str(Refusal(RefusalCode.BASE, "another base")) == "E_BASE: another base"
    assert str(Refusal(RefusalCode.BASE)) == "E_BASE"


@pytest.mark.parametrize("reason", ["<class 'ValueError'>:<'user 123'>", "", None, "e_internal"])
def test_foreign_error_text_is_not_taken_over(reason: str | None) -> None:
    assert refusal_from_error(Error(code=0, reason=reason)) is None


def test_payload_counts_array_and_header_bytes_of_any_record() -> None:
    record = update_to_record(update())
    arrays_size = sum(len(name) + len(array.data) for name, array in record["update"].items())
    header_size = sum(len(key) + len(str(value)) for key, value in HEADER.items())
    assert payload_bytes(record) == arrays_size + header_size
    assert payload_bytes(RecordDict({"odd": ConfigRecord({"": "", "empty": []})})) == len("empty") + len("[]")
