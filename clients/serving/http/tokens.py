"""Who may ask what: tokens of 256 random bits, of which the file keeps a hash and the shop the only copy.

A line of the file is ``name scope[,scope...] sha256``; ``#`` begins a comment.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fedrec.errors import ConfigError

RECOMMEND, SEARCH, EXPLAIN, EVENTS = "recommend", "search", "explain", "events"
FORGET, METRICS, DEBUG = "forget", "metrics", "debug"
SCOPES = (RECOMMEND, SEARCH, EXPLAIN, EVENTS, FORGET, METRICS, DEBUG)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Holder:
    """Whoever shows a token: a name, and what it may ask."""

    name: str
    scopes: frozenset[str]


ANYBODY_HERE = Holder("", frozenset(SCOPES) - {FORGET, DEBUG})  # on this machine, where there are no tokens


class Tokens:
    """Hashes of tokens and whose they are."""

    def __init__(self, holders: Collection[tuple[bytes, Holder]]) -> None:
        self._holders = tuple(holders)

    @property
    def names(self) -> frozenset[str]:
        """Of all holders."""
        return frozenset(holder.name for _, holder in self._holders)

    def holder_of(self, token: str) -> Holder | None:
        """Whose token this is; how long it takes tells nothing about how nearly right a wrong one is."""
        shown, found = digest_of(token), None
        for digest, holder in self._holders:
            if hmac.compare_digest(digest, shown):
                found = holder
        return found


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens' hashes.

    Raises:
        ConfigError: unreadable, writable by others, without a token, or a line is malformed; names file and line.
    """
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if mode & 0o022:
        raise ConfigError(f"{path}: others may write this file (mode {mode:04o}); chmod 600 it")
    holders: dict[str, tuple[bytes, Holder]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (words := line.split("#")[0].split()):
            continue
        if len(words) != 3 or not _DIGEST.fullmatch(words[2]):
            raise ConfigError(f"{path}: line {number}: expected `name scope[,scope] sha256`; see fedrec tokens new")
        try:
            holder = _holder(words[0], words[1].split(","))
        except ConfigError as error:
            raise ConfigError(f"{path}: line {number}: {error}") from None
        if holder.name in holders:
            raise ConfigError(f"{path}: line {number}: {holder.name} has a token above; use a name once")
        holders[holder.name] = bytes.fromhex(words[2]), holder
    if not holders:
        raise ConfigError(f"{path}: holds no token; make one with fedrec tokens new NAME --file {path}")
    return Tokens(holders.values())


def new_token(path: Path, name: str, scopes: Collection[str]) -> str:
    """Make a token, add its hash to the file, and return it: nobody can show it again.

    Raises:
        ConfigError: name or scope is none, the name has a token, or the file cannot be used.
    """
    holder = _holder(name, scopes)
    ends_whole = True
    if path.exists() and path.stat().st_size:
        known = read_tokens(path)
        if name in known.names:
            raise ConfigError(f"{path}: {name} has a token; take its line out to make another")
        ends_whole = path.read_bytes().endswith(b"\n")
    token = secrets.token_urlsafe(32)
    line = f"{holder.name} {','.join(sorted(holder.scopes))} {digest_of(token).hex()}\n"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.write(line if ends_whole else f"\n{line}")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return token


def _holder(name: str, scopes: Collection[str]) -> Holder:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"token name {name[:80]!r}: expected up to 64 letters, digits, dots, dashes")
    if not scopes or set(scopes) - set(SCOPES):
        wrong = ",".join(scopes)
        raise ConfigError(f"scope {wrong[:80]!r}: expected some of {','.join(SCOPES)}")
    return Holder(name, frozenset(scopes))


def digest_of(token: str) -> bytes:
    """What the file keeps of a token: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", errors="replace")).digest()
