"""Two resident nodes behind a real SuperLink, a run by Flower's own command: the adapter of the local engine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.quiet import SETTINGS as QUIET
from tests.tiny_run import ROOT, Bench, read_lines

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
DEADLINE_S = 180.0
TWO_CLIENTS = {"partition.clients": 2, "federation.min_replies": 1.0, "statistics.noise_share": 0.4}
RESIDENT = """
import logging, signal, sys, threading
from fedrec.quiet import silence
silence()
logging.basicConfig(level=logging.INFO)
from clients.app import app
from clients.transport import Link
from clients.node import run_node
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
own = {"node_config": {"partition-id": int(sys.argv[3])}, "run_config": {"workspace": sys.argv[2]}}
run_node(app, Link(sys.argv[1]), stop=stop, poll_s=0.1, **own)
"""


class Hosts:
    """Processes of one federation on the loopback interface, in a Flower folder of their own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        home = folder / "flwr"
        home.mkdir()
        link = f'[superlink]\ndefault = "lo"\n\n[superlink.lo]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        (home / "config.toml").write_text(link, encoding="utf-8")
        path = os.pathsep.join((str(BIN), os.environ["PATH"]))
        own = {"FLWR_HOME": str(home), "HOME": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}
        self.environment = os.environ | QUIET | own

    def superlink(self) -> subprocess.Popen:
        """Start the server's side and wait until it answers."""
        words = ("--insecure", "--host", "127.0.0.1", "--port", str(self.port))
        process = self._start(str(BIN / "flower-superlink"), *words, "--disable-runtime-dependency-installation")
        self._until(lambda: httpx.get(f"http://127.0.0.1:{self.port}/health").is_success, "the SuperLink's health")
        return process

    def node(self, workspace: Path, partition: int) -> subprocess.Popen:
        """Start a client that stays."""
        words = (f"127.0.0.1:{self.port}", str(workspace), str(partition))
        return self._start(sys.executable, "-c", RESIDENT, *words, PYTHONPATH=str(ROOT))

    def flwr(self, *words: str) -> dict:
        """Flower's own command."""
        command = [str(BIN / "flwr"), *words, "--format", "json"]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def run(self, workspace: Path) -> str:
        """Run the checkout's app over ``workspace``; return the status it ended with."""
        run_id = self.flwr("run", str(ROOT), "lo", "--run-config", f'workspace="{workspace}"')["run-id"]
        self._until(lambda: self._status(run_id).startswith("finished"), "the end of the run")
        return self._status(run_id)

    def end(self) -> None:
        """End every process that was started, and what those started."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _status(self, run_id: str) -> str:
        return next(run["status"] for run in self.flwr("list", "lo")["runs"] if run["run-id"] == run_id)

    def _start(self, *command: str, **more: str) -> subprocess.Popen:
        with (self.folder / f"{len(self.started)}.log").open("w") as log:
            process = subprocess.Popen(
                command, env=self.environment | more, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.started.append(process)
        return process

    def _until(self, holds, what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with suppress(httpx.HTTPError):
                if holds():
                    return
            assert time.monotonic() < deadline, f"no {what} after {DEADLINE_S:g} s"
            time.sleep(0.5)  # the only way to learn of another process


@pytest.fixture
def hosts(tmp_path):
    started = Hosts(tmp_path)
    yield started
    started.end()


def test_resident_nodes_give_the_adapter_of_the_local_engine_even_after_their_server_was_killed(hosts, tmp_path):
    local = Bench.at(tmp_path / "local", TWO_CLIENTS)
    assert local.simulate("--no-dp").exit_code == 0
    bench = Bench.at(tmp_path / "bench", TWO_CLIENTS)
    assert bench.simulate("--no-dp", "--prepare-only").exit_code == 0
    first = hosts.superlink()
    nodes = [hosts.node(bench.out, partition) for partition in range(2)]
    hosts._until(lambda: all(b"joined" in joined for joined in logs(hosts, [1, 2])), "nodes")
    os.killpg(first.pid, signal.SIGKILL)
    hosts.superlink()  # remembers nothing: the nodes find out, and register again
    assert hosts.run(bench.out) == "finished:completed"
    assert [line["admitted"] for line in read_lines(bench.out / "events.jsonl")] == [2, 2, 2]
    assert largest_difference(bench.out, local.out) <= 1e-6
    counts = [load_file(run.out / "statistics.safetensors") for run in (bench, local)]
    assert len(counts[0]["counts"]) > 0
    assert all(np.allclose(values, counts[1][name]) for name, values in counts[0].items())
    for node in nodes:
        node.terminate()
        assert node.wait(timeout=30) == 0
    assert all(log.count(b"joined") == 2 for log in logs(hosts, [1, 2]))


def logs(hosts: Hosts, which: list[int]) -> list[bytes]:
    return [(hosts.folder / f"{number}.log").read_bytes() for number in which]


def largest_difference(first: Path, second: Path) -> float:
    one, other = (load_file(folder / "adapter.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
