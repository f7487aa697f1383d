"""Broken networks between a real node and a real server: a reply counts once, whole and unchanged, or not at all."""

import logging
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supernode import node_auth_http_interceptor

from clients.link import Link, Session
from clients.node import run_node
from fedrec.certificates import new_key
from fedrec.keyfiles import make_authority, make_server
from fedrec.wire_arrays import array_record
from server.flower_run import open_grid
from tests.chaos_proxy import ChaosProxy, Weather
from tests.fleet_server import Fleet, StopAfter, served
from tests.tiny_gateway import eventually
from tests.tiny_superlink import app_of, message_of, running_site

pytestmark = pytest.mark.slow


POLL_S = 0.05


def numbers_of(word: str) -> np.ndarray:
    """2 MB, one object on the wire; others for each word, for Flower's store takes no object twice."""
    return np.random.default_rng(list(word.encode())).normal(size=500_000).astype(np.float32)


class Stop(threading.Event):
    """Ends a node. Sees it pause between two questions for work, which is when it has joined."""

    has_joined = False

    def wait(self, timeout: float | None = None) -> bool:
        self.has_joined |= timeout == POLL_S
        return super().wait(timeout)


def large(message: Message, context: object) -> Message:
    """A reply that takes a while to send."""
    content = RecordDict({"update": array_record({"numbers": numbers_of(message.content["asked"]["word"])})})
    content["asked"] = message.content["asked"]
    return Message(content, reply_to=message)


def small(message: Message, context: object) -> Message:
    return Message(RecordDict({"asked": message.content["asked"]}), reply_to=message)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def grid(site):
    with open_grid(site.settings) as opened:
        yield opened


@contextmanager
def far_away(site, grid, weather=Weather(), *, first=(), handler=large):  # noqa: B008
    """A node of its own behind a proxy: its number, the proxy. ``first`` is the weather of its first connections."""
    node_id, key = site.enrolled()
    stop = Stop()
    with ChaosProxy(("127.0.0.1", site.gateway.public), weather) as proxy:
        proxy.upcoming.extend(first)
        link = Link(f"127.0.0.1:{proxy.port}", site.gateway.authority.read_bytes(), key)
        options = {"stop": stop, "poll_s": POLL_S}
        node = threading.Thread(target=run_node, args=(app_of(handler), link), kwargs=options, daemon=True)
        node.start()
        try:
            assert eventually(lambda: node_id in grid.get_node_ids(), within_s=30)
            assert eventually(lambda: stop.has_joined, within_s=30)  # the server knows of it a moment earlier
            yield node_id, proxy
        finally:
            stop.set()
            node.join(40)
            assert not node.is_alive()


def ask(grid, node_id, word, *, timeout_s):
    return list(grid.send_and_receive([message_of(node_id, word)], timeout=timeout_s))


def is_whole(replies, word):
    """One reply, to this question, with every number as it was sent."""
    assert len(replies) == 1
    assert replies[0].has_content(), replies[0].error
    assert replies[0].content["asked"]["word"] == word
    assert np.array_equal(replies[0].content["update"]["numbers"].numpy(), numbers_of(word))
    return True


@contextmanager
def meanwhile(action):
    """Run ``action`` beside the block; it must have ended well."""
    failed = []

    def guarded():
        try:
            action()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()
    assert not failed, failed


def test_network_cut_for_ten_seconds_in_mid_upload_delays_one_whole_reply(site, grid):
    with far_away(site, grid, Weather(bytes_per_s=1_000_000)) as (node_id, proxy):
        before = proxy.passed["up"]

        def cut():
            assert eventually(lambda: proxy.passed["up"] - before > 500_000, within_s=30)
            with proxy.cut():
                time.sleep(10)

        started = time.monotonic()
        with meanwhile(cut):
            assert is_whole(ask(grid, node_id, "cut", timeout_s=60), "cut")
        assert time.monotonic() - started > 10


def test_cut_longer_than_the_deadline_costs_one_round_and_no_more(site, grid):
    with far_away(site, grid) as (node_id, proxy):
        with proxy.cut():
            assert ask(grid, node_id, "lost", timeout_s=2) == []
        assert is_whole(ask(grid, node_id, "next", timeout_s=40), "next")


def test_half_a_second_of_latency_and_one_megabit_take_long_and_lose_nothing(site, grid):
    with far_away(site, grid, Weather(latency_s=0.5, bytes_per_s=125_000)) as (node_id, _):
        started = time.monotonic()
        assert is_whole(ask(grid, node_id, "slow", timeout_s=90), "slow")
        assert time.monotonic() - started > 2_000_000 / 125_000


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_connection_that_ends_in_mid_chunk_is_made_good_and_no_part_of_a_chunk_counts(site, grid, ending):
    broken = Weather(stop_after=700_000, ending=ending)
    with far_away(site, grid, first=[broken] * 3) as (node_id, proxy):
        assert is_whole(ask(grid, node_id, ending, timeout_s=60), ending)
        assert proxy.connections > 2
        assert proxy.passed["up"] > 2_000_000 + 700_000


def test_answer_of_the_server_that_is_cut_short_is_asked_for_again(site, grid):
    with far_away(site, grid, first=[Weather(stop="down", stop_after=6000, ending="close")] * 2) as (node_id, _):
        assert is_whole(ask(grid, node_id, "down", timeout_s=60), "down")


def test_node_in_a_black_hole_counts_as_offline_within_two_heartbeats_and_comes_back(site, grid):
    with far_away(site, grid) as (lost, proxy), far_away(site, grid) as (steady, _):
        with proxy.frozen():
            assert eventually(lambda: lost not in grid.get_node_ids(), within_s=65)  # two of thirty seconds
            assert steady in grid.get_node_ids()
        assert eventually(lambda: lost in grid.get_node_ids(), within_s=90)
        assert is_whole(ask(grid, lost, "back", timeout_s=40), "back")


def test_reply_that_is_pushed_twice_is_one_reply(site, grid, monkeypatch):
    real, pushed = Session.reply, []

    def twice(session, message):
        real(session, message)
        pushed.append(outcome_of(lambda: real(session, message)))

    monkeypatch.setattr(Session, "reply", twice)
    with far_away(site, grid, handler=large) as (node_id, _):
        assert is_whole(ask(grid, node_id, "twice", timeout_s=20), "twice")
        assert eventually(lambda: pushed)
        assert is_whole(ask(grid, node_id, "again", timeout_s=40), "again")


def test_second_different_reply_to_one_message_is_not_seen(site, grid, monkeypatch):
    real, pushed = Session.reply, []

    def two(session, message):
        real(session, message)
        other = RecordDict({"asked": ConfigRecord({"word": "another"})})
        about = Message(other, reply_to=questions[0])
        pushed.append(outcome_of(lambda: real(session, about)))

    questions = []

    def noted(message, context):
        questions[:] = [message]
        return small(message, context)

    monkeypatch.setattr(Session, "reply", two)
    with far_away(site, grid, handler=noted) as (node_id, _):
        replies = ask(grid, node_id, "first", timeout_s=20)
        assert [reply.content["asked"]["word"] for reply in replies] == ["first"]
        assert eventually(lambda: pushed)
        replies = ask(grid, node_id, "next", timeout_s=40)
        assert [reply.content["asked"]["word"] for reply in replies] == ["next"]


def outcome_of(push) -> str:
    """What a server says to a second reply: nothing, or a refusal."""
    try:
        push()
    except Exception as error:
        return type(error).__name__
    return "taken"


@pytest.mark.parametrize("days", [1, -1])
def test_client_whose_clock_is_a_day_off_is_not_let_in(site, grid, monkeypatch, caplog, days):
    node_id, key = site.enrolled()
    real = node_auth_http_interceptor.now
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: real() + timedelta(days=days))
    with caplog.at_level(logging.WARNING):
        run_node(app_of(small), site.link(key), stop=StopAfter(2))
    assert len(caplog.messages) == 2
    assert all(
        line.startswith("disconnected reason=HTTP 401: not enrolled") and "or this machine's clock is wrong" in line
        for line in caplog.messages
    )
    assert node_id not in grid.get_node_ids()


def test_server_whose_certificate_has_expired_is_told_nothing(tmp_path, caplog):
    past = datetime.now(UTC) - timedelta(days=30)
    make_authority(tmp_path / "authority", days=365, now=past)
    make_server(tmp_path / "keys", tmp_path / "authority", ["127.0.0.1"], days=7, now=past)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "keys" / "tls.crt", tmp_path / "keys" / "tls.key")
    roots, fleet = (tmp_path / "keys" / "ca.crt").read_bytes(), Fleet()
    with served(fleet, tls=tls) as link, caplog.at_level(logging.WARNING):
        run_node(app_of(small), replace(link, root_certificates=roots, key=new_key()), stop=StopAfter(2))
    assert fleet.asked == []
    assert len(caplog.messages) == 2
    assert all("certificate refused (certificate has expired)" in line for line in caplog.messages)
