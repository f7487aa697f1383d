"""Ed25519 signatures: who said this, and was it changed since?

Each message is signed for one purpose, so that a signature made for one thing cannot be shown as another.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedrec.errors import ConfigError
from fedrec.privacy.durable import read_hex

_KEY_BYTES = 32


class Purpose(StrEnum):
    """What a signature is for; part of what is signed."""

    PRIVACY_REPORT = "fedrec privacy report 1"
    LEDGER_HEAD = "fedrec ledger head 1"
    INSTRUCTION = "fedrec instruction 1"
    REPLY = "fedrec reply 1"
    CHECKPOINT = "fedrec checkpoint 1"


class SigningKey:
    """A private key in a file of its own, readable by its owner alone; it never leaves its machine."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Use ``create`` or ``load``."""
        self._key = key

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a key and write it to ``path``, 0600.

        Raises:
            ConfigError: the file exists or cannot be written.
        """
        key = Ed25519PrivateKey.generate()
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(key.private_bytes_raw().hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise ConfigError(f"{path}: a key exists; use it, or choose another place") from None
        except OSError as error:
            raise ConfigError(f"{path}: the key cannot be written: {error.strerror}") from None
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key that ``create`` wrote.

        Raises:
            ConfigError: missing, unreadable, or not such a key; its content is never shown.
        """
        return cls(Ed25519PrivateKey.from_private_bytes(_read(path)))

    @property
    def public(self) -> str:
        """The public key, 64 hex digits: what others pin."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes, *, purpose: Purpose) -> str:
        """Return the signature of ``message`` for ``purpose``, 128 hex digits."""
        return self._key.sign(_framed(message, purpose)).hex()


def is_signed(message: bytes, signature: str, *, public: str, purpose: Purpose) -> bool:
    """Whether ``signature`` (hex) was made for ``message`` and ``purpose`` by the owner of ``public`` (hex).

    False for anything malformed: it never raises.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), _framed(message, purpose))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _framed(message: bytes, purpose: Purpose) -> bytes:
    return purpose.value.encode() + b"\n" + message


def _read(path: Path) -> bytes:
    """The 32 bytes of a key file."""
    try:
        return read_hex(path, length=_KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a key: {error}") from None
