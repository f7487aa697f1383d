"""Who may take part: the operator's own list, ``clients.json`` in the state folder, with which SuperLink must agree.

SuperLink's list of nodes follows from this one and never the other way round: it can be lost with its database, and it
can be changed by whoever reaches its port.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from pydantic import Field, TypeAdapter

from fedrec.errors import ConfigError, RunError
from fedrec.locks import take
from fedrec.privacy.durable import replace_file
from server.control import Control

log = logging.getLogger(__name__)

FILE = "clients.json"
FORMAT = 1
_LOCK = "clients.lock"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """A client that was enrolled.

    Attributes:
        name: what the operator calls it; public.
        node_key: with which it proves to SuperLink who it is, OpenSSH form, P-384.
        reply_key: with which it signs replies, Ed25519, 64 hex digits.
        weight: public weight of its replies, > 0.
        enrolled_at: when, UTC.
        expires_on: from this day on it is asked nothing; None never.
        revoked_at: since when it is refused; None when it is not.
        node_id: Flower's number for it; None while SuperLink does not know it.
    """

    name: str
    node_key: str
    reply_key: str
    enrolled_at: datetime
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    expires_on: date | None = None
    revoked_at: datetime | None = None
    node_id: int | None = None

    def is_active(self, now: datetime) -> bool:
        """Whether it may take part now."""
        return self.revoked_at is None and (self.expires_on is None or now.date() < self.expires_on)

    def state(self, now: datetime) -> str:
        """In a word: active, revoked or expired."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.is_active(now) else "expired"

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The node key itself.

        Raises:
            ConfigError: it is not an ECDSA key on P-384.
        """
        try:
            key: object = serialization.load_ssh_public_key(self.node_key.encode("utf-8"))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise ConfigError(f"{self.name}: node key: expected an ECDSA key on NIST P-384, as fedrec join makes it")
        return key


@dataclass(frozen=True)
class Registry:
    """All members that ever were, oldest first; every change gives a new one."""

    members: tuple[Member, ...] = ()

    def active(self, now: datetime) -> list[Member]:
        """Those that may take part now."""
        return [member for member in self.members if member.is_active(now)]

    def is_settled(self, now: datetime) -> bool:
        """Whether SuperLink was told of everybody who may take part, and of nobody who was revoked."""
        return all(
            one.node_id is None if one.revoked_at is not None else one.node_id is not None or not one.is_active(now)
            for one in self.members
        )

    def with_member(self, new: Member) -> "Registry":
        """Enrol one more.

        Raises:
            ConfigError: malformed; or the name is in use, or a key was ever used. SuperLink takes no key twice.
        """
        if not _NAME.fullmatch(new.name):
            raise ConfigError(f"name={new.name[:80]!r}: expected 1 to 64 of a-z, 0-9, '.', '_', '-', no sign in front")
        if not 0 < new.weight < float("inf"):
            raise ConfigError(f"weight={new.weight}: expected a number > 0")
        if not _HEX.fullmatch(new.reply_key):
            raise ConfigError(f"{new.name}: reply key: expected 64 hex digits")
        key = new.public_key
        for old in self.members:
            if old.name == new.name and old.revoked_at is None:
                raise ConfigError(f"{new.name}: enrolled already; revoke it first to enrol it with other keys")
            if old.public_key == key or old.reply_key == new.reply_key:
                which = "node key" if old.public_key == key else "reply key"
                raise ConfigError(
                    f"{new.name}: this {which} was enrolled for {old.name}; have the client make new keys"
                )
        return Registry((*self.members, new))

    def without(self, name: str, *, now: datetime) -> "Registry":
        """Revoke a member; its keys are refused from now on and for ever.

        Raises:
            ConfigError: nobody of this name takes part.
        """
        if not any(member.name == name and member.revoked_at is None for member in self.members):
            raise ConfigError(f"{name}: no such client is enrolled; see fedrec enrol list")
        return Registry(
            tuple(
                replace(member, revoked_at=now) if member.name == name and member.revoked_at is None else member
                for member in self.members
            )
        )


_MEMBERS = TypeAdapter(tuple[Member, ...])


def load_registry(state: Path) -> Registry:
    """Read ``clients.json``; nobody when there is none yet.

    Raises:
        RunError: it cannot be read or is malformed.
    """
    path = state / FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise RunError(f"{path}: format {values['format']}, expected {FORMAT}; use the fedrec that wrote it")
        return Registry(_MEMBERS.validate_python(values["members"]))
    except FileNotFoundError:
        return Registry()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{path}: not a list of clients; restore it from a copy") from None


def change_registry(state: Path, change: Callable[[Registry], Registry]) -> Registry:
    """Read, change and write the list while nobody else does; return it.

    Raises:
        RunError: it cannot be read or written. Whatever ``change`` raises leaves the list as it was.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take(state / _LOCK, waits=True)
    except OSError as error:
        raise RunError(f"{state}: cannot be used as the state folder: {error.strerror}") from None
    try:
        before = load_registry(state)
        after = change(before)
        if after != before:
            document = {"format": FORMAT, "members": [asdict(member) for member in after.members]}
            replace_file(state / FILE, json.dumps(document, indent=1, default=str) + "\n")
        return after
    except OSError as error:
        raise RunError(f"{state / FILE}: cannot be written: {error.strerror}") from None
    finally:
        os.close(lock)


def sync(state: Path, control: Control, *, now: datetime) -> Registry:
    """Make SuperLink know the active members and nobody who was revoked, and remember its numbers; return the list.

    It never takes back a key that it gave up. So whoever has expired is kept there, though asked nothing: a clock that
    jumps ahead for a moment would else lock everybody out for ever.

    Raises:
        RunError: SuperLink does not answer; the list cannot be read or written.
    """

    def settle(registry: Registry) -> Registry:
        known = {node.public_key: node.node_id for node in control.nodes()}
        kept = {public_key_to_bytes(one.public_key): one for one in registry.members if one.revoked_at is None}
        for key in known.keys() - kept.keys():
            control.unregister(known[key])
        numbers = {
            one.node_key: known.get(key) or (_registered(control, one) if one.is_active(now) else None)
            for key, one in kept.items()
        }
        return Registry(tuple(replace(member, node_id=numbers.get(member.node_key)) for member in registry.members))

    return change_registry(state, settle)


def _registered(control: Control, member: Member) -> int | None:
    """SuperLink's new number for a member; None when it refuses, which must not keep the others out."""
    try:
        return control.register(member.public_key)
    except RunError as error:
        log.warning("client=%s registered=no reason=%s", member.name, error)
        return None
