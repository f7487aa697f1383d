"""What an operator does with the list of clients, told to SuperLink at once when it runs."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from fedrec.errors import ConfigError, RunError
from fedrec.keycheck import WARN_DAYS, ssh_fingerprint
from fedrec.keyfiles import read_node_public, read_signing_public
from server.control import open_control
from server.registry import Member, change_registry, load_registry, sync
from server.settings import ServerSettings

MAX_DAYS = 3650


@dataclass(frozen=True)
class Enrolled:
    """A member as an operator sees it; ``is_online`` is None while nobody can tell."""

    member: Member
    is_online: bool | None
    now: datetime

    @property
    def days_left(self) -> int | None:
        """Days until it expires; None when it never does, or takes no part any more."""
        expires = self.member.expires_on
        return (expires - self.now.date()).days if expires and self.member.is_active(self.now) else None

    @property
    def warning(self) -> str | None:
        """What to do soon."""
        if self.days_left is None or self.days_left >= WARN_DAYS:
            return None
        return (
            f"{self.member.name}: expires in {self.days_left} days, on {self.member.expires_on}; enrol new keys of it"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        one = self.member
        return {
            "name": one.name,
            "state": one.state(self.now),
            "online": self.is_online,
            "weight": one.weight,
            "enrolled_at": one.enrolled_at.isoformat(timespec="seconds"),
            "expires_on": one.expires_on.isoformat() if one.expires_on else None,
            "days_left": self.days_left,
            "revoked_at": one.revoked_at.isoformat(timespec="seconds") if one.revoked_at else None,
            "node_fingerprint": ssh_fingerprint(one.public_key),
            "reply_key": one.reply_key,
            "node_id": str(one.node_id) if one.node_id else None,  # more digits than a JSON number holds everywhere
        }


def enrol(
    settings: ServerSettings, name: str, *, node_key: Path, reply_key: Path, weight: float, days: int, now: datetime
) -> Enrolled:
    """Let a client take part from now on, for ``days`` days.

    Args:
        settings: of the server.
        name: what to call it.
        node_key: its ``node.pub``.
        reply_key: its ``reply.pub``.
        weight: public weight of its replies, > 0.
        days: until it is refused, 1 to ``MAX_DAYS``.
        now: UTC.

    Raises:
        ConfigError: a key file is malformed; the name or a key is taken; a number is out of range.
        RunError: the list cannot be read or written, or SuperLink refuses: then the client is listed and cannot join.
    """
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"days={days}: expected 1 to {MAX_DAYS}")
    form = serialization.PublicFormat.OpenSSH
    public = read_node_public(node_key).public_bytes(serialization.Encoding.OpenSSH, form).decode("ascii")
    new = Member(
        name, public, read_signing_public(reply_key), now, weight=weight, expires_on=now.date() + timedelta(days=days)
    )
    change_registry(settings.state, lambda registry: registry.with_member(new))
    return _now_known(settings, name, now)


def revoke(settings: ServerSettings, name: str, *, now: datetime) -> Enrolled:
    """Refuse a client from now on; its keys never come back.

    Raises:
        ConfigError: nobody of this name takes part.
        RunError: as ``enrol``.
    """
    change_registry(settings.state, lambda registry: registry.without(name, now=now))
    return _now_known(settings, name, now)


def enrolled(settings: ServerSettings, *, now: datetime) -> list[Enrolled]:
    """Everybody who was ever enrolled, oldest first.

    Raises:
        RunError: the list cannot be read.
    """
    online: set[int] | None = None
    if settings.loopback.is_up():
        with open_control(settings.loopback) as control:
            online = {node.node_id for node in control.nodes() if node.status == "online"}
    return [
        Enrolled(member, None if online is None else member.node_id in online, now)
        for member in load_registry(settings.state).members
    ]


def _now_known(settings: ServerSettings, name: str, now: datetime) -> Enrolled:
    """Tell SuperLink, if it runs; else the server does when it starts."""
    if settings.loopback.is_up():
        with open_control(settings.loopback) as control:
            sync(settings.state, control, now=now)
        one = [one for one in load_registry(settings.state).members if one.name == name][-1]
        if one.is_active(now) and one.node_id is None:
            raise RunError(
                f"{name}: SuperLink takes no key again that it once gave up; fedrec enrol revoke {name}, "
                "and have the client make new keys"
            )
    return [one for one in enrolled(settings, now=now) if one.member.name == name][-1]
