"""Which of many clients were ever asked, a byte for each: what tells a ledger that was lost from one never made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedrec.errors import PrivacyError
from fedrec.locks import alone
from fedrec.runfolder import write_bytes

_NEVER, _ONCE = b"\0", b"\1"


@dataclass(frozen=True)
class FirstUse:
    """A file with a byte a client. Where it is missing or cut short, everybody counts as asked: nothing is made anew.

    Attributes:
        path: of the file; its lock lies beside it.
    """

    path: Path

    def create(self, clients: int) -> None:
        """Begin with ``clients`` whom nobody has asked yet; an earlier list is replaced.

        Raises:
            RunError: the disk refuses.
        """
        write_bytes(self.path, _NEVER * clients)

    def was(self, client: int) -> bool:
        """Whether a client, >= 0, was asked before.

        Raises:
            PrivacyError: the file is there and cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as stream:
                stream.seek(client)
                return stream.read(1) != _NEVER
        except FileNotFoundError:
            return True
        except OSError as error:
            raise self._unusable(error) from None

    @contextmanager
    def of(self, client: int) -> Iterator[bool]:
        """Whether this is a client's first time, noted when the block ends without an error.

        What is made in the block is made once, whichever process or thread comes first: the others wait.

        Raises:
            PrivacyError: the file cannot be read or written.
        """
        if self.was(client):
            yield False
            return
        with alone(self.path.with_suffix(".lock")):
            is_first = not self.was(client)
            yield is_first
            if is_first:
                self._note(client)

    def _note(self, client: int) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, _ONCE, client)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> PrivacyError:
        return PrivacyError(f"{self.path}: the list of clients that were asked cannot be used: {error.strerror}")
