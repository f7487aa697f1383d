"""Small files that appear whole or not at all, and keys that are kept in such."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def create_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a new file that its owner alone may read; raises ``OSError``, ``FileExistsError`` among them."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        _write(descriptor, text, durable=durable)
    finally:
        os.close(descriptor)
    if durable:
        sync_folder(path.parent)


def replace_file(path: Path, text: str, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file so that after a crash it holds the old text or the new; raises ``OSError``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
        try:
            _write(descriptor, text, durable=durable)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def overwrite_file(path: Path, text: str) -> None:
    """Write a small file over its old content, spaces up to the old length; made when missing; raises ``OSError``.

    One call of the operating system, which a killed process finishes or never begins; ``read_whole`` never sees a part.
    A power cut may leave anything: only for what need not outlive one. Several file systems write a file out before it
    takes another's place, which costs milliseconds; this does not.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _write(descriptor, text.ljust(os.fstat(descriptor).st_size), durable=False)
    finally:
        os.close(descriptor)


def read_whole(path: Path) -> str:
    """Read a small UTF-8 file that ``overwrite_file`` may be writing; raises ``OSError`` or ``ValueError``."""
    with path.open(encoding="utf-8") as file:
        with suppress(OSError):  # a file system without locks: then as good as it gets
            fcntl.flock(file, fcntl.LOCK_SH)
        return file.read()


def sync_folder(folder: Path) -> None:
    """Make a new name inside ``folder`` survive a power cut; raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_hex(path: Path, *, length: int) -> bytes:
    """The bytes that a file spells as hex digits; raises ``OSError``, or ``ValueError`` without any of its content."""
    try:
        content = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        content = b""
    if len(content) != length:
        raise ValueError(f"expected {2 * length} hex digits")
    return content


def _write(descriptor: int, text: str, *, durable: bool) -> None:
    """All of ``text``, on disk when durable."""
    data = text.encode("utf-8")
    while data:
        data = data[os.write(descriptor, data) :]
    if durable:
        os.fsync(descriptor)
