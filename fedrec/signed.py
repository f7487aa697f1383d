"""What the server's signature under an instruction covers: everything that shapes what a client does with it.

An instruction that reaches a client is no proof that the server sent it: the transport knows nodes, not authors.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fedrec.signing import Purpose, SigningKey, is_signed
from fedrec.wire import Address, Instruction

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
    covered = {
        "run_id": instruction.run_id,
        "round_index": instruction.round_index,
        "base_digest": instruction.base_digest,
        "plan_digest": instruction.plan_digest,
        "adapter_digest": adapter_digest,
        "receipt_head": instruction.receipt.head if instruction.receipt else "",
        **address._asdict(),
    }
    return json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()


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
