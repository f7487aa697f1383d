"""What crosses between server and clients: with ``wire_metrics`` the only file that knows Flower's records.

Each message is two records, ``header`` (who, which round, which base and plan, which end of the ledger) and ``adapter``
(down) or ``update`` (up): named float32 arrays of a schema that both sides know. Whatever differs in one byte of
structure is refused.
A client that cannot answer sends one of six codes and nothing else: Flower would forward an exception's text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, Error, MetricRecord, RecordDict

from fedrec.errors import FedrecError, PrivacyError, WireError
from fedrec.schema import AdapterSchema, Arrays, ArraySpec

VERSION = 2
HEADER = "header"
ADAPTER = "adapter"
UPDATE = "update"
HEADER_KEYS = ("version", "run_id", "round_index", "base_digest", "plan_digest")
INSTRUCTION_KEYS = (*HEADER_KEYS, "receipt_head", "receipt_signature")
UPDATE_KEYS = (*HEADER_KEYS, "ledger_head")
ERROR_CODE = 2  # Flower's CLIENT_APP_RAISED_EXCEPTION: the number says no more than that

_MAGIC = b"\x93NUMPY\x01\x00"
_PREFIX = len(_MAGIC) + 2  # two bytes give the length of the text that follows
_MAX_NPY_HEADER = 10_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

Content = TypeVar("Content", ArrayRecord, MetricRecord)


class RefusalCode(StrEnum):
    """All that an error reply can say."""

    INTERNAL = "E_INTERNAL"
    BUDGET = "E_BUDGET"
    PLAN = "E_PLAN"
    BASE = "E_BASE"
    SCHEMA = "E_SCHEMA"
    REPLAY = "E_REPLAY"


class Refusal(FedrecError):  # noqa: N818  # it is an answer, not a fault
    """A client declines an instruction; its ``code`` alone goes to the server."""

    def __init__(self, code: RefusalCode, reason: str = "") -> None:
        super().__init__(f"{code.value}: {reason}" if reason else code.value)
        self.code = code


class NotFiniteError(WireError):
    """An array of the right structure holds NaN or infinity."""


class Receipt(NamedTuple):
    """The server's signature under the newest end of a client's ledger that it has seen.

    A client whose ledger no longer holds that end has lost charges, and must not go on.
    """

    head: str
    signature: str


@dataclass(frozen=True, eq=False)
class Instruction:
    """The server asks for one round.

    Attributes:
        run_id: 1 to 128 of ``A-Za-z0-9._-``.
        round_index: >= 1.
        base_digest: sha256 of the frozen base, 64 hex digits.
        plan_digest: sha256 of the privacy plan, 64 hex digits.
        adapter: current shared arrays by name, float32.
        receipt: for this client alone; None when the server has seen nothing of it yet.
    """

    run_id: str
    round_index: int
    base_digest: str
    plan_digest: str
    adapter: Arrays
    receipt: Receipt | None = None


@dataclass(frozen=True, eq=False)
class Update:
    """A client's answer.

    Attributes:
        run_id, round_index, base_digest, plan_digest: the header it answers to.
        ledger_head: keyed hash of the ledger's entry for this round, 64 hex digits; tells nothing without the key.
        arrays: noised descent direction by array name, float32.
    """

    run_id: str
    round_index: int
    base_digest: str
    plan_digest: str
    ledger_head: str
    arrays: Arrays


def instruction_to_record(instruction: Instruction) -> RecordDict:
    """Pack ``instruction``; raises ``WireError`` when a field is out of range or an array not finite."""
    return RecordDict({HEADER: _instruction_header(instruction), ADAPTER: _array_record(instruction.adapter)})


def addressed(record: RecordDict, instruction: Instruction, *, receipt: Receipt | None) -> RecordDict:
    """Return the record of ``instruction`` with one client's receipt; the encoded arrays are shared, not copied."""
    return RecordDict({**record, HEADER: _instruction_header(replace(instruction, receipt=receipt))})


def update_to_record(update: Update) -> RecordDict:
    """Pack ``update``; raises ``WireError`` when a field is out of range or an array not finite."""
    header = header_record(update, {"ledger_head": checked_digest(update.ledger_head, "ledger_head")})
    return RecordDict({HEADER: header, UPDATE: _array_record(update.arrays)})


def instruction_from_record(record: RecordDict, *, schema: AdapterSchema) -> Instruction:
    """Unpack what a server sent.

    Returns:
        The instruction; its arrays are writable copies in the schema's order.

    Raises:
        WireError: anything but the exact keys, types, shapes, byte lengths and finite numbers.
    """
    header, arrays = open_message(record, ADAPTER, INSTRUCTION_KEYS, kind=ArrayRecord)
    receipt = _checked_receipt(header["receipt_head"], header["receipt_signature"])
    return Instruction(*checked_header(header), adapter=_read_arrays(arrays, schema), receipt=receipt)


def update_from_record(record: RecordDict, *, schema: AdapterSchema) -> Update:
    """Unpack what a client sent; raises ``WireError`` exactly as ``instruction_from_record`` does."""
    header, arrays = open_message(record, UPDATE, UPDATE_KEYS, kind=ArrayRecord)
    ledger_head = checked_digest(header["ledger_head"], "ledger_head")
    return Update(*checked_header(header), ledger_head=ledger_head, arrays=_read_arrays(arrays, schema))


def refusal_code(error: BaseException) -> RefusalCode:
    """Reduce any exception to the code that may leave the client."""
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, PrivacyError):
        return RefusalCode.BUDGET
    if isinstance(error, WireError):
        return RefusalCode.SCHEMA
    return RefusalCode.INTERNAL


def refusal_to_error(code: RefusalCode) -> Error:
    """Pack a refusal."""
    return Error(code=ERROR_CODE, reason=RefusalCode(code).value)


def refusal_from_error(error: Error) -> RefusalCode | None:
    """Unpack a refusal; None when the error is not one of ours, so that no foreign text reaches a log."""
    known = {code.value: code for code in RefusalCode}
    return known.get(error.reason or "")


def payload_bytes(record: RecordDict) -> int:
    """Bytes of the arrays and header of one message, without Flower's envelope; any record, however malformed."""
    total = 0
    for part in record.values():
        for name, value in part.items():
            total += len(name) + _size(value)
    return total


def _size(value: object) -> int:
    if isinstance(value, Array):
        return len(value.data)
    return 8 if isinstance(value, float) else len(str(value))


def checked_header(values: Mapping[str, object]) -> tuple[str, int, str, str]:
    """Return run_id, round_index, base_digest, plan_digest; refuse the first that is not what both sides agreed on."""
    run_id, round_index = values["run_id"], values["round_index"]
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise WireError("header run_id: expected 1 to 128 letters, digits, dots, dashes or underscores")
    if type(round_index) is not int or round_index < 1:  # a bool is an int to isinstance
        raise WireError("header round_index: expected a whole number >= 1")
    digests = [checked_digest(values[name], name) for name in ("base_digest", "plan_digest")]
    return run_id, round_index, digests[0], digests[1]


def checked_digest(value: object, name: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise WireError(f"header {name}: expected 64 lower-case hex digits")
    return value


def _checked_receipt(head: object, signature: object) -> Receipt | None:
    """Both or neither; whether the signature holds is for the client to say."""
    if head == "" and signature == "":
        return None
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        raise WireError("header receipt_signature: expected 128 lower-case hex digits")
    return Receipt(checked_digest(head, "receipt_head"), signature)


def header_record(message: object, ends: Mapping[str, str]) -> ConfigRecord:
    """The fields that all messages share, checked, which ``message`` has as attributes; and then ``ends``."""
    common: tuple[ConfigRecordValues, ...] = (VERSION, *checked_header(vars(message)))
    return ConfigRecord({**dict(zip(HEADER_KEYS, common, strict=True)), **ends})


def _instruction_header(instruction: Instruction) -> ConfigRecord:
    receipt = _checked_receipt(*(instruction.receipt or ("", ""))) or Receipt("", "")
    return header_record(instruction, {"receipt_head": receipt.head, "receipt_signature": receipt.signature})


def open_message(
    record: RecordDict, key: str, header_keys: tuple[str, ...], *, kind: type[Content]
) -> tuple[ConfigRecord, Content]:
    """Check the two records, their types, the header's keys and version; return both, otherwise unread."""
    if set(record) != {HEADER, key}:
        raise WireError(f"message: expected exactly the records {HEADER} and {key}")
    header, content = record[HEADER], record[key]
    if not isinstance(header, ConfigRecord) or not isinstance(content, kind):
        holds = "arrays" if kind is ArrayRecord else "metrics"
        raise WireError(f"message: expected {HEADER} to hold settings and {key} to hold {holds}")
    if set(header) != set(header_keys):
        raise WireError(f"header: expected exactly the fields {', '.join(header_keys)}")
    if type(header["version"]) is not int or header["version"] != VERSION:
        raise WireError(f"header version: expected {VERSION}; use the same fedrec on both sides")
    return header, content


def _array_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Encode arrays as float32 npy bytes."""
    encoded: dict[str, Array] = {}
    for name, values in arrays.items():
        with np.errstate(over="ignore"):  # what overflows becomes inf and is refused on the next line
            packed = np.asarray(values, dtype="<f4", order="C")
        if not np.isfinite(packed).all():
            raise NotFiniteError(f"array {name}: expected finite float32 numbers")
        encoded[name] = Array(packed)
    return ArrayRecord(encoded)


def _read_arrays(record: ArrayRecord, schema: AdapterSchema) -> Arrays:
    """Decode and check every array of the schema, in its order."""
    if set(record) != {spec.name for spec in schema}:
        raise WireError(f"arrays: expected exactly the {len(schema)} names of the agreed schema")
    return {spec.name: _read_array(record[spec.name], spec) for spec in schema}


def _read_array(array: Array, spec: ArraySpec) -> np.ndarray:
    """Decode npy bytes ourselves: ``numpy.load`` would also open zip archives, strings and records."""
    expected = f"array {spec.name}: expected"
    shape = tuple(int(size) for size in spec.shape)
    if array.stype != "numpy.ndarray" or array.dtype != "float32" or array.shape != shape:
        raise WireError(f"{expected} float32 of shape {shape}")
    data = array.data
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _PREFIX:
        raise WireError(f"{expected} npy format 1.0")
    start = _PREFIX + int.from_bytes(data[len(_MAGIC) : _PREFIX], "little")
    if start > _MAX_NPY_HEADER:
        raise WireError(f"{expected} an npy header of at most {_MAX_NPY_HEADER} bytes")
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode("ascii")
    if data[_PREFIX:start].rstrip(b" \n") != described:
        raise WireError(f"{expected} an npy header for '<f4' in C order of shape {shape}")
    if len(data) - start != 4 * int(np.prod(shape, dtype=np.int64)):
        raise WireError(f"{expected} a payload of exactly its shape's size")
    values = np.frombuffer(data, dtype="<f4", offset=start).reshape(shape).astype(np.float32)  # a writable copy
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{expected} finite float32 numbers")
    return values
