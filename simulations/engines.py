"""Run the one ServerApp and the one ClientApp: on this machine alone, or on Flower's Ray runtime."""

import copy
import importlib.util
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedrec.errors import RunError
from fedrec.quiet import silence
from simulations.local_grid import LocalGrid
from simulations.ray_cluster import connected
from simulations.stoppable_grid import StoppableGrid
from simulations.workers import Workers

RunConfig = Mapping[str, bool | float | int | str]


def run_local(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    clients: int,
    run_config: RunConfig | None = None,
    workers: Workers | None = None,
) -> None:
    """Run everything on this machine, without a network; what the server app raises comes through.

    Args:
        server_app: the server side; runs here.
        client_app: the client side; runs here, one client after the other, unless there are workers.
        clients: nodes; node i holds partition i, >= 1.
        run_config: what ``flwr run --run-config`` would set.
        workers: started processes that answer for the clients instead, with the app that they make themselves.

    Raises:
        RunError: a worker has ended.
    """
    settings = dict(run_config or {})
    grid = LocalGrid(client_app, clients=clients, run_config=settings, workers=workers)
    context = Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config=settings)
    server_app(grid, context)


def run_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    clients: int,
    workers: int,
    run_config: RunConfig | None = None,
    address: str | None = None,
) -> None:
    """Run the server here and the clients in Ray actors; what the server app raises comes through.

    Args:
        server_app: the server side; runs in a thread of this process.
        client_app: the client side; must be importable, or picklable by value.
        clients: nodes, >= 1. Which node holds which partition differs from run to run.
        workers: actors, each one CPU, >= 1; on a cluster Flower starts one on every CPU instead.
        run_config: what ``flwr run --run-config`` would set.
        address: ``HOST:PORT`` of a cluster that ``check_cluster`` let pass; when absent Ray starts on this machine.

    Raises:
        RunError: Ray is not installed, the cluster is gone, or Ray's engine stopped early.
    """
    check_ray()
    server = _ConfiguredServerApp(server_app, run_config or {})
    client = _ConfiguredClientApp(client_app, run_config or {})
    with _ray_environment(address), connected(address) if address else nullcontext():
        from flwr.simulation import run_simulation  # after the environment: flwr and ray read it when imported

        try:
            run_simulation(server, client, clients, backend_config=_backend(workers))  # joins a Ray that is there
        except Exception as error:
            server.stop()
            if server.error is None:
                raise RunError(f"engine ray: stopped: {_cause(error)}; try --engine local") from error
    if server.error is not None:
        raise server.error


def check_ray() -> None:
    """Refuse where Ray is not installed.

    Raises:
        RunError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise RunError("engine ray: Ray is not installed; pip install 'fedrec[ray]', or set --engine local")


class _ConfiguredClientApp(ClientApp):
    """A client app that sees ``run_config``, which ``run_simulation`` has no way to pass."""

    def __init__(self, client_app: ClientApp, run_config: RunConfig) -> None:
        super().__init__()
        self._client_app = client_app
        self._run_config = dict(run_config)

    def __call__(self, message: Message, context: Context) -> Message:
        own = copy.copy(context)  # the state is shared; Flower refuses a context whose run_config has changed
        own.run_config = context.run_config | self._run_config
        return self._client_app(message, own)


class _ConfiguredServerApp(ServerApp):
    """The same for the server.

    It also keeps the exception, which Flower may report as another, and can be stopped: when the engine breaks,
    Flower would leave the server waiting for replies for ever, in a thread that keeps the process alive.
    """

    def __init__(self, server_app: ServerApp, run_config: RunConfig) -> None:
        super().__init__()
        self._server_app = server_app
        self._run_config = dict(run_config)
        self._stopped = threading.Event()
        self.error: Exception | None = None

    def __call__(self, grid: Grid, context: Context) -> None:
        context.run_config = context.run_config | self._run_config
        try:
            self._server_app(StoppableGrid(grid, stopped=self._stopped), context)
        except Exception as error:
            if not self._stopped.is_set():
                self.error = error
            raise

    def stop(self) -> None:
        """Make the server app's next use of the grid raise."""
        self._stopped.set()


def _cause(error: BaseException) -> str:
    """First line of what broke the engine, under Flower's own wrappers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _backend(workers: int) -> dict[str, dict[str, Any]]:
    """Ray's settings: as many one-CPU actors as asked for, no dashboard, no chatter."""
    return {
        "init_args": {
            "address": "local",  # never a cluster that happens to run here
            "num_cpus": workers,
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": "error",
        },
        "client_resources": {"num_cpus": 1, "num_gpus": 0},
    }


@contextmanager
def _ray_environment(address: str | None) -> Iterator[None]:
    """No telemetry, a random token that every Ray process must know, and Flower's log down to errors.

    Ray listens on all interfaces, so without the token anybody on the network could submit code. The token stays
    for the life of the process, because Ray remembers the first one it saw. A cluster at ``address`` has its own.
    """
    silence()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    python_path = os.environ.get("PYTHONPATH")
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.ERROR)  # it announces its own deprecation at every start
    try:
        yield
    finally:
        flower.setLevel(level)
        os.environ.pop("PYTHONPATH", None)  # Flower's Ray backend extends it at every start
        if python_path is not None:
            os.environ["PYTHONPATH"] = python_path
