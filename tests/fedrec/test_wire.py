"""Nothing but the agreed structure crosses, in either direction; every deviation has its own message."""

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import FedrecError, PrivacyError, WireError
from fedrec.wire import (
    NotFiniteError,
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
from tests.tiny_federation import BASE, HEAD, PLAN, SCHEMA, arrays, instruction, update

NAMES = [spec.name for spec in SCHEMA]
COMMON = {"version": 2, "run_id": "run-1", "round_index": 3, "base_digest": BASE, "plan_digest": PLAN}
HEADER = COMMON | {"ledger_head": HEAD}
ASKED = COMMON | {"receipt_head": "", "receipt_signature": ""}


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
    expected = {"header": ASKED, "adapter": {name: _npy(values) for name, values in arrays(0.5).items()}}
    assert _everything_in(instruction_to_record(instruction())) == expected


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
    asked = instruction_from_record(instruction_to_record(instruction()), schema=SCHEMA)
    answer = update_from_record(update_to_record(update()), schema=SCHEMA)
    for message, values, number in ((asked, asked.adapter, 0.5), (answer, answer.arrays, 0.25)):
        assert (message.run_id, message.round_index) == ("run-1", 3)
        assert (message.base_digest, message.plan_digest) == (BASE, PLAN)
        assert list(values) == NAMES
        for spec in SCHEMA:
            assert values[spec.name].dtype == np.float32
            np.testing.assert_array_equal(values[spec.name], np.full(spec.shape, number))


def test_decoded_arrays_are_copies_that_may_be_written_to() -> None:
    record = instruction_to_record(instruction())
    instruction_from_record(record, schema=SCHEMA).adapter["norm.weight"][:] = 9
    assert instruction_from_record(record, schema=SCHEMA).adapter["norm.weight"].max() == 0.5


def test_any_memory_layout_is_sent_in_c_order() -> None:
    fortran = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3))
    sent = update_to_record(update(arrays=arrays() | {"head.lora_A": fortran}))
    np.testing.assert_array_equal(update_from_record(sent, schema=SCHEMA).arrays["head.lora_A"], fortran)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_number_that_is_not_finite_in_float32_is_neither_sent_nor_read(bad: float) -> None:
    wrong = np.array([0.0, 1.0, bad, 2.0])
    with pytest.raises(NotFiniteError, match=r"array norm\.weight: expected finite float32 numbers"):
        update_to_record(update(arrays=arrays() | {"norm.weight": wrong}))
    with np.errstate(over="ignore"):
        record = _with_array(Array(wrong.astype(np.float32)))
    with pytest.raises(NotFiniteError, match=r"array norm\.weight: expected finite float32 numbers"):
        update_from_record(record, schema=SCHEMA)


def _with_array(array: Array, name: str = "norm.weight") -> RecordDict:
    """An update with one array replaced."""
    record = update_to_record(update())
    record["update"][name] = array
    return record


def _claims(
    data: bytes, *, dtype: str = "float32", shape: tuple[int, ...] = (4,), stype: str = "numpy.ndarray"
) -> Array:
    """An array whose description may have nothing to do with its bytes."""
    return Array(dtype=dtype, shape=shape, stype=stype, data=data)


def _zip_of(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, values)
    assert zipfile.is_zipfile(stream)
    return stream.getvalue()


def _with_header(text: bytes, payload: bytes = bytes(16)) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + payload


GOOD = _npy(np.zeros(4, np.float32))
FORGED = {
    "zip archive": (_claims(_zip_of(np.zeros(4, np.float32))), "npy format 1.0"),
    "pickled objects": (
        _claims(_with_header(b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }")),
        "npy header",
    ),
    "strings": (_claims(_npy(np.array(["a"] * 4))), "npy header"),
    "structured records": (_claims(_npy(np.zeros(4, [("a", "<f4")]))), "npy header"),
    "float64 bytes": (_claims(_npy(np.zeros(4))), "npy header"),
    "big-endian bytes": (_claims(_npy(np.zeros(4, ">f4"))), "npy header"),
    "another shape in the bytes": (_claims(_npy(np.zeros((2, 2), np.float32))), "npy header"),
    "fortran order": (
        _claims(_with_header(b"{'descr': '<f4', 'fortran_order': True, 'shape': (4,), }")),
        "npy header",
    ),
    "74 GiB promised": (
        _claims(_with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (20000000000,), }")),
        "npy header",
    ),
    "format 2.0": (_claims(GOOD.replace(b"NUMPY\x01", b"NUMPY\x02")), "npy format 1.0"),
    "no bytes": (_claims(b""), "npy format 1.0"),
    "magic alone": (_claims(GOOD[:9]), "npy format 1.0"),
    "header cut short": (_claims(GOOD[:40]), "npy header"),
    "huge header": (_claims(_with_header(b" " * 60_000)), "npy header of at most 10000 bytes"),
    "trailing bytes": (_claims(GOOD + b"\0"), "payload of exactly"),
    "missing bytes": (_claims(GOOD[:-1]), "payload of exactly"),
    "another stated type": (_claims(GOOD, dtype="float64"), "float32 of shape"),
    "another stated shape": (_claims(GOOD, shape=(2, 2)), "float32 of shape"),
    "another encoding": (_claims(GOOD, stype="pickle"), "float32 of shape"),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_array_is_refused(case: str) -> None:
    array, said = FORGED[case]
    with pytest.raises(WireError, match=rf"array norm\.weight: expected .*{said}"):
        update_from_record(_with_array(array), schema=SCHEMA)


def test_a_header_that_nests_deeply_is_refused_without_being_parsed() -> None:
    with pytest.raises(WireError, match="npy header"):
        update_from_record(_with_array(_claims(_with_header(b"-" * 9_000 + b"1"))), schema=SCHEMA)


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
        ("plan_digest", "b" * 63, "header plan_digest: expected 64 lower-case hex digits"),
        ("plan_digest", [PLAN], "header plan_digest: expected 64 lower-case hex digits"),
        ("ledger_head", "", "header ledger_head: expected 64 lower-case hex digits"),
        ("ledger_head", 12, "header ledger_head: expected 64 lower-case hex digits"),
        ("version", 1, "header version: expected 2; use the same fedrec on both sides"),
        ("version", True, "header version: expected 2; use the same fedrec on both sides"),
    ],
)
def test_header_field_of_another_type_or_range_is_refused(key: str, value: Any, said: str) -> None:
    record = update_to_record(update())
    record["header"] = ConfigRecord(HEADER | {key: value})
    with pytest.raises(WireError, match=said):
        update_from_record(record, schema=SCHEMA)


def test_sender_cannot_pack_a_bad_header_either() -> None:
    with pytest.raises(WireError, match="header round_index"):
        instruction_to_record(instruction(round_index=0))


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
        update_from_record(instruction_to_record(instruction()), schema=SCHEMA)
    with pytest.raises(WireError, match=said):
        update_from_record(RecordDict(), schema=SCHEMA)


def test_records_have_their_own_kind() -> None:
    record = RecordDict({"header": MetricRecord({"version": 1}), "update": ArrayRecord()})
    with pytest.raises(WireError, match="message: expected header to hold settings and update to hold arrays"):
        update_from_record(record, schema=SCHEMA)


@pytest.mark.parametrize("names", [[*NAMES, "extra"], NAMES[:-1], [*NAMES[:-1], "other"], []])
def test_arrays_have_exactly_the_names_of_the_schema(names: list[str]) -> None:
    record = update_to_record(update())
    record["update"] = ArrayRecord({name: Array(np.zeros(1, np.float32)) for name in names})
    with pytest.raises(WireError, match="arrays: expected exactly the 3 names of the agreed schema"):
        update_from_record(record, schema=SCHEMA)


@given(position=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_damaged_bytes_are_refused_or_still_a_finite_array(position: int, byte: int, cut: int) -> None:
    data = (GOOD[:position] + bytes([byte]) + GOOD[position + 1 :])[: cut or None]
    try:
        read = update_from_record(_with_array(_claims(data)), schema=SCHEMA).arrays["norm.weight"]
    except WireError:
        return
    assert read.shape == (4,)
    assert np.isfinite(read).all()


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        update_from_record(_with_array(_claims(data)), schema=SCHEMA)


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
