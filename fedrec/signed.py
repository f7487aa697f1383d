"""What the server's signature under an instruction covers, and a client's under its reply: everything in them.

That a message arrives is no proof of who wrote it: the transport knows nodes, not authors.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from flwr.app import MessageType

from fedrec.signing import Purpose, SigningKey, is_signed
from fedrec.wire import Address, Instruction, Update
from fedrec.wire_metrics import Measures
from fedrec.wire_statistics import Statistics

AnyReply = Update | Measures | Statistics
Reply = TypeVar("Reply", Update, Measures, Statistics)
Clock = Callable[[], float]  # Unix time, s

LIFETIME_S = 3600  # of an instruction, from when it is signed
SKEW_S = 300  # how far a client's clock may be from the server's


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the names, shapes and float32 bytes of ``arrays`` in their order, hex.

    The order is the schema's on both sides. Names and shapes come first, so they say how many bytes belong to which.
    """
    digest = hashlib.sha256(json.dumps([[name, values.shape] for name, values in arrays.items()]).encode() + b"\n")
    for values in arrays.values():
        digest.update(np.ascontiguousarray(values, dtype="<f4").data)
    return digest.hexdigest()


def instruction_bytes(instruction: Instruction, address: Address, *, adapter_digest: str) -> bytes:
    """Return what is signed: canonical JSON, equal exactly when everything in it is.

    Args:
        instruction: its own address and signature are not looked at.
        address: kind, recipient and expiry.
        adapter_digest: ``arrays_digest`` of the instruction's adapter.
    """
    covered = _round_of(instruction) | {
        "adapter_digest": adapter_digest,
        "receipt_head": instruction.receipt.head if instruction.receipt else "",
        **address._asdict(),
    }
    return _canonical(covered)


def sign_instruction(
    instruction: Instruction, address: Address, *, key: SigningKey, adapter_digest: str
) -> Instruction:
    """Return ``instruction`` addressed to one client and signed; its adapter is shared, not copied."""
    message = instruction_bytes(instruction, address, adapter_digest=adapter_digest)
    return replace(instruction, address=address, signature=key.sign(message, purpose=Purpose.INSTRUCTION))


def is_signed_by(public: str, instruction: Instruction) -> bool:
    """Whether the owner of ``public`` (hex) signed exactly this instruction; False when nobody did."""
    if instruction.address is None:
        return False
    message = instruction_bytes(instruction, instruction.address, adapter_digest=arrays_digest(instruction.adapter))
    return is_signed(message, instruction.signature, public=public, purpose=Purpose.INSTRUCTION)


def reply_bytes(reply: AnyReply, *, sender: int) -> bytes:
    """Return what a client signs: canonical JSON, equal exactly when everything in it is.

    Nothing in it changes when an instruction is answered again, and Ed25519 draws nothing at random, so a repeated
    answer is the same to the byte.

    Args:
        reply: its own signature is not looked at.
        sender: Flower's number of the client's node.
    """
    if isinstance(reply, Measures):
        kind, content = MessageType.EVALUATE, hashlib.sha256(_canonical(reply.values)).hexdigest()
    else:
        kind = MessageType.TRAIN if isinstance(reply, Update) else MessageType.QUERY
        content = arrays_digest(reply.arrays)
    covered = {"content_digest": content, "kind": kind, "ledger_head": reply.ledger_head, "sender": sender}
    return _canonical(_round_of(reply) | covered)


def sign_reply(reply: Reply, *, sender: int, key: SigningKey) -> Reply:
    """Return ``reply`` signed by the client that sends it."""
    return replace(reply, signature=key.sign(reply_bytes(reply, sender=sender), purpose=Purpose.REPLY))


def is_reply_signed_by(public: str, reply: AnyReply, *, sender: int) -> bool:
    """Whether the owner of ``public`` (hex) signed exactly this reply as that of node ``sender``."""
    message = reply_bytes(reply, sender=sender)
    return is_signed(message, reply.signature, public=public, purpose=Purpose.REPLY)


def _round_of(message: Instruction | AnyReply) -> dict[str, object]:
    return {name: getattr(message, name) for name in ("run_id", "round_index", "base_digest", "agreement_digest")}


def _canonical(values: Mapping[str, object]) -> bytes:
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":")).encode()
