"""An array is read back byte by byte: whatever is not the agreed float32 numbers is refused before it is opened."""

import io
import struct
import zipfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import WireError
from fedrec.wire import (
    instruction_from_record,
    instruction_to_record,
    update_from_record,
    update_to_record,
)
from fedrec.wire_arrays import NotFiniteError
from tests.tiny_federation import SCHEMA, arrays, signed, update

NAMES = [spec.name for spec in SCHEMA]


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def test_decoded_arrays_are_copies_that_may_be_written_to() -> None:
    record = instruction_to_record(signed())
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
