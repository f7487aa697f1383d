"""Contenders in processes of their own, one timed run each in turn, so that a slow minute of the machine hits all."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.pace import DONE, RAN, READY
from benchmarks.peers.processes import MARK, cpu_s, marked, peak_mb

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 400  # for one round, a start or an end; a contender that needs longer counts as failed


class ContenderError(Exception):
    """A contender ended early or is too slow; the text says how, in one line."""


@dataclass
class Result:
    """What was measured of one contender in one regime; ``failure`` is empty where nothing went wrong."""

    name: str
    start_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    bytes: int = 0
    checksum: float | None = None
    failure: str = ""


class Contender:
    """A contender's process and what was measured of it.

    Args:
        name, regime: of ``benchmarks.peers.contender``.
        runs: timed runs.
        python: interpreter of its environment.
    """

    def __init__(self, name: str, regime: str, *, runs: int, python: str) -> None:
        self.result = Result(name)
        self._mark = uuid.uuid4().hex
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115, closed in close()
        self._lines: queue.Queue[str] = queue.Queue()
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.contender", name, regime, "--runs", str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=os.environ | one_thread | {MARK: self._mark, "PYTHONPATH": str(ROOT)},
            text=True,
            bufsize=1,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self) -> None:
        """Wait until it has started and finished its first round, which is not timed as a run."""
        began = time.perf_counter()
        self._expect(READY)
        self.result.start_s = time.perf_counter() - began

    def run_once(self) -> None:
        """Let it do one timed run."""
        before = cpu_s(self._mark)
        self._go_on()
        self.result.seconds.append(self._expect(RAN)["seconds"])
        self.result.cpu_s.append(cpu_s(self._mark) - before)

    def finish(self) -> None:
        """Note what it used, let it end, and note where it came to."""
        self.result.peak_mb = peak_mb(self._mark)
        self._go_on()
        done = self._expect(DONE)
        self.result.checksum, self.result.bytes = done["checksum"], done["bytes"]

    def close(self) -> None:
        """End it and whatever it started."""
        self._process.kill()
        self._process.wait()
        for folder in marked(self._mark):
            with suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(BrokenPipeError):
                stream.close()

    def _read(self) -> None:
        """Queue its lines; an empty one where it has ended."""
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _go_on(self) -> None:
        try:
            self._process.stdin.write("\n")
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None

    def _expect(self, event: str) -> dict:
        """Read lines until the event; others may print to stdout too."""
        end = time.monotonic() + PATIENCE_S
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if not line:
                raise ContenderError(self._last_words())
            if line.startswith("{") and (said := json.loads(line)).get("event") == event:
                return said
        raise ContenderError(f"no answer within {PATIENCE_S} s")

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return (lines or ["ended without a word"])[-1][:200]


def measure(
    names: Sequence[str], regime: str, *, runs: int, pythons: dict[str, str], tell: Callable[[str], None]
) -> list[Result]:
    """Start the contenders one after another, let each take its turn ``runs`` times, end them.

    Args:
        names: contenders, in the order in which they take turns; every second round of turns goes backwards.
        pythons: interpreter of those that do not run in this one.
        tell: takes a line a person may want to read.
    """
    contenders = []
    try:
        for name in names:
            contender = Contender(name, regime, runs=runs, python=pythons.get(name, sys.executable))
            contenders.append(contender)
            _try(contender, contender.start)
            tell(f"{regime}: {name} started in {contender.result.start_s:.1f} s {contender.result.failure}".rstrip())
        for turn in range(runs):
            for contender in contenders[:: -1 if turn % 2 else 1]:
                _try(contender, contender.run_once)
            tell(f"{regime}: turn {turn + 1} of {runs}")
        for contender in contenders:
            _try(contender, contender.finish)
    finally:
        for contender in contenders:
            contender.close()
    return [contender.result for contender in contenders]


def _try(contender: Contender, action: Callable[[], None]) -> None:
    """A contender that has failed takes no more turns."""
    if contender.result.failure:
        return
    try:
        action()
    except ContenderError as error:
        contender.result.failure = str(error)
