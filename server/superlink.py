"""Flower's SuperLink as a child process on loopback, started again whenever it dies.

It authenticates clients, keeps its state in SQLite, and starts no process of its own: with ``--isolation process`` a
run's task waits until somebody who knows the secret takes it, which is ``server/flower_run.py`` and nobody else.
"""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import IO

from fedrec.errors import ConfigError, FedrecError, RunError
from fedrec.quiet import SETTINGS
from server.loopback import HOST, Loopback

log = logging.getLogger(__name__)

START_S = 60.0  # it imports for seconds; a busy machine takes longer
STOP_S = 1.5
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
CALM_S = 60.0  # one that lived this long was well: the delays begin anew
PROBE_S = 10.0
SILENT_S = 60.0  # twice as long as anybody waits for its answer
LOG_BYTES = 5 * 2**20  # of superlink.log and of the one before it

_CHILD = Path(__file__).with_name("superlink_child.py")
_LOOK_S = 0.05
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class SuperLink:
    """A supervised SuperLink; use it in a ``with``.

    Args:
        loopback: where it listens and keeps its state.
        on_start: called, in the supervisor's thread except the first time, each time it answers after a start.
    """

    def __init__(self, loopback: Loopback, *, on_start: Callable[[], None] = lambda: None) -> None:
        self._loopback, self._on_start = loopback, on_start
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._logger: threading.Thread | None = None
        self._watcher = threading.Thread(target=self._watch, name="superlink", daemon=True)

    def __enter__(self) -> "SuperLink":
        """Start it and wait until it answers.

        Raises:
            ConfigError: the port is taken, or the state folder cannot be used.
            RunError: it does not come up; names its log.
        """
        self._loopback.prepare(now=datetime.now(UTC))
        _check_free(self._loopback.port)
        try:
            if not self._start():
                raise RunError(f"{self._loopback.log}: SuperLink did not start; its last words are in this file")
            self._on_start()
        except BaseException:
            self._end()
            raise
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._end()
        self._watcher.join()

    @property
    def pid(self) -> int:
        """Process number of the SuperLink that runs now, or that ran last."""
        return self._process.pid if self._process else 0

    def _watch(self) -> None:
        """Start it again when it has died or fallen silent, ever more slowly while it does not live."""
        waits = _delays()
        born = time.monotonic()
        while not self._stopping.is_set():
            status = self._ended(self._process) if self._process else None
            if self._stopping.is_set():
                return
            self._end()
            if time.monotonic() - born > CALM_S:
                waits = _delays()
            wait_s = next(waits)
            log.warning("superlink=dead status=%s restart_in_s=%g", status, wait_s)
            if self._stopping.wait(wait_s):
                return
            born = time.monotonic()
            if self._start():
                log.info("superlink=up pid=%d seconds=%.1f", self.pid, time.monotonic() - born)
                with suppress(FedrecError):  # it may have died meanwhile, which the next turn sees
                    self._on_start()

    def _ended(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait until it has ended, which it is made to when it lives and is silent for long; return its status."""
        heard = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(PROBE_S)
            if self._loopback.is_up():
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_S:
                log.warning("superlink=silent seconds=%.0f", time.monotonic() - heard)
                process.kill()

    def _start(self) -> bool:
        """Start it; say whether it answers in time. One that does not is ended."""
        try:
            self._process = process = self._child()
        except OSError as error:  # no memory or no process left, perhaps for a moment
            log.warning("superlink=not started reason=%r", error.strerror)
            return False
        assert process.stdout is not None  # noqa: S101  # asked for above
        self._logger = threading.Thread(target=_keep_log, args=(process.stdout, self._loopback.log), daemon=True)
        self._logger.start()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None and not self._stopping.is_set():
            if self._loopback.is_up():
                return True
            self._stopping.wait(_LOOK_S)
        self._end()
        return False

    def _child(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603  # our own words alone
            _command(self._loopback),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._loopback.state,  # neutral: nothing there can be imported
            env=_environment(self._loopback),
            umask=0o077,
            start_new_session=True,  # a Ctrl-C is for us, and we end it
        )

    def _end(self) -> None:
        """End it unless it has ended, and wait until it is gone."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin and self._logger:
            process.stdin.close()
            self._logger.join(STOP_S)  # its last words are written


def _command(loopback: Loopback) -> list[str]:
    words = [sys.executable, "-P", str(_CHILD)]  # -P: nothing beside the file can be imported in place of Flower
    words += ["--host", HOST, "--port", str(loopback.port), "--database", str(loopback.database)]
    words += ["--ssl-certfile", str(loopback.certificate), "--ssl-keyfile", str(loopback.key)]
    words += ["--ssl-ca-certfile", str(loopback.authority), "--enable-supernode-auth"]
    words += ["--isolation", "process", "--superexec-auth-secret-file", str(loopback.secret)]
    return [*words, "--disable-runtime-dependency-installation"]


def _environment(loopback: Loopback) -> dict[str, str]:
    """Ours, without any switch of Flower's that somebody set: some of them open further ports."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return inherited | SETTINGS | {"FLWR_HOME": str(loopback.state / "flwr")}


def _check_free(port: int) -> None:
    """Wait a moment for the port: a SuperLink whose parent was killed needs one to notice and leave."""
    end = time.monotonic() + STOP_S + 1
    while True:
        try:
            socket.create_server((HOST, port)).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"superlink_port={port}: cannot listen there: {os.strerror(error.errno or 0)}; "
                    "is another fedrec server running? if not, choose another port"
                ) from None
        time.sleep(_LOOK_S)


def _keep_log(said: IO[bytes], path: Path) -> None:
    """Write what SuperLink says to its log, which is bounded."""
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    with said:
        for line in said:
            text = _COLOUR.sub("", line.decode("utf-8", "replace").rstrip("\n"))
            handler.emit(logging.makeLogRecord({"msg": text}))
    handler.close()


def _delays() -> Iterator[float]:
    """Seconds to wait before each start after a death: doubling from 1 to 60."""
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
