"""The operator's list of clients: what it refuses, that nothing of it is lost, and that SuperLink follows it."""

import json
import multiprocessing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.certificates import new_key
from fedrec.errors import ConfigError, RunError
from server.control import open_control
from server.loopback import Loopback
from server.registry import Member, Registry, change_registry, load_registry, sync
from server.superlink import SuperLink
from tests.tiny_superlink import free_port

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def ssh(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode("ascii")


def member(number: int, **changes: object) -> Member:
    own = Member(f"shop-{number}", ssh(new_key()), f"{number:064x}", enrolled_at=NOW)
    return replace(own, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Shop 7"}, "name='Shop 7': expected 1 to 64 of a-z"),
        ({"name": "-x"}, "name='-x': expected 1 to 64"),
        ({"name": "a" * 65}, "expected 1 to 64"),
        ({"weight": 0.0}, r"weight=0\.0: expected a number > 0"),
        ({"weight": float("nan")}, "weight=nan: expected a number > 0"),
        ({"weight": float("inf")}, "weight=inf: expected a number > 0"),
        ({"reply_key": "AB" * 32}, "shop-2: reply key: expected 64 hex digits"),
        ({"node_key": "ssh-ed25519 AAAA"}, "shop-2: node key: expected an ECDSA key on NIST P-384"),
        ({"node_key": ssh(ec.generate_private_key(ec.SECP256R1()))}, "expected an ECDSA key on NIST P-384"),
    ],
)
def test_what_is_malformed_is_not_enrolled(changes, words):
    with pytest.raises(ConfigError, match=words):
        Registry().with_member(member(2, **changes))


def test_a_name_in_use_and_a_key_ever_used_are_refused():
    first = member(1)
    registry = Registry().with_member(first)
    with pytest.raises(ConfigError, match="shop-1: enrolled already; revoke it first"):
        registry.with_member(member(2, name="shop-1"))
    revoked = registry.without("shop-1", now=NOW)
    with pytest.raises(ConfigError, match="shop-2: this node key was enrolled for shop-1; have the client make new"):
        revoked.with_member(member(2, node_key=first.node_key + " with a comment"))
    with pytest.raises(ConfigError, match="shop-2: this reply key was enrolled for shop-1"):
        revoked.with_member(member(2, reply_key=first.reply_key))
    again = revoked.with_member(member(2, name="shop-1"))
    assert [one.state(NOW) for one in again.members] == ["revoked", "active"]
    assert [one.state(NOW) for one in again.without("shop-1", now=NOW).members] == ["revoked", "revoked"]


def test_only_who_is_neither_revoked_nor_expired_takes_part():
    today = member(1, expires_on=NOW.date())
    tomorrow = member(2, expires_on=NOW.date() + timedelta(days=1))
    registry = Registry((today, tomorrow, member(3), member(4, revoked_at=NOW)))
    assert [one.name for one in registry.active(NOW)] == ["shop-2", "shop-3"]
    assert [one.state(NOW) for one in registry.members] == ["expired", "active", "active", "revoked"]
    with pytest.raises(ConfigError, match="shop-4: no such client is enrolled; see fedrec enrol list"):
        registry.without("shop-4", now=NOW)


def test_the_list_comes_back_as_it_was_and_only_its_owner_may_read_it(tmp_path):
    whole = member(1, weight=2.5, expires_on=date(2027, 1, 1), revoked_at=NOW, node_id=2**64 - 1)
    change_registry(tmp_path, lambda registry: registry.with_member(whole))
    assert load_registry(tmp_path) == Registry((whole,))
    assert (tmp_path / "clients.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1}', '{"format": 1, "members": [{"name": "x"}]}', "\\", "\xff\xfe", "[" * 99999]
)
def test_a_damaged_list_is_refused_and_not_replaced(tmp_path, text):
    damaged = text.encode("latin-1")
    (tmp_path / "clients.json").write_bytes(damaged)
    with pytest.raises(RunError, match=r"clients.json: not a list of clients; restore it from a copy"):
        change_registry(tmp_path, lambda registry: registry.with_member(member(1)))
    assert (tmp_path / "clients.json").read_bytes() == damaged


def test_a_list_of_another_format_is_refused(tmp_path):
    (tmp_path / "clients.json").write_text(json.dumps({"format": 2, "members": []}))
    with pytest.raises(RunError, match="format 2, expected 1"):
        load_registry(tmp_path)


def _enrol(state, numbers):
    for number in numbers:
        change_registry(state, lambda registry, number=number: registry.with_member(member(number)))


def test_processes_that_enrol_at_once_lose_nothing(tmp_path):
    start = multiprocessing.get_context("spawn").Process
    both = [start(target=_enrol, args=(tmp_path, range(first, 20, 2))) for first in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert {process.exitcode for process in both} == {0}
    assert {one.name for one in load_registry(tmp_path).members} == {f"shop-{number}" for number in range(20)}


@pytest.mark.slow
def test_superlink_knows_whom_it_should_even_after_it_lost_its_database(tmp_path):
    loopback = Loopback(tmp_path / "state", free_port())
    soon = member(3, expires_on=NOW.date() + timedelta(days=1))

    def known() -> set[int]:
        with open_control(loopback) as control:
            return {node.node_id for node in control.nodes()}

    def settled(now: datetime) -> dict[str, int | None]:
        with open_control(loopback) as control:
            registry = sync(loopback.state, control, now=now)
        assert registry == load_registry(loopback.state)
        assert registry.is_settled(now)
        return {one.name: one.node_id for one in registry.members}

    change_registry(loopback.state, lambda _: Registry((member(1), member(2), soon)))
    assert not load_registry(loopback.state).is_settled(NOW)
    with SuperLink(loopback):
        with open_control(loopback) as control:
            stray = control.register(new_key().public_key())
        first = settled(NOW)
        assert stray not in known() == set(first.values())
        assert settled(NOW) == first
        change_registry(loopback.state, lambda registry: registry.without("shop-1", now=NOW))
        later = settled(NOW + timedelta(days=1))
        assert later == first | {"shop-1": None}  # who has expired is known still, and asked nothing
        assert known() == {first["shop-2"], first["shop-3"]}
    with SuperLink(loopback):
        assert settled(NOW + timedelta(days=1)) == later
    for part in loopback.state.glob("superlink.db*"):
        part.unlink()
    with SuperLink(loopback):
        anew = settled(NOW + timedelta(days=1))
    assert anew["shop-2"] not in (None, first["shop-2"])
    assert anew["shop-3"] is None


@pytest.mark.slow
def test_a_clock_that_jumps_ahead_and_back_locks_nobody_out(tmp_path):
    loopback = Loopback(tmp_path / "state", free_port())
    change_registry(loopback.state, lambda _: Registry((member(1, expires_on=NOW.date() + timedelta(days=398)),)))
    with SuperLink(loopback), open_control(loopback) as control:
        before = sync(loopback.state, control, now=NOW)
        sync(loopback.state, control, now=NOW + timedelta(days=9999))
        assert sync(loopback.state, control, now=NOW) == before
    assert before.members[0].node_id is not None


@pytest.mark.slow
def test_a_key_that_superlink_refuses_keeps_nobody_else_out(tmp_path, caplog):
    loopback = Loopback(tmp_path / "state", free_port())
    burnt = member(1)
    with SuperLink(loopback), open_control(loopback) as control:
        control.unregister(control.register(burnt.public_key))
        change_registry(loopback.state, lambda _: Registry((burnt, member(2))))
        registry = sync(loopback.state, control, now=NOW)
    assert [one.node_id is None for one in registry.members] == [True, False]
    assert "client=shop-1 registered=no reason=SuperLink refuses to register a node: HTTP 412" in caplog.text
