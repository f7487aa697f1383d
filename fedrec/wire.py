"""What crosses between server and clients: with the other ``wire_`` files all that knows Flower's records.

Each message is two records, ``header`` (who, which round, which base and plan, which end of the ledger, a signature)
and ``adapter`` (down) or ``update`` (up): named float32 arrays of a schema that both sides know. Whatever differs in
one byte of structure is refused.
A client that cannot answer sends one of six codes and nothing else: Flower would forward an exception's text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, Error, MessageType, MetricRecord, RecordDict

from fedrec.errors import FedrecError, PrivacyError, WireError
from fedrec.schema import RUN_ID, AdapterSchema, Arrays
from fedrec.wire_arrays import array_record, read_arrays

VERSION = 4
HEADER = "header"
ADAPTER = "adapter"
UPDATE = "update"
HEADER_KEYS = ("version", "run_id", "round_index", "base_digest", "agreement_digest")
ADDRESS_KEYS = ("kind", "recipient", "expires_at")
INSTRUCTION_KEYS = (*HEADER_KEYS, *ADDRESS_KEYS, "receipt_head", "receipt_signature", "signature")
REPLY_ENDS = ("ledger_head", "signature")
REPLY_KEYS = (*HEADER_KEYS, *REPLY_ENDS)
KINDS = (MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY)
ERROR_CODE = 2  # Flower's CLIENT_APP_RAISED_EXCEPTION: the number says no more than that

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")

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


class Receipt(NamedTuple):
    """The server's signature under the newest end of a client's ledger that it has seen.

    A client whose ledger no longer holds that end has lost charges, and must not go on.
    """

    head: str
    signature: str


class Address(NamedTuple):
    """What one client is asked for (one of ``KINDS``), Flower's number of its node, and until when: Unix time, s."""

    kind: str
    recipient: int
    expires_at: int


@dataclass(frozen=True, eq=False)
class Instruction:
    """The server asks for one round.

    Attributes:
        run_id: 1 to 128 of ``A-Za-z0-9._-``.
        round_index: >= 1.
        base_digest: sha256 of the frozen base, 64 hex digits.
        agreement_digest: sha256 of all that was agreed on, the privacy plan included, 64 hex digits.
        adapter: current shared arrays by name, float32.
        receipt: for this client alone; None when the server has seen nothing of it yet.
        address: to whom; None until it is addressed, and never on the wire.
        signature: the server's over all of this, see ``fedrec.signed``; 128 hex digits once it is addressed.
    """

    run_id: str
    round_index: int
    base_digest: str
    agreement_digest: str
    adapter: Arrays
    receipt: Receipt | None = None
    address: Address | None = None
    signature: str = ""


@dataclass(frozen=True, eq=False)
class Update:
    """A client's answer.

    Attributes:
        run_id, round_index, base_digest, agreement_digest: the header it answers to.
        ledger_head: keyed hash of the ledger's entry for this round, 64 hex digits; tells nothing without the key.
        arrays: noised descent direction by array name, float32.
        signature: the client's over all of this, see ``fedrec.signed``; 128 hex digits, or none in a simulation.
    """

    run_id: str
    round_index: int
    base_digest: str
    agreement_digest: str
    ledger_head: str
    arrays: Arrays
    signature: str = ""


def instruction_to_record(instruction: Instruction, *, encoded: ArrayRecord | None = None) -> RecordDict:
    """Pack a signed ``instruction``; ``encoded`` is its adapter from ``array_record``, shared by all who are asked.

    Raises:
        WireError: it is not signed, a field is out of range or an array not finite.
    """
    arrays = array_record(instruction.adapter) if encoded is None else encoded
    return RecordDict({HEADER: _instruction_header(instruction), ADAPTER: arrays})


def update_to_record(update: Update) -> RecordDict:
    """Pack ``update``; raises ``WireError`` when a field is out of range or an array not finite."""
    header = header_record(update, dict(zip(REPLY_ENDS, checked_ends(vars(update)), strict=True)))
    return RecordDict({HEADER: header, UPDATE: array_record(update.arrays)})


def instruction_from_record(record: RecordDict, *, schema: AdapterSchema) -> Instruction:
    """Unpack what a server sent.

    Returns:
        The instruction; its arrays are writable copies in the schema's order.

    Raises:
        WireError: anything but the exact keys, types, shapes, byte lengths and finite numbers.
    """
    header, arrays = open_message(record, ADAPTER, INSTRUCTION_KEYS, kind=ArrayRecord)
    receipt = _checked_receipt(header["receipt_head"], header["receipt_signature"])
    address = _checked_address(*(header[name] for name in ADDRESS_KEYS))
    signature = _checked_signature(header["signature"], "signature")
    adapter = read_arrays(arrays, schema)
    return Instruction(*checked_header(header), adapter=adapter, receipt=receipt, address=address, signature=signature)


def update_from_record(record: RecordDict, *, schema: AdapterSchema) -> Update:
    """Unpack what a client sent; raises ``WireError`` exactly as ``instruction_from_record`` does."""
    header, arrays = open_message(record, UPDATE, REPLY_KEYS, kind=ArrayRecord)
    head, signature = checked_ends(header)
    return Update(*checked_header(header), ledger_head=head, arrays=read_arrays(arrays, schema), signature=signature)


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
    """Return run_id, round_index, base_digest, agreement_digest; refuse the first that is malformed."""
    run_id, round_index = values["run_id"], values["round_index"]
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise WireError("header run_id: expected 1 to 128 letters, digits, dots, dashes or underscores")
    if type(round_index) is not int or round_index < 1:  # a bool is an int to isinstance
        raise WireError("header round_index: expected a whole number >= 1")
    digests = [checked_digest(values[name], name) for name in ("base_digest", "agreement_digest")]
    return run_id, round_index, digests[0], digests[1]


def checked_digest(value: object, name: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise WireError(f"header {name}: expected 64 lower-case hex digits")
    return value


def checked_ends(values: Mapping[str, object]) -> tuple[str, str]:
    """Return the ledger's end and the signature of a reply; whether the signature holds is for the server to say."""
    signature = values["signature"]
    if signature != "":
        _checked_signature(signature, "signature")
    return checked_digest(values["ledger_head"], "ledger_head"), cast(str, signature)


def _checked_receipt(head: object, signature: object) -> Receipt | None:
    """Both or neither; whether the signature holds is for the client to say."""
    if head == "" and signature == "":
        return None
    checked = _checked_signature(signature, "receipt_signature")
    return Receipt(checked_digest(head, "receipt_head"), checked)


def _checked_signature(value: object, name: str) -> str:
    if not isinstance(value, str) or not _SIGNATURE.fullmatch(value):
        raise WireError(f"header {name}: expected 128 lower-case hex digits")
    return value


def _checked_address(kind: object, recipient: object, expires_at: object) -> Address:
    """Structure alone; whether it is this client's and in time is for the client to say."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise WireError(f"header kind: expected one of {', '.join(KINDS)}")
    for name, value in (("recipient", recipient), ("expires_at", expires_at)):
        if type(value) is not int or not 0 <= value < 2**64:
            raise WireError(f"header {name}: expected a whole number >= 0 of at most 64 bits")
    return Address(kind, cast(int, recipient), cast(int, expires_at))


def header_record(message: object, ends: Mapping[str, str | int]) -> ConfigRecord:
    """The fields that all messages share, checked, which ``message`` has as attributes; and then ``ends``."""
    common: tuple[ConfigRecordValues, ...] = (VERSION, *checked_header(vars(message)))
    return ConfigRecord({**dict(zip(HEADER_KEYS, common, strict=True)), **ends})


def _instruction_header(instruction: Instruction) -> ConfigRecord:
    receipt = _checked_receipt(*(instruction.receipt or ("", ""))) or Receipt("", "")
    if instruction.address is None:
        raise WireError("instruction: expected it to be addressed and signed before it is sent")
    ends = (*receipt, _checked_signature(instruction.signature, "signature"))
    values = (*_checked_address(*instruction.address), *ends)
    return header_record(instruction, dict(zip(INSTRUCTION_KEYS[len(HEADER_KEYS) :], values, strict=True)))


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
