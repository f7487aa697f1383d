"""Processes that run a tiny federation and die on the way: ``python -m tests.tiny_crashes MODE FOLDER``.

One parent imports everything once and forks a child for each try, so that many deaths cost seconds. Modes:

whole    a run that nothing stops
random   a run whose processes are killed at random moments, until one of them finishes
steps    for each N a run in FOLDER/N whose process is killed just before its N-th wait for the disk, and then goes on
short    a run of few rounds that nothing stops
disk     a run in which for a while no file may grow over 9,000 bytes
"""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from clients.replies import Answer
from fedrec.errors import FedrecError
from fedrec.runfolder import RunFolder
from fedrec.signed import arrays_digest
from fedrec.wire import Instruction
from server.job import run_job
from server.measures import Measuring
from simulations.local_grid import LocalGrid
from tests.tiny_federation import TinyMerchant, client_app, federation, job

ROUNDS = 60
SHORT = 4  # rounds of a run that dies at a known step
STEPS = 36  # waits for the disk in such a run: all of them
KILLS = 25
FULL = 9_000
LONGEST_S = 0.08
REFUSED = 7


def run(folder: Path, rounds: int = ROUNDS) -> None:
    """Go on with the run in ``folder``; three of five clients a round, metrics in every other."""

    class Noting(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            line = f"{instruction.round_index} {self.partition} {arrays_digest(instruction.adapter)}\n"
            with (folder.parent / "asked").open("ab", buffering=0) as asked:
                asked.write(line.encode())
            return super().train_round(instruction)

    settings = federation(
        clients_per_round=3, rounds=rounds, measuring=Measuring(TinyMerchant.metrics, every=2, noise_std=0.1)
    )
    with RunFolder.open_for_resume(folder) as opened:
        work = job(
            opened, federation=settings, epsilon_after=lambda done: done / 10, heads=folder.parent / "heads.json"
        )
        run_job(LocalGrid(client_app(Noting), clients=5), work)


def child(task: Callable[[], None]) -> int:
    """Start ``task`` in a process of its own; return its number."""
    if process := os.fork():
        return process
    try:
        task()
    except FedrecError as error:
        print(error, flush=True)  # what the test reads
        os._exit(REFUSED)
    except BaseException:
        os._exit(1)
    os._exit(0)


def ended(process: int) -> int:
    """Wait for a child; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def killed_at_random(folder: Path) -> None:
    """Kill children after random times until ``KILLS`` of them have died, then let one finish."""
    rng, kills, started = random.Random(0), 0, time.monotonic()  # when to kill is no secret
    while kills < KILLS and time.monotonic() - started < 60:
        process = child(lambda: run(folder))
        time.sleep(rng.uniform(0.0, LONGEST_S))
        os.kill(process, signal.SIGKILL)
        kills += ended(process) == -signal.SIGKILL
    print(kills, flush=True)


def killed_at_step(folder: Path, step: int) -> None:
    """Kill a child just before its ``step``-th wait for the disk."""

    def task() -> None:
        fsync, left = os.fsync, [step]

        def fsync_or_die(descriptor: int) -> None:
            left[0] -= 1
            if not left[0]:
                die()
            fsync(descriptor)

        os.fsync = fsync_or_die
        run(folder, SHORT)

    print(ended(child(task)), flush=True)


def on_a_full_disk(folder: Path) -> None:
    """A child in which no file may grow."""

    def task() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, resource.RLIM_INFINITY))
        run(folder)

    print(ended(child(task)), flush=True)


def main() -> int:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "steps":
        statuses = []
        for step in range(1, STEPS + 1):
            (folder / str(step)).mkdir(parents=True)
            RunFolder.create(folder / str(step) / "run").close()
            killed_at_step(folder / str(step) / "run", step)
            statuses.append(ended(child(lambda: run(folder / str(step) / "run", SHORT))))  # noqa: B023  # runs at once
        return max(statuses)
    RunFolder.create(folder).close()
    before = {"random": killed_at_random, "disk": on_a_full_disk}.get(mode, lambda folder: None)
    before(folder)
    return ended(child(lambda: run(folder, SHORT if mode == "short" else ROUNDS)))


if __name__ == "__main__":
    sys.exit(main())
