"""Every engine runs the same two apps to the same adapter, and lets the server's errors through."""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import load_file

from fedrec.errors import RunError
from server.app import build_app
from server.job import Job
from server.strategy import ServerState
from simulations import engines
from simulations.engines import run_local, run_ray
from tests.tiny_federation import TinyMerchant, client_app, context_of, job, message_to

ROOT = Path(__file__).parents[2]


def _configured(context: Context) -> TinyMerchant:
    assert context.run_config["workspace"] == "here"
    return TinyMerchant(int(context.node_config["partition-id"]))


def _final(engine: Any, path: Path, **settings: Any) -> ServerState:
    """Run the tiny job on an engine; both sides need the run's configuration."""
    from clients.app import build_app as build_client_app

    finished: list[ServerState] = []

    def job_of(context: Context) -> Job:
        assert context.run_config["workspace"] == "here"
        return job(path)

    server_app = build_app(job_of, on_finish=finished.append)
    engine(server_app, build_client_app(_configured), clients=5, run_config={"workspace": "here"}, **settings)
    return finished[0]


def test_local_engine_finishes_the_job_and_passes_the_configuration(tmp_path: Path) -> None:
    state = _final(run_local, tmp_path / "run")
    assert state.round_index == 8
    assert all(record.admitted == 5 for record in state.records)


def test_local_engine_lets_the_servers_error_through(tmp_path: Path) -> None:
    def missing(context: Context) -> Job:
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="the disk is full"):
        run_local(build_app(missing), client_app(), clients=2)


def test_without_ray_the_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"Ray is not installed; pip install 'fedrec\[ray\]', or set --engine local"):
        run_ray(ServerApp(), client_app(), clients=2, workers=1)


def _with_simulation(monkeypatch: pytest.MonkeyPatch, simulation: Any) -> None:
    """Replace Flower's runtime, which needs Ray."""
    import flwr.simulation

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(flwr.simulation, "run_simulation", simulation)


def _server(main: Any) -> ServerApp:
    server_app = ServerApp()
    server_app.main()(main)
    return server_app


def _context() -> Context:
    from flwr.app import RecordDict

    return Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})


def test_ray_engine_reports_the_servers_own_error_whatever_flower_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowing(server_app: ServerApp, client_app: Any, nodes: int, backend_config: Any) -> None:
        with suppress(ValueError):
            server_app(None, _context())  # type: ignore[arg-type]

    def replacing(server_app: ServerApp, client_app: Any, nodes: int, backend_config: Any) -> None:
        try:
            server_app(None, _context())  # type: ignore[arg-type]
        except ValueError:
            raise RuntimeError("An error was encountered. Ending simulation.") from None

    def main(grid: Grid, context: Context) -> None:
        raise ValueError("the server's own")

    for simulation in (swallowing, replacing):
        _with_simulation(monkeypatch, simulation)
        with pytest.raises(ValueError, match="the server's own"):
            run_ray(_server(main), client_app(), clients=2, workers=1)


def test_ray_engine_that_breaks_names_the_cause_and_frees_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[ServerApp] = []

    def breaking(server_app: ServerApp, client_app: Any, nodes: int, backend_config: Any) -> None:
        kept.append(server_app)
        raise RuntimeError("Simulation Runtime crashed.") from OSError("no memory\nlong story")

    _with_simulation(monkeypatch, breaking)
    with pytest.raises(RunError, match=r"engine ray: stopped: no memory; try --engine local"):
        run_ray(_server(lambda grid, context: grid.get_node_ids()), client_app(), clients=2, workers=1)
    with pytest.raises(RunError, match="the engine has stopped"):
        kept[0](None, _context())  # type: ignore[arg-type]


def test_ray_is_asked_for_its_actors_a_token_and_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("PYTHONPATH", "mine")
    seen: dict[str, Any] = {}

    def noting(server_app: ServerApp, client_app: Any, nodes: int, backend_config: Any) -> None:
        seen.update(backend_config, environment=dict(os.environ), nodes=nodes)
        os.environ["PYTHONPATH"] = "longer"

    _with_simulation(monkeypatch, noting)
    run_ray(_server(lambda grid, context: None), client_app(), clients=7, workers=3)
    assert seen["init_args"]["num_cpus"] == 3
    assert seen["init_args"]["include_dashboard"] is False
    assert seen["client_resources"] == {"num_cpus": 1, "num_gpus": 0}
    assert seen["nodes"] == 7
    assert seen["environment"]["RAY_AUTH_MODE"] == "token"
    assert len(seen["environment"]["RAY_AUTH_TOKEN"]) == 64
    assert seen["environment"]["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["PYTHONPATH"] == "mine"
    monkeypatch.delenv("PYTHONPATH")
    run_ray(_server(lambda grid, context: None), client_app(), clients=7, workers=3)
    assert "PYTHONPATH" not in os.environ
    assert os.environ["RAY_AUTH_TOKEN"] == seen["environment"]["RAY_AUTH_TOKEN"]


def test_client_sees_the_configuration_but_its_context_stays_as_flower_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower refuses a client context whose run_config has changed."""
    from clients.app import build_app as build_client_app

    def calling(server_app: ServerApp, client_app: Any, nodes: int, backend_config: Any) -> None:
        context = context_of(1)
        assert client_app(message_to(5), context).has_content()
        assert context.run_config == {}

    _with_simulation(monkeypatch, calling)
    run_ray(
        _server(lambda grid, context: None),
        build_client_app(_configured),
        clients=2,
        workers=1,
        run_config={"workspace": "here"},
    )


def test_cause_of_an_error_without_text_is_its_kind() -> None:
    assert engines._cause(ValueError()) == "ValueError"


RAY_PROGRAM = """
import sys
from pathlib import Path
from fedrec.errors import RunError
from server.app import build_app
from simulations.engines import run_ray
from tests.tiny_federation import client_app, job

def missing(context):
    raise RunError("the disk is full")

path, workers = Path(sys.argv[1]), int(sys.argv[2])
job_of = missing if path.name == "missing" else lambda context: job(path)
run_ray(build_app(job_of), client_app(), clients=5, workers=workers)
"""


def _ray(path: Path, *, workers: int) -> subprocess.CompletedProcess[str]:
    """Run the tiny job on Ray in a process of its own, so that Ray's leftovers end with it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RAY_PROGRAM, str(path), str(workers)]
    return subprocess.run(command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_ray_with_one_and_two_actors_gives_the_adapter_of_the_local_engine(tmp_path: Path) -> None:
    run_local(build_app(lambda context: job(tmp_path / "local")), client_app(), clients=5)
    expected = load_file(tmp_path / "local" / "adapter.safetensors")
    for workers in (1, 2):
        path = tmp_path / f"ray{workers}"
        ended = _ray(path, workers=workers)
        assert ended.returncode == 0, ended.stderr
        published = load_file(path / "adapter.safetensors")
        for name, values in expected.items():
            np.testing.assert_allclose(published[name], values, atol=1e-6, rtol=0)
        lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
        assert [(line["round"], line["admitted"]) for line in lines] == [(index, 5) for index in range(1, 9)]


@pytest.mark.slow
def test_ray_engine_lets_the_servers_error_through(tmp_path: Path) -> None:
    ended = _ray(tmp_path / "missing", workers=1)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "fedrec.errors.RunError: the disk is full"
