"""The process: it listens, looks around now and then for another run to serve, and ends when it is told to."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from clients.serving.http.app import Desk, build_app, open_desk
from clients.serving.http.door import Door
from clients.serving.http.tokens import Tokens, read_tokens
from clients.serving.served import Current, Served
from clients.serving.store import EventStore
from fedrec.config_serving import HttpConfig
from fedrec.errors import ConfigError, FedrecError, RunError
from fedrec.listening import listening

_CLOSE_S = 5
_LONGEST_NAME = 4_096  # of a run folder, in the file that names it

logger = logging.getLogger(__name__)


def tokens_for(host: str, path: Path | None) -> Tokens | None:
    """The tokens that a service at this address needs.

    Raises:
        ConfigError: others can reach the address and there is no file of tokens, or the file cannot be used.
    """
    if path is not None:
        return read_tokens(path)
    if not _is_loopback(host):
        raise ConfigError(
            f"--host {host}: others can reach it, so give --tokens FILE (see fedrec tokens new), "
            "and --certificate and --key, or put a proxy with TLS in front"
        )
    return None


def run_named(run: Path) -> Path:
    """The run to serve: a folder itself, or the one that a text file names, relative to the file.

    Raises:
        RunError: it is neither.
    """
    if run.is_dir():
        return run
    with suppress(OSError, ValueError):  # not there, no text, or what no file can be called
        with run.open(encoding="utf-8") as file:
            name = file.read(_LONGEST_NAME).strip()
        if name and (folder := run.parent / name).is_dir():
            return folder
    raise RunError(f"{run}: expected a run folder, or a text file that names one")


def serve(
    run: Path,
    store: EventStore,
    load: Callable[[Path], Served],
    *,
    host: str,
    port: int,
    tokens: Path | None,
    config: HttpConfig,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve, in the main thread, until SIGTERM or SIGINT; then let requests under way finish.

    SIGHUP reads the tokens and the run anew. A run that cannot be served is a line in the log, and the old one goes on.

    Args:
        run: a run folder, or a file that names one, which is watched.
        load: as ``Current`` takes it.
        tokens: file of tokens' hashes; needed where others can reach the address.
        tls: None answers in the clear. A renewed certificate is for the next start.
        ready: called once with the port when it is open; port 0 takes a free one.

    Raises:
        ConfigError: the tokens, or the address.
        FedrecError: the first run cannot be served.
    """
    known = tokens_for(host, tokens)
    with listening(host, port) as listener:
        named = run_named(run)
        desk = open_desk(Current(load, store, run=named), store, config=config)
        door = build_app(desk, config=config, tokens=known)
        server = _Server(_uvicorn(door, tls))
        asyncio.run(_Service(run, named, desk, door, tokens, config).serve(server, listener, ready))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us."""
        yield


class _Service:
    """The server and what it does beside serving."""

    def __init__(self, run: Path, named: Path, desk: Desk, door: Door, tokens: Path | None, config: HttpConfig) -> None:
        self._run, self._named, self._desk, self._door = run, named, desk, door
        self._tokens, self._config = tokens, config
        self._is_hung_up = asyncio.Event()

    async def serve(self, server: _Server, listener: socket.socket, ready: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, lambda: setattr(server, "should_exit", True))
        loop.add_signal_handler(signal.SIGHUP, self._is_hung_up.set)
        beside = [asyncio.create_task(one) for one in (self._watch_run(), self._watch_people())]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready(listener.getsockname()[1])
        await serving
        for task in beside:
            task.cancel()

    async def _watch_run(self) -> None:
        """Serve another run once it is named, and read everything anew when told to."""
        while True:
            is_told = await _within(self._config.watch_s, self._is_hung_up.wait())
            self._is_hung_up.clear()
            if is_told and self._tokens is not None:
                await self._try("tokens", self._read_tokens)
            try:
                named = run_named(self._run)
            except RunError as error:
                if is_told:
                    logger.error("run: not taken: %s", error)
                continue
            if is_told or named != self._named:
                self._named = named  # one that is refused is not tried again until told to
                outcome = await self._try("run", partial(self._desk.current.swap, named))
                self._desk.metrics.swaps.labels(outcome).inc()

    async def _watch_people(self) -> None:
        """Count the memory anew at an interval, and at once when another process forgets somebody or notes a no."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(self._config.watch_s)
            try:
                allowed = await asyncio.to_thread(self._desk.store.permissions)
            except RunError as error:
                logger.error("store: %s", error)
                continue
            if allowed != self._desk.current.read_under or loop.time() - last > self._config.memory_s:
                await self._try("memory", self._desk.current.remember)
                last = loop.time()

    def _read_tokens(self) -> None:
        if self._tokens is not None:
            self._door.tokens = read_tokens(self._tokens)

    async def _try(self, what: str, work: Callable[[], None]) -> str:
        """Do it in a thread of its own; a failure is a line."""
        try:
            await asyncio.to_thread(work)
        except FedrecError as error:
            logger.error("%s: not taken: %s", what, error)
            return "refused"
        except Exception as error:  # a damaged run can break what reads it; its text may hold anything
            logger.error("%s: not taken: %s", what, type(error).__name__)
            return "refused"
        logger.info("%s: taken", what)
        return "taken"


async def _within(seconds: float, waiting: Awaitable[object]) -> bool:
    """Whether it came in time."""
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return False
    return True


def _uvicorn(door: Door, tls: ssl.SSLContext | None) -> uvicorn.Config:
    """No access log, no claimed addresses, no name of the software; h11 because httptools does not bound headers."""
    return uvicorn.Config(
        door,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what goes wrong with a request the door has told, without what was asked
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=1_024,
        timeout_graceful_shutdown=_CLOSE_S,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
