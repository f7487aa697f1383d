"""The whole server: SuperLink on loopback, the list of clients kept in step with it, the gateway in front."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from fedrec.errors import FedrecError, RunError
from fedrec.locks import take
from server.control import open_control
from server.gateway import GatewayPorts, serve_gateway
from server.registry import load_registry, sync
from server.settings import ServerSettings
from server.superlink import SuperLink

log = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks at who has been enrolled or revoked


def serve(settings: ServerSettings, *, ready: Callable[[GatewayPorts], None] = lambda ports: None) -> None:
    """Serve, in the main thread, until SIGTERM or SIGINT.

    Args:
        settings: of this server.
        ready: called once when clients can connect.

    Raises:
        ConfigError: a key file cannot be used, or a port is taken.
        RunError: another server uses the state folder, SuperLink does not start, or the list of clients is damaged.
    """
    gateway, stopping = settings.gateway_settings(), threading.Event()
    with _state_of_our_own(settings), SuperLink(settings.loopback, on_start=lambda: _settle(settings)) as superlink:
        log.info("superlink=up pid=%d address=%s", superlink.pid, settings.loopback.address)
        threading.Thread(target=_keep_in_step, args=(settings, stopping), name="registry", daemon=True).start()
        try:
            serve_gateway(gateway, ready=ready)
        finally:
            stopping.set()
            log.info("server=stopping")


def _keep_in_step(settings: ServerSettings, stopping: threading.Event) -> None:
    """Tell SuperLink of changes that nobody told it of, because it did not answer then."""
    while not stopping.wait(LOOK_S):
        try:
            if not load_registry(settings.state).is_settled(datetime.now(UTC)):
                _settle(settings)
        except FedrecError as error:
            log.warning("clients=not in step reason=%s", error)


def _settle(settings: ServerSettings) -> None:
    now = datetime.now(UTC)
    with open_control(settings.loopback) as control:
        registry = sync(settings.state, control, now=now)
    log.info("clients=%d of=%d", len(registry.active(now)), len(registry.members))


@contextmanager
def _state_of_our_own(settings: ServerSettings) -> Iterator[None]:
    """Hold the state folder; two servers would write one database."""
    settings.loopback.prepare(now=datetime.now(UTC))
    try:
        lock = take(settings.state / "server.lock", waits=False)
    except BlockingIOError:
        raise RunError(f"{settings.state}: another fedrec server uses this state folder; stop it first") from None
    try:
        yield
    finally:
        os.close(lock)
