"""The one door to SuperLink: TLS, ten published paths, and limits on size, rate and time.

SuperLink has one port, on which anybody may start runs and read tasks, and reads a body whole before it asks who sent
it. So it listens on loopback, and this stands in front of it.

uvicorn carries HTTP, with h11 because httptools does not bound headers. Three things that uvicorn leaves open are
closed here: a TLS handshake that never ends, headers that never end, and connections without number.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h11
import httpx
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fedrec.listening import listening
from server.gateway_limits import Slots, client_of
from server.gateway_metrics import GatewayMetrics, private_app
from server.gateway_proxy import FleetProxy
from server.gateway_settings import PRIVATE_HOST, GatewaySettings, server_tls, upstream_tls

_CLOSE_S = 3.0  # for TLS to say goodbye, and for requests under way when the gateway stops
_UPSTREAM_IDLE_S = 2.0  # less than SuperLink's own 5, so that we never write into a connection it is closing
_MAX_PRIVATE_CONNECTIONS = 32


@dataclass(frozen=True)
class GatewayPorts:
    """Where the gateway listens, once it does."""

    public: int
    private: int


def serve_gateway(settings: GatewaySettings, *, ready: Callable[[GatewayPorts], None] = lambda ports: None) -> None:
    """Serve, in the main thread, until SIGTERM or SIGINT; then let requests under way finish for up to three seconds.

    Args:
        settings: see there.
        ready: called once when both ports are open.

    Raises:
        ConfigError: a file of a key or certificate cannot be used, or a port is taken.
    """
    asyncio.run(_serve(settings, ready))


async def _serve(settings: GatewaySettings, ready: Callable[[GatewayPorts], None]) -> None:
    public_tls, metrics = server_tls(settings), GatewayMetrics()
    with listening(settings.host, settings.port) as public, listening(PRIVATE_HOST, settings.private_port) as private:
        async with _upstream(settings, settings.max_requests) as upstream, _upstream(settings, 2) as health:
            config = _config(
                FleetProxy(settings, upstream=upstream, metrics=metrics),
                timeout_keep_alive=settings.idle_timeout_s,
                h11_max_incomplete_event_size=settings.max_header_bytes,
                ssl_context_factory=lambda config, default: public_tls,
            )
            servers = [
                _PublicServer(config, settings=settings, metrics=metrics),
                _Server(_config(private_app(metrics, health), limit_concurrency=_MAX_PRIVATE_CONNECTIONS)),
            ]
            _stop_on_signals(servers)
            tasks = [
                asyncio.create_task(one.serve(sockets=[listener]))
                for one, listener in zip(servers, (public, private), strict=True)
            ]
            while not all(one.started for one in servers) and not any(task.done() for task in tasks):
                await asyncio.sleep(0.01)
            if all(one.started for one in servers):
                ready(GatewayPorts(public=public.getsockname()[1], private=private.getsockname()[1]))
            await asyncio.gather(*tasks)


def _config(app: Any, **options: Any) -> uvicorn.Config:
    """What both ports share: no access log, no claimed addresses, no name of the software."""
    return uvicorn.Config(
        app,
        http=_Connection if "ssl_context_factory" in options else "h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # warnings say what the counters say, once for each malformed request
        access_log=False,
        proxy_headers=False,  # on, uvicorn would believe X-Forwarded-For of anybody on this machine
        server_header=False,
        timeout_graceful_shutdown=int(_CLOSE_S),
        **options,
    )


def _upstream(settings: GatewaySettings, connections: int) -> httpx.AsyncClient:
    """A client of SuperLink and nothing else: no proxy of the environment, no redirect."""
    return httpx.AsyncClient(
        base_url=settings.upstream,
        verify=upstream_tls(settings),
        timeout=settings.upstream_timeout_s,
        limits=httpx.Limits(max_connections=connections, keepalive_expiry=_UPSTREAM_IDLE_S),
        trust_env=False,
        follow_redirects=False,
    )


def _stop_on_signals(servers: list["_Server"]) -> None:
    def stop() -> None:
        for one in servers:
            one.should_exit = True

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: two servers share this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the gateway."""
        yield


class _PublicServer(_Server):
    """Opens the port with a limit on handshakes, which uvicorn has no option for."""

    def __init__(self, config: uvicorn.Config, *, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        super().__init__(config)
        self._settings, self._metrics = settings, metrics
        self._slots = Slots(total=settings.max_connections, per_client=settings.max_connections_per_address)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, for one socket."""
        (listener,) = sockets or []
        await self.lifespan.startup()
        opened = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=listener,
            ssl=self.config.ssl,
            backlog=self.config.backlog,
            ssl_handshake_timeout=self._settings.header_timeout_s,
            ssl_shutdown_timeout=_CLOSE_S,
        )
        self.servers = [opened]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        return _Connection(
            self.config, self.server_state, slots=self._slots, settings=self._settings, metrics=self._metrics
        )


class _Connection(H11Protocol):
    """One client's connection: one of a bounded number, and its headers must come in time."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        *,
        slots: Slots,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
    ) -> None:
        super().__init__(config, server_state, {"cut": self.cut})
        self._slots, self._settings, self._metrics = slots, settings, metrics
        self._holder: str | None = None
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or hang up."""
        super().connection_made(transport)  # type: ignore[arg-type]
        client = client_of(self.client)
        if not self._slots.take(client):
            self._metrics.refused.labels("connections").inc()
            self.cut()
            return
        self._holder = client
        self._metrics.connections.inc()
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Start the clock at a request's first byte and stop it at the end of its headers."""
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it running after an error
        self._stop_clock()
        if self._holder is not None:
            self._slots.give_back(self._holder)
            self._metrics.connections.dec()
            self._holder = None

    def cut(self) -> None:
        """Break off at once, whatever is still to be sent."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Count what is not HTTP, or has headers without end."""
        self._metrics.refused.labels("malformed").inc()
        super().send_400_response(msg)

    def _watch_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_clock()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self._settings.header_timeout_s, self._too_slow)

    def _stop_clock(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._metrics.refused.labels("headers too slow").inc()
        self.cut()
