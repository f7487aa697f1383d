"""The server's voice: the one place where its key is used."""

import time
from dataclasses import dataclass, replace

from fedrec.signed import LIFETIME_S, Clock, sign_instruction
from fedrec.signing import Purpose, SigningKey, is_signed
from fedrec.wire import Address, Instruction, Receipt


@dataclass(frozen=True, eq=False)
class Signer:
    """Signs what goes to clients, and the checkpoints that this server goes on from.

    Attributes:
        key: its public half is what clients pin.
        clock: Unix time, s; an instruction expires ``LIFETIME_S`` after it is signed.
    """

    key: SigningKey
    clock: Clock = time.time

    def receipt(self, head: str) -> Receipt:
        """Sign the newest end of a client's ledger that the server has seen."""
        return Receipt(head, self.key.sign(bytes.fromhex(head), purpose=Purpose.LEDGER_HEAD))

    def seal(self, manifest: bytes) -> str:
        """Sign a checkpoint's manifest."""
        return self.key.sign(manifest, purpose=Purpose.CHECKPOINT)

    def has_sealed(self, manifest: bytes, signature: str) -> bool:
        """Whether this server signed exactly this manifest."""
        return is_signed(manifest, signature, public=self.key.public, purpose=Purpose.CHECKPOINT)

    def addressed(
        self, instruction: Instruction, *, kind: str, recipient: int, head: str | None, adapter_digest: str
    ) -> Instruction:
        """Return ``instruction`` as one client gets it.

        Args:
            instruction: what all are asked.
            kind: Flower's word for what to do with it.
            recipient: node.
            head: newest end of this client's ledger that the server has seen, for the receipt.
            adapter_digest: of the instruction's adapter, computed once for all.
        """
        address = Address(kind, recipient, int(self.clock()) + LIFETIME_S)
        own = replace(instruction, receipt=self.receipt(head) if head else None)
        return sign_instruction(own, address, key=self.key, adapter_digest=adapter_digest)
