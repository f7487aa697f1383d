"""The proxy does exactly the harm it was asked for, between a real client and a real server."""

import socket
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.chaos_proxy import ChaosProxy, Weather
from tests.tiny_gateway import eventually


class Sink:
    """A server of one connection at a time: remembers what it got and how the connection ended; echoes."""

    def __init__(self, *, echo: bool) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.echo, self.got, self.ends = echo, bytearray(), []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.socket.getsockname()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with closing(connection):
                try:
                    while piece := connection.recv(65536):
                        self.got += piece
                        if self.echo:
                            connection.sendall(piece)
                    self.ends.append("FIN")
                    connection.sendall(b"bye")
                except OSError as error:
                    self.ends.append("RST" if isinstance(error, ConnectionResetError) else "broken")


@contextmanager
def between(weather: Weather = Weather(), *, echo: bool = False):  # noqa: B008
    sink = Sink(echo=echo)
    try:
        with ChaosProxy(sink.address, weather) as proxy:
            yield proxy, sink
    finally:
        sink.socket.shutdown(socket.SHUT_RDWR)
        sink.socket.close()
        sink.thread.join(5)


@contextmanager
def connection_to(proxy: ChaosProxy):
    with closing(socket.create_connection((proxy.host, proxy.port), timeout=10)) as one:
        yield one


def connect_and_read(proxy: ChaosProxy) -> bytes:
    """Either may be the one that notices a reset."""
    with connection_to(proxy) as one:
        return one.recv(1)


def read_exactly(one: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count and (piece := one.recv(65536)):
        got += piece
    return bytes(got)


def test_fair_weather_changes_no_byte_in_either_direction():
    sent = bytes(range(256)) * 4096
    with between(echo=True) as (proxy, sink), connection_to(proxy) as one:
        threading.Thread(target=one.sendall, args=(sent,)).start()
        assert read_exactly(one, len(sent)) == sent
        assert eventually(lambda: proxy.passed == {"up": len(sent), "down": len(sent)})
        assert sink.got == sent


def test_latency_is_added_once_each_way_and_not_once_a_piece():
    with between(Weather(latency_s=0.1), echo=True) as (proxy, _), connection_to(proxy) as one:
        start = time.monotonic()
        one.sendall(b"x" * 200_000)  # 13 pieces
        read_exactly(one, 200_000)
        assert 0.2 <= time.monotonic() - start < 1.0


def test_bandwidth_is_what_was_asked_for():
    with between(Weather(bytes_per_s=200_000), echo=True) as (proxy, _), connection_to(proxy) as one:
        start = time.monotonic()
        one.sendall(b"x" * 100_000)
        read_exactly(one, 100_000)
        assert 0.45 <= time.monotonic() - start < 2.0


def test_reset_in_the_middle_reaches_both_sides_as_reset_after_the_bytes_asked_for():
    with between(Weather(stop_after=1000)) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 5000)
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        assert eventually(lambda: sink.ends == ["RST"])
        assert len(sink.got) <= 1000  # a reset may overtake what was sent before it
        assert proxy.passed["up"] == 1000


def test_truncation_passes_exactly_so_many_bytes_and_closes_in_order():
    with between(Weather(stop_after=1000, ending="close")) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 1000)
        assert one.recv(10) == b""
        assert eventually(lambda: sink.ends == ["FIN"])
        assert len(sink.got) == 1000


def test_half_close_ends_one_direction_alone():
    with between(Weather(stop_after=1000, ending="half-close")) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 1000)
        assert read_exactly(one, 3) == b"bye"
        assert (sink.ends, len(sink.got)) == (["FIN"], 1000)


def test_answers_can_be_cut_as_well_as_requests():
    weather = Weather(stop_after=10, stop="down", ending="close")
    with between(weather, echo=True) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 1000)
        assert read_exactly(one, 1000) == b"x" * 10
        assert len(sink.got) == 1000


def test_silence_neither_passes_nor_closes():
    with between(Weather(stop_after=10, ending="silence")) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 1000)
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        assert (bytes(sink.got), sink.ends) == (b"x" * 10, [])


def test_black_hole_accepts_and_the_server_never_hears_of_it():
    with between(Weather(blackhole=True)) as (proxy, sink), connection_to(proxy) as one:
        one.sendall(b"x" * 1000)
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        assert (bytes(sink.got), sink.ends) == (b"", [])


def test_upcoming_weather_is_for_one_connection_each():
    with between(echo=True) as (proxy, _):
        proxy.upcoming.append(Weather(stop_after=1))
        with connection_to(proxy) as one:
            one.sendall(b"xy")
            with pytest.raises(ConnectionResetError):
                one.recv(1)
        with connection_to(proxy) as one:
            one.sendall(b"xy")
            assert read_exactly(one, 2) == b"xy"


def test_cut_resets_all_and_refuses_until_it_is_over():
    with between(echo=True) as (proxy, _), connection_to(proxy) as old:
        old.sendall(b"a")
        assert read_exactly(old, 1) == b"a"
        with proxy.cut():
            with pytest.raises(ConnectionResetError):
                old.recv(1)
            with pytest.raises(ConnectionResetError):
                connect_and_read(proxy)
        with connection_to(proxy) as new:
            new.sendall(b"c")
            assert read_exactly(new, 1) == b"c"


def test_frozen_loses_nothing():
    with between(echo=True) as (proxy, sink), connection_to(proxy) as one:
        with proxy.frozen():
            one.sendall(b"later")
            one.settimeout(0.3)
            with pytest.raises(TimeoutError):
                one.recv(1)
            assert not sink.got
        one.settimeout(10)
        assert read_exactly(one, 5) == b"later"


class Counter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(str(len(self.server.seen)).encode())

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def test_request_is_sent_twice_byte_for_byte_and_the_client_sees_one_answer():
    with ThreadingHTTPServer(("127.0.0.1", 0), Counter) as server:
        server.seen, server.daemon_threads = [], True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with (
                ChaosProxy(server.server_address, Weather(twice="/push")) as proxy,
                httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as client,
            ):
                answers = [client.post(path, content=b"body").text for path in ("/pull", "/push", "/pull")]
                assert answers == ["1", "2", "4"]
                assert server.seen == [(path, b"body") for path in ("/pull", "/push", "/push", "/pull")]
                assert proxy.second_answers == ["HTTP/1.1 200 OK"]
        finally:
            server.shutdown()
            thread.join()


def test_server_that_is_not_there_is_a_reset_for_the_client():
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        nobody = free.getsockname()
    with ChaosProxy(nobody) as proxy, pytest.raises(ConnectionResetError):
        connect_and_read(proxy)
