"""Where a ledger's three files lie, and its key.

The ledger is a database; the key seals its lines; the witness remembers how far it had come. Keep the
key, better the witness too, where whoever restores backups of the ledger does not.
"""

import os
from pathlib import Path
from typing import NamedTuple, Self

from fedrec.errors import PrivacyError
from fedrec.privacy.durable import create_file, read_hex

_KEY_BYTES = 32


class LedgerFiles(NamedTuple):
    """Paths of the database, of the key (64 hex digits) and of the witness (JSON)."""

    ledger: Path
    key: Path
    witness: Path

    @classmethod
    def beside(cls, ledger: Path) -> Self:
        """``NAME.sqlite`` with ``NAME.key`` and ``NAME.witness.json`` in the same folder."""
        return cls(ledger, ledger.with_suffix(".key"), ledger.with_suffix(".witness.json"))

    @property
    def write_ahead_log(self) -> Path:
        """SQLite's own file beside the ledger: what a crash left to be taken up."""
        return self.ledger.with_name(self.ledger.name + "-wal")


def check_absent(files: LedgerFiles) -> None:
    """Refuse to begin where any part of a ledger is: what is left of a lost one is no fresh budget.

    Raises:
        PrivacyError: names the file that exists, or the folder that does not.
    """
    for path in (*files, files.write_ahead_log):
        if os.path.lexists(path):
            raise PrivacyError(f"{path}: part of a ledger exists; open it, or choose another place")
    for path in files:
        if not path.parent.is_dir():
            raise PrivacyError(f"{path}: the ledger cannot be written: no such folder")


def check_present(files: LedgerFiles) -> None:
    """Refuse to go on without the database or the key.

    Raises:
        PrivacyError: names what is missing and what to do.
    """
    if not files.ledger.exists():
        rest = [path for path in (files.key, files.witness, files.write_ahead_log) if path.exists()]
        if not rest:
            raise PrivacyError(f"{files.ledger}: no ledger here; expected an existing one")
        raise PrivacyError(
            f"{files.ledger}: the ledger was lost ({rest[0].name} is still there): restore a backup; "
            "a lost ledger is never a fresh budget"
        )
    if not files.key.exists():
        raise PrivacyError(f"{files.key}: the ledger's key is missing; restore it, no other key fits")


def create_key(path: Path, *, durable: bool) -> bytes:
    """Make a key from the operating system's entropy; 0600.

    Raises:
        PrivacyError: the file exists or cannot be written.
    """
    key = os.urandom(_KEY_BYTES)
    try:
        create_file(path, key.hex() + "\n", durable=durable)
    except OSError as error:
        raise PrivacyError(f"{path}: the ledger's key cannot be written: {error.strerror}") from None
    return key


def read_key(path: Path) -> bytes:
    """Read a key that ``create_key`` wrote; its content is never shown.

    Raises:
        PrivacyError: unreadable, or not such a key.
    """
    try:
        return read_hex(path, length=_KEY_BYTES)
    except OSError as error:
        raise PrivacyError(f"{path}: the ledger's key cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PrivacyError(f"{path}: not a ledger's key: {error}; restore it, no other key fits") from None
