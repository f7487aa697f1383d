"""A TCP proxy between two real programs that does to their connections what networks do."""

import asyncio
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

PIECE = 16 * 2**10  # bytes moved at once; small, so that a cut lands near the byte it was asked for
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST instead of FIN


@dataclass(frozen=True)
class Weather:
    """What happens to one connection. "Up" is from the client to the server.

    ``stop_after`` bytes in direction ``stop`` are passed on, then comes ``ending``: "reset" (RST to both), "close" (FIN
    to both), "half-close" (FIN to the receiver; the other direction goes on), "silence" (nothing more, no FIN).
    ``twice`` is the end of an HTTP path: such a request is sent a second time, byte for byte, on a connection of its
    own. That needs plain HTTP with Content-Length; through TLS only whole connections can be harmed.
    """

    latency_s: float = 0.0  # each way
    bytes_per_s: float | None = None  # each way, of all connections together
    stop_after: int | None = None
    stop: Literal["up", "down"] = "up"
    ending: Literal["reset", "close", "half-close", "silence"] = "reset"
    blackhole: bool = False  # accepted, swallowed, never passed on nor answered
    twice: str | None = None


FAIR = Weather()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ChaosProxy:
    """Listens on ``port``; passes connections to ``target`` as ``weather`` says when they are opened.

    ``upcoming`` goes first: one entry for each of the next connections. ``passed`` counts bytes by direction,
    ``second_answers`` holds the status lines of requests that were sent twice.
    """

    def __init__(self, target: tuple[str, int], weather: Weather = FAIR, *, host: str = "127.0.0.1") -> None:
        self.target, self.weather, self.host, self.port = target, weather, host, 0
        self.upcoming: deque[Weather] = deque()
        self.passed = {"up": 0, "down": 0}
        self.connections = 0
        self.second_answers: list[str] = []
        self._refusing = False
        self._free_at = {"up": 0.0, "down": 0.0}
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="chaos", daemon=True)

    def __enter__(self) -> "ChaosProxy":
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Every connection is reset and every new one too, until the block ends: the cable is out."""
        self._refusing = True
        self._soon(self._reset_all)
        try:
            yield
        finally:
            self._refusing = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No byte passes and nothing is closed until the block ends: packets are lost, and sent again later."""
        self._soon(self._open.clear)
        try:
            yield
        finally:
            self._soon(self._open.set)

    def _soon(self, action) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (action(), done.set()))
        assert done.wait(10), "the proxy is stuck"

    async def _main(self) -> None:
        self._loop, self._stopping, self._open = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._open.set()
        server = await asyncio.start_server(self._connection, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        self._reset_all()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        weather = self.upcoming.popleft() if self.upcoming else self.weather
        self._writers.add(writer)
        writers = [writer]
        try:
            if self._refusing:
                _reset(writer)
                return
            if weather.blackhole:
                await _swallow(reader)
                return
            upstream = await asyncio.open_connection(*self.target)
            writers.append(upstream[1])
            self._writers.add(upstream[1])
            if weather.twice:
                await self._requests((reader, writer), upstream, weather.twice)
            else:
                up = self._direction("up", reader, upstream[1], writer, weather)
                await asyncio.gather(up, self._direction("down", upstream[0], writer, upstream[1], weather))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the last is the proxy's own end
            for one in writers:
                _reset(one)
        finally:
            for one in writers:
                self._writers.discard(one)
                one.close()

    async def _direction(self, name, reader, writer, back, weather: Weather) -> None:
        """Move bytes one way: read at once, written when due."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)
        reading = asyncio.create_task(_read_into(queue, reader))
        left = weather.stop_after if weather.stop == name else None
        try:
            while True:
                arrived, piece = await queue.get()
                await asyncio.sleep(max(0.0, arrived + weather.latency_s - time.monotonic()))
                await self._open.wait()
                ends = left is not None and len(piece) >= left
                piece = piece[:left] if ends else piece
                left = None if left is None else left - len(piece)
                if piece:
                    writer.write(piece)
                    await writer.drain()
                    self.passed[name] += len(piece)
                    await asyncio.sleep(self._line_time(name, len(piece), weather))
                if ends:
                    await self._end(weather.ending, writer, back)
                    return
                if not piece:
                    writer.write_eof()
                    return
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await reading

    def _line_time(self, name: str, size: int, weather: Weather) -> float:
        """Seconds until the line has carried this too; all connections share it."""
        now = time.monotonic()
        self._free_at[name] = max(now, self._free_at[name]) + (size / weather.bytes_per_s if weather.bytes_per_s else 0)
        return self._free_at[name] - now

    async def _end(self, ending: str, writer: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        if ending == "reset":
            _reset(writer)
            _reset(back)
        elif ending == "close":
            writer.close()
            back.close()
        elif ending == "half-close":
            writer.write_eof()
        else:
            await self._stopping.wait()

    async def _requests(self, client: Streams, upstream: Streams, twice: str) -> None:
        """Pass on whole requests and answers; those to ``twice`` are sent once more."""
        while request := await _http_message(client[0]):
            upstream[1].write(request)
            self.passed["up"] += len(request)
            answer = await _http_message(upstream[0])
            if request.split(b" ", 2)[1].decode().endswith(twice):
                again = await asyncio.open_connection(*self.target)
                again[1].write(request)
                self.second_answers.append((await _http_message(again[0])).split(b"\r\n")[0].decode())
                again[1].close()
            client[1].write(answer)
            await client[1].drain()
            self.passed["down"] += len(answer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(PIECE):
        pass
    await asyncio.Event().wait()  # the client has closed; the server's side of a black hole never does


async def _read_into(queue: asyncio.Queue[tuple[float, bytes]], reader: asyncio.StreamReader) -> None:
    piece = b"not yet"
    while piece:
        try:
            piece = await reader.read(PIECE)
        except OSError:
            piece = b""
        await queue.put((time.monotonic(), piece))


async def _http_message(reader: asyncio.StreamReader) -> bytes:
    """One whole request or answer; empty when the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:-2])
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))
