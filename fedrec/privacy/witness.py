"""A second, small file that remembers how far a ledger had come: what shows that its end was cut off.

It is written after each line, before anyone is told that the line exists. It also keeps the newest
line that the server countersigned, which even someone who may write both files cannot undo unseen.
"""

import hmac
import json
from pathlib import Path
from typing import Any, NamedTuple

from fedrec.errors import PrivacyError
from fedrec.privacy.durable import overwrite_file, read_whole, replace_file

_PURPOSE = b"fedrec ledger witness 1\n"
_RESTORE = "restore it, or take the ledger as it is with: fedrec privacy ledger verify LEDGER --accept-head"


class Countersigned(NamedTuple):
    """A line's digest (64 hex digits) and the server's Ed25519 signature of it (128 hex digits)."""

    head: str
    signature: str


class Witness(NamedTuple):
    """The newest line known to be on disk, and the newest that the server has seen."""

    sequence: int
    head: str
    countersigned: Countersigned | None = None


def write_witness(witness: Witness, path: Path, *, key: bytes, durable: bool) -> None:
    """Replace the witness, whole or not at all; after a power cut too when it is ``durable``.

    Raises:
        PrivacyError: the file cannot be written.
    """
    values = _plain(witness)
    text = json.dumps(values | {"mac": _mac(values, key=key)}, indent=1) + "\n"
    try:
        if durable:
            replace_file(path, text)
        else:
            overwrite_file(path, text)
    except OSError as error:
        raise PrivacyError(f"{path}: the ledger's witness cannot be written: {error.strerror}") from None


def read_witness(path: Path, *, key: bytes) -> Witness:
    """Read the witness and check that the ledger's key made it.

    Raises:
        PrivacyError: missing, unreadable or altered.
    """
    try:
        values: Any = json.loads(read_whole(path))
        mac = values.pop("mac")
        if not hmac.compare_digest(_mac(values, key=key), mac):
            raise ValueError("another key or text")
        countersigned = values["countersigned"]
        newest = Countersigned(countersigned["head"], countersigned["signature"]) if countersigned else None
        return Witness(values["sequence"], values["head"], newest)
    except FileNotFoundError:
        raise PrivacyError(f"{path}: the ledger's witness is missing; {_RESTORE}") from None
    except OSError as error:
        raise PrivacyError(f"{path}: the ledger's witness cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PrivacyError(f"{path}: the ledger's witness was altered, or the key is another's; {_RESTORE}") from None


def _plain(witness: Witness) -> dict[str, Any]:
    """The witness as JSON has it."""
    countersigned = witness.countersigned._asdict() if witness.countersigned else None
    return {"sequence": witness.sequence, "head": witness.head, "countersigned": countersigned}


def _mac(values: dict[str, Any], *, key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hmac.digest(key, _PURPOSE + text.encode(), "sha256").hex()
