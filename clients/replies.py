"""The last reply of a client, kept so that a repeated instruction is answered with the same bytes.

Computing a round twice would release twice what was charged once. The reply is already private, so
keeping it costs nothing.
"""

import errno
import hashlib
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Self

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedrec.errors import RunError
from fedrec.locks import alone
from fedrec.schema import Arrays
from fedrec.wire import Instruction

_LENGTH = 8  # bytes at the start of a safetensors file that say how long its header is


class Answer(NamedTuple):
    """What a merchant hands over: its update or its metrics by name, and the ledger's entry that covers it."""

    arrays: Arrays
    ledger_head: str


class ReplyCache:
    """One file that holds the latest reply and which instruction it answers."""

    def __init__(self, path: Path, *, lock: Path | None = None, durable: bool = True) -> None:
        """Keep the reply at ``path``.

        Args:
            lock: that everybody takes who answers on the same ledger; beside ``path`` when None.
            durable: false trades the reply before the last, when a crash comes in between, for speed; for simulations,
                where nobody asks for it again.
        """
        self._path, self._lock, self._durable = path, lock or path.with_suffix(".lock"), durable

    @classmethod
    def of_run(cls, folder: Path, run_id: str) -> Self:
        """The cache of a run among those that count on one ledger; makes the ledger's folder of replies.

        Raises:
            RunError: it cannot be made.
        """
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made: {error.strerror}") from None
        return cls(folder / f"{run_id}.safetensors", lock=folder / "answering.lock")

    def alone(self) -> AbstractContextManager[None]:
        """Let one process or thread of this client in at a time: two that find a round unanswered would both answer."""
        return alone(self._lock)

    def beside(self, kind: str) -> Self:
        """Return the cache of another kind of reply of the same client, which this one never displaces."""
        return type(self)(
            self._path.with_name(f"{self._path.stem}.{kind}{self._path.suffix}"), lock=self._lock, durable=self._durable
        )

    def keep(self, instruction: Instruction, reply: Arrays) -> None:
        """Replace the kept reply; a part of one is never kept."""
        order = json.dumps(list(reply))  # safetensors sorts by size
        content = save(reply, metadata={"answers": _digest(instruction), "order": order})
        if self._durable:
            temporary = self._path.with_suffix(".tmp")
            temporary.write_bytes(content)
            temporary.replace(self._path)
        else:
            _overwrite(self._path, content)

    def find(self, instruction: Instruction) -> Arrays | None:
        """Return the reply to exactly this instruction, or None."""
        try:
            with safe_open(self._path, framework="numpy") as stored:
                about = stored.metadata() or {}
                if about.get("answers") != _digest(instruction):
                    return None
                return {name: stored.get_tensor(name) for name in json.loads(about["order"])}  # as it was sent
        except (OSError, SafetensorError, KeyError, ValueError):
            return None


def _overwrite(path: Path, content: bytes) -> None:
    """Write a safetensors file over the old one; a process that is killed meanwhile leaves one that cannot be read.

    The length of its header comes last. Putting a new file in the place of the old costs milliseconds where the file
    system writes it out first.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.pwrite(descriptor, bytes(_LENGTH), 0)
        os.ftruncate(descriptor, len(content))
        written = os.pwrite(descriptor, content[_LENGTH:], _LENGTH)
        if written < len(content) - _LENGTH:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.pwrite(descriptor, content[:_LENGTH], 0)
    finally:
        os.close(descriptor)


def _digest(instruction: Instruction) -> str:
    """Digest of all that shapes the reply."""
    digest = hashlib.sha256(
        f"{instruction.run_id}/{instruction.round_index}/{instruction.base_digest}/{instruction.agreement_digest}".encode()
    )
    for name, values in instruction.adapter.items():
        digest.update(name.encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
