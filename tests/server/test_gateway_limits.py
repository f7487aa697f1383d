"""What a rude client costs: nothing to the others, little to the gateway."""

import contextlib
import socket
import threading
import time

import httpx
import pytest

from server.gateway_limits import Slots, TokenBuckets, client_of
from tests.tiny_gateway import PULL, PUSH, Authority, eventually, running_gateway, running_upstream

LARGE = 200 * 2**20
MIB = 2**20


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture
def upstream():
    with running_upstream() as server:
        yield server


@pytest.fixture
def open_gateway(authority, upstream):
    """Starts a gateway with other limits than the defaults."""
    with contextlib.ExitStack() as stack:
        yield lambda **changes: stack.enter_context(running_gateway(authority, upstream.url, **changes))


def zeros(count):
    for _ in range(count // MIB):
        yield bytes(MIB)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_200_mb_is_a_413_and_memory_stays_flat(open_gateway, upstream, declared):
    gateway = open_gateway()
    with gateway.client() as client:
        client.post(PUSH, content=bytes(8 * MIB))  # what a full body costs is not the question
        before, peak = gateway.resident_bytes(), []
        done = threading.Event()
        watch = threading.Thread(target=lambda: [peak.append(gateway.resident_bytes()) for _ in until(done)])
        watch.start()
        try:
            headers = {"content-length": str(LARGE)} if declared else {}
            answer = client.post(PUSH, content=zeros(LARGE), headers=headers)
        finally:
            done.set()
            watch.join()
    assert (answer.status_code, answer.text) == (413, "too large")
    assert max(peak) - before < 50 * MIB
    assert len(upstream.seen) == 1 + (not declared)  # a declared length is refused before anything is sent on


def until(done):
    while not done.wait(0.005):
        yield


def test_the_cap_is_exact(open_gateway):
    with open_gateway(max_body_bytes=100_000).client() as client:
        for excess, status in ((0, 200), (1, 413)):
            body = bytes(100_000 + excess)
            for content in (body, iter([body[:50_000], body[50_000:]])):  # of a declared length, and in chunks
                assert client.post(PUSH, content=content).status_code == status


def test_a_body_that_stops_coming_is_a_408(open_gateway):
    gateway = open_gateway(idle_timeout_s=0.3)
    with gateway.socket() as one:
        one.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
        assert one.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_for_ever_is_a_408(open_gateway):
    gateway = open_gateway(total_timeout_s=0.5, idle_timeout_s=5)
    started = time.monotonic()
    with gateway.socket() as one:
        one.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 10:
                one.sendall(b"x")
                time.sleep(0.05)  # the trickle is what is tested
        assert time.monotonic() - started < 5


def test_headers_or_a_handshake_that_never_end_are_cut_off(open_gateway):
    gateway = open_gateway(header_timeout_s=0.5)
    for tls, sent in ((True, b""), (True, b"POST /v1/fl"), (False, b""), (False, b"\x16\x03\x01\x00")):
        started = time.monotonic()
        with gateway.socket(tls=tls) as one, contextlib.suppress(OSError):
            one.sendall(sent)
            while time.monotonic() - started < 10 and one.recv(1):
                pass
        assert time.monotonic() - started < 5


def test_headers_that_trickle_on_a_used_connection_are_cut_off(open_gateway):
    gateway = open_gateway(header_timeout_s=0.5, idle_timeout_s=20)
    with gateway.socket() as one:
        one.sendall(f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert one.recv(100).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 10:
                one.sendall(b"P" if time.monotonic() - started < 0.1 else b"x")
                time.sleep(0.05)  # as above
        assert time.monotonic() - started < 5
    assert eventually(lambda: gateway.metrics().get('fedrec_gateway_refused_total{reason="headers too slow"}') == 1)


def test_an_idle_connection_is_closed_and_its_place_given_back(open_gateway):
    gateway = open_gateway(idle_timeout_s=0.3, header_timeout_s=20)
    with gateway.socket() as one:
        one.sendall(f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        one.settimeout(5)
        assert one.makefile("rb").read().startswith(b"HTTP/1.1 200 ")  # to the end of the connection
    assert eventually(lambda: gateway.metrics()["fedrec_gateway_open_connections"] == 0)


@pytest.mark.parametrize("size", [20_000, 2_000_000])
def test_headers_too_long_are_refused(open_gateway, size):
    gateway = open_gateway()
    with gateway.socket() as one:
        with contextlib.suppress(OSError):
            one.sendall(
                f"POST {PULL} HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * size}\r\nContent-Length: 0\r\n\r\n".encode()
            )
        with contextlib.suppress(OSError):
            assert one.recv(100).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    refused = (
        'fedrec_gateway_refused_total{reason="headers too large"}',
        'fedrec_gateway_refused_total{reason="malformed"}',
    )
    assert eventually(lambda: sum(gateway.metrics().get(name, 0) for name in refused) == 1)


def test_an_upstream_that_does_not_answer_is_a_504(open_gateway):
    slow = {"upstream_timeout_s": 1.0, "header_timeout_s": 0.3}  # the clock of the headers stops at their end
    for limits in (slow, {"total_timeout_s": 0.3}):
        with open_gateway(**limits).client() as client:
            answer = client.post(PULL, headers={"x-do": "wait"})
        assert (answer.status_code, answer.text) == (504, "upstream too slow")


def test_a_reader_that_never_reads_holds_its_place_only_for_so_long(open_gateway):
    gateway = open_gateway(total_timeout_s=0.5)
    with gateway.socket() as one:
        one.sendall(f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nx-do: large:{LARGE}\r\n\r\n".encode())
        name = 'fedrec_gateway_refused_total{reason="upstream too slow"}'
        assert eventually(lambda: gateway.metrics().get(name) == 1)
        assert eventually(lambda: gateway.metrics()["fedrec_gateway_open_connections"] == 0)


def test_a_client_past_its_rate_is_told_when_to_come_back_and_others_are_served(open_gateway):
    gateway = open_gateway(requests_per_s=0.1, burst=3)
    with gateway.client() as eager, gateway.client("127.0.0.2") as calm:
        answers = [eager.post(PULL) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 9 <= int(answers[-1].headers["retry-after"]) <= 10
        assert calm.post(PULL).status_code == 200
        claimed = {"x-forwarded-for": "127.0.0.9", "forwarded": "for=127.0.0.9"}
        assert eager.post(PULL, headers=claimed).status_code == 429


def test_requests_at_once_are_bounded_for_one_address_and_for_all(open_gateway, upstream):
    gateway = open_gateway(max_requests=3, max_requests_per_address=2)
    answers = []

    def wait_from(address):
        with gateway.client(address) as one:
            answers.append(one.post(PULL, headers={"x-do": "wait"}).status_code)

    def begin(address, waiting):
        threads.append(threading.Thread(target=wait_from, args=(address,)))
        threads[-1].start()
        assert eventually(lambda: len(upstream.seen) == waiting)

    threads = []
    try:
        begin("127.0.0.2", 1)
        begin("127.0.0.2", 2)
        with gateway.client("127.0.0.2") as same, gateway.client("127.0.0.3") as other:
            answer = same.post(PULL)
            assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "address busy", "1")
            assert other.post(PULL).status_code == 200
            begin("127.0.0.3", 4)
            answer = other.post(PULL)
            assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "busy", "1")
    finally:
        upstream.released.set()
        for thread in threads:
            thread.join()
    assert answers == [200] * 3
    with gateway.client("127.0.0.2") as same:  # places are given back
        assert [same.post(PULL).status_code for _ in range(5)] == [200] * 5


def test_connections_are_bounded_for_one_address_and_others_are_served(open_gateway):
    gateway = open_gateway(max_connections_per_address=3)
    with contextlib.ExitStack() as stack:
        for count in (1, 2, 3):
            stack.enter_context(gateway.socket())
            assert eventually(lambda count=count: gateway.metrics()["fedrec_gateway_open_connections"] == count)
        with (
            gateway.client() as fourth,
            pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
        ):
            fourth.post(PULL)
        with gateway.client("127.0.0.2") as other:
            assert other.post(PULL).status_code == 200
    assert eventually(lambda: gateway.metrics()["fedrec_gateway_open_connections"] == 0)
    with gateway.client() as again:
        assert again.post(PULL).status_code == 200


def test_what_is_not_http_is_refused_and_counted(open_gateway):
    gateway = open_gateway()
    with gateway.socket() as one:
        one.sendall(b"\x00\x01\x02\r\n\r\n")
        assert one.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
    assert gateway.metrics()['fedrec_gateway_refused_total{reason="malformed"}'] == 1


def test_a_client_that_hangs_up_mid_body_leaves_no_place_taken(open_gateway):
    gateway = open_gateway(max_requests=1)
    with gateway.socket() as one:
        one.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
        one.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: gateway.metrics().get('fedrec_gateway_refused_total{reason="client gone"}') == 1)
    with gateway.client() as client:
        assert client.post(PULL).status_code == 200


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate():
    now = [0.0]
    buckets = TokenBuckets(rate_per_s=2, burst=3, clock=lambda: now[0])
    assert [buckets.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    now[0] = 0.5
    assert [buckets.wait_s("a"), buckets.wait_s("a")] == [0, 1]
    now[0] = 1000.0
    assert [buckets.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.wait_s("b") == 0


def test_buckets_forget_who_was_away_longest_rather_than_grow():
    buckets = TokenBuckets(rate_per_s=1, burst=1, clock=lambda: 0.0, max_clients=2)
    for client in ("a", "b", "a", "c"):
        buckets.wait_s(client)
    assert buckets.wait_s("a") == 1
    assert buckets.wait_s("b") == 0


def test_slots_are_held_by_whom_took_them():
    slots = Slots(total=2, per_client=1)
    assert [slots.take("a"), slots.take("a"), slots.take("b"), slots.take("c")] == [True, False, True, False]
    assert (slots.held, slots.is_full(), slots.is_full_for("c")) == (2, True, False)
    slots.give_back("a")
    assert slots.take("c")


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_client_is_its_network(peer, client):
    assert client_of((peer, 1)) == client
    assert client_of(None) == "unknown"
