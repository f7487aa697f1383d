"""One federation, any engine: in this process, on Ray, or run by Flower's own command. The same adapter comes out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.quiet import SETTINGS as QUIET
from tests.tiny_run import ROOT, Bench, read_lines

pytestmark = pytest.mark.slow

FLWR = os.path.join(os.path.dirname(sys.executable), "flwr")
DEADLINE_S = 240.0


def largest_difference(first, second):
    one, other = (load_file(folder / "adapter.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_adapter_of_the_local_engine(workers, bare_run, tmp_path):
    pytest.importorskip("ray", exc_type=ImportError)
    local, _ = bare_run
    bench = Bench.at(tmp_path, {"federation.workers": workers})
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    flags = [*map(str, bench.inputs), "--out", str(bench.out), "--no-dp", "--engine", "ray", "--json"]
    command = [sys.executable, "-c", "from fedrec.cli import main; main()", "simulate", *flags]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == bench.summary()
    assert bench.summary()["engine"] == "ray"
    assert all(line["admitted"] == 4 for line in read_lines(bench.out / "events.jsonl"))
    assert largest_difference(bench.out, local.out) <= 1e-6
    for name, row in local.summary()["metrics"].items():
        assert bench.summary()["metrics"][name] == pytest.approx(row, abs=1e-6)


def test_workers_give_the_adapter_of_one_process(bare_run, tmp_path):
    local, _ = bare_run
    bench = Bench.at(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    flags = [*map(str, bench.inputs), "--out", str(bench.out), "--no-dp", "--workers", "2", "--json"]
    command = [sys.executable, "-c", "from fedrec.cli import main; main()", "simulate", *flags]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == bench.summary()
    assert all(line["admitted"] == 4 for line in read_lines(bench.out / "events.jsonl"))
    assert largest_difference(bench.out, local.out) == 0


@pytest.fixture
def flwr(tmp_path):
    """Flower's command line with a SuperLink of its own, which is stopped afterwards."""
    pytest.importorskip("ray", exc_type=ImportError)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    neutral = tmp_path / "elsewhere"  # the SuperLink's own folder shadows the app's packages
    neutral.mkdir()
    environment = (
        os.environ
        | QUIET
        | {
            "FLWR_HOME": str(tmp_path / "flwr"),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
            "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"])),
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
        }
    )

    def command(*arguments):
        called = [FLWR, *arguments, "--format", "json"]
        done = subprocess.run(called, env=environment, cwd=neutral, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    yield command
    stop_superlink(port)


def stop_superlink(port):
    """End the SuperLink that listens on our port, by its id; what it started ends with it."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if any(word.endswith("flower-superlink") for word in words) and any(str(port) in word for word in words):
                os.kill(int(process.name), signal.SIGTERM)


def status_of(flwr, run_id):
    return next(run["status"] for run in flwr("list")["runs"] if run["run-id"] == run_id)


def wait_until_finished(flwr, run_id):
    """The status a run ended with; ``flwr run --stream`` would say 0 for a failed one too."""
    deadline = time.monotonic() + DEADLINE_S
    while not (status := status_of(flwr, run_id)).startswith("finished"):
        assert time.monotonic() < deadline, f"still {status} after {DEADLINE_S:g} s"
        time.sleep(1)  # the only way to learn that a run of another process has ended
    return status


def test_flowers_own_command_runs_the_checkout_and_resume_reports(flwr, bare_run, tmp_path):
    local, _ = bare_run
    before = (ROOT / "pyproject.toml").read_bytes()
    bench = Bench.at(tmp_path)
    assert bench.simulate("--no-dp", "--prepare-only").exit_code == 0
    nodes = "num-supernodes=4 client-resources-num-cpus=1"
    workspace = f'workspace="{bench.out}"'
    started = flwr("run", str(ROOT), "--run-config", workspace, "--federation-config", nodes)
    assert wait_until_finished(flwr, started["run-id"]) == "finished:completed"
    assert [line["round"] for line in read_lines(bench.out / "events.jsonl")] == [1, 2, 3]
    assert largest_difference(bench.out, local.out) <= 1e-6
    adapter = (bench.out / "adapter.safetensors").read_bytes()
    outcome = bench.resume("--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert (bench.out / "adapter.safetensors").read_bytes() == adapter
    assert bench.summary()["metrics"]["federated"] == pytest.approx(local.summary()["metrics"]["federated"], abs=1e-6)
    assert (bench.out / "report.html").is_file()
    assert (ROOT / "pyproject.toml").read_bytes() == before, "Flower rewrites outdated settings in place"


def test_flowers_own_command_says_when_the_workspace_is_missing(flwr):
    nodes = "num-supernodes=1 client-resources-num-cpus=1"
    started = flwr("run", str(ROOT), "--federation-config", nodes)
    assert wait_until_finished(flwr, started["run-id"]) == "finished:failed"
