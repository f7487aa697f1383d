"""How fast a run is served: in process, and over HTTP by ``fedrec serve``. Prints; asserts nothing.

python -m benchmarks.serving RUN [SECONDS]

The store holds the bundled events; people and lists are drawn from it with a fixed seed.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import torch

from clients.serving.events import Event
from clients.serving.http.answering import recommend_answer
from clients.serving.http.bodies import RecommendBody
from clients.serving.served import Current, load_served
from clients.serving.store import EventStore
from fedrec.data.bundled import load_bundled

CONNECTIONS = 16
REQUESTS_IN_PROCESS = 2_000
SERVE = "from fedrec.cli import main; main()"


def main() -> None:
    """Measure both and print a line each."""
    run, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.sqlite"
        with EventStore.create(path) as store:
            rows = load_bundled()[0].select("user_id", "item_id", "timestamp").iter_rows()
            store.append_all((f"row {n}", Event(user, item, at, "purchase")) for n, (user, item, at) in enumerate(rows))
            people = np.random.default_rng(0).permutation(store.people()).tolist()
            print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
            in_process(run, store, people)
        over_http(run, path, people, seconds=seconds)
        print(f"load {os.getloadavg()[0]:.1f}")


def in_process(run: Path, store: EventStore, people: list[str]) -> None:
    """One recommendation after another, history read from the store, one torch thread."""
    torch.set_num_threads(1)
    current = Current(lambda folder: load_served(folder, encoder=None, cache=folder / "cache"), store, run=run)
    taken, before = [], _cpu_s(os.getpid())
    for n in range(REQUESTS_IN_PROCESS + 50):
        began = time.perf_counter()
        recommend_answer(current.served, store, RecommendBody(user=people[n % len(people)]), latest=1_000)
        taken.append(time.perf_counter() - began)
    cpu_s = _cpu_s(os.getpid()) - before
    tell("in process", taken[50:], wall=sum(taken[50:]), cpu_s=cpu_s)


def over_http(run: Path, store: Path, people: list[str], *, seconds: float) -> None:
    """As many clients as ``CONNECTIONS``, each with a connection of its own and always one request under way."""
    command = [sys.executable, "-c", SERVE, "serve", str(run), "--store", str(store), "--port", "0", "--json"]
    command += ["--requests-per-s", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            address = json.loads(serving.stdout.readline())["address"]
            before = _cpu_s(serving.pid)
            taken, failed = asyncio.run(_many(address, people, seconds=seconds))
            cpu_s = _cpu_s(serving.pid) - before
        finally:
            serving.terminate()
    tell(f"HTTP, {CONNECTIONS} connections, {failed} errors", taken, wall=seconds, cpu_s=cpu_s)


async def _many(address: str, people: list[str], *, seconds: float) -> tuple[list[float], int]:
    taken: list[float] = []
    failed, end = 0, time.perf_counter() + seconds

    async def one(worker: int) -> None:
        nonlocal failed
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as client:
            for person in people[worker::CONNECTIONS] * 1_000:
                if (began := time.perf_counter()) > end:
                    return
                answer = await client.post("/v1/recommend", json={"user": person})
                failed += answer.status_code != 200
                taken.append(time.perf_counter() - began)

    await asyncio.gather(*(one(worker) for worker in range(CONNECTIONS)))
    return taken, failed


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tell(what: str, taken: list[float], *, wall: float, cpu_s: float) -> None:
    """Percentiles in milliseconds, how many a second, and the processor time of one, which load hardly moves."""
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    rate, cpu_ms = len(taken) / wall, 1e3 * cpu_s / len(taken)
    print(f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {rate:.0f} a second, {cpu_ms:.1f} ms of processor time each")


if __name__ == "__main__":
    main()
