"""Two nodes of a Ray cluster on this machine, started by Ray's own command, with a token."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fedrec.errors import RunError
from simulations.ray_cluster import check_door
from tests.tiny_run import ROOT

TOKEN = "0123456789abcdef" * 2
DEADLINE_S = 120.0


class Cluster(NamedTuple):
    """Two real nodes of one CPU each, and what a program needs to join them."""

    address: str
    environment: dict[str, str]


@contextlib.contextmanager
def two_nodes(home: Path) -> Iterator[Cluster]:
    """Started as an operator would, who keeps the token in ``home``; every process ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "token").write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    ray += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, contextlib.ExitStack() as stack:  # a short path: sockets
        head = [f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        ports = ["--min-worker-port=0", "--max-worker-port=0"]
        stack.callback(_end_processes_of, folder)
        _wait_for_head(_start([*ray, "--head", *head, *ports], environment, stack), f"127.0.0.1:{port}")
        _start([*ray, f"--address=127.0.0.1:{port}", *ports], environment, stack)
        yield Cluster(f"127.0.0.1:{port}", environment)


def _start(command: list[str], environment: dict[str, str], stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    """Start a node that ends when the fixture does."""
    quiet = subprocess.DEVNULL
    node = subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)
    stack.callback(node.wait, 60)
    stack.callback(node.terminate)
    return node


def _wait_for_head(head: subprocess.Popen[bytes], address: str) -> None:
    """Return when the head lets the token in."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return check_door(address, TOKEN)
        except RunError:
            assert head.poll() is None, "the head ended"
            assert time.monotonic() < deadline, f"no head after {DEADLINE_S:g} s"
            time.sleep(0.2)  # the only way to learn that another program listens


def _end_processes_of(folder: str) -> None:
    """End by their ids what a node left behind; each names the cluster's own folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder in (process / "cmdline").read_text(errors="replace"):
                os.kill(int(process.name), signal.SIGTERM)


def run_python(cluster: Cluster, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python beside the cluster, in a process of its own, so that Ray's leftovers end with it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        check=False,
        env=cluster.environment | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
