"""Worker processes that answer for clients on several cores; none outlives the process that started it.

Messages go through pipes in Flower's own wire form. A client is always served by the same worker, so no two processes
touch one ledger, and replies come back in the order in which they were asked for, so that a run's result does not
depend on how many workers there are.
"""

import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from fedrec.config import Config
from fedrec.errors import RunError
from simulations.worker_process import BEGIN, MESSAGE

ASKED_AHEAD = 4  # messages a worker, at most, that wait in memory: nobody is idle, and nothing piles up
STEPS_EACH = 250  # local steps of a run that are worth the seconds and the memory of one more worker
STOP_S = 5.0


def worker_count(config: Config) -> int:
    """Return how many processes train clients: what is set, or what the cores and the size of the run suggest, >= 1."""
    if config.federation.workers:
        return config.federation.workers
    steps = config.federation.rounds * config.clients_per_round * config.federation.local_steps
    return max(1, min(_cores(), steps // STEPS_EACH))


def _cores() -> int:
    """How many cores this process may use, where the operating system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Some worker processes; use them in a ``with``. Entering returns at once: they import while others work.

    Args:
        count: how many, >= 1.
        app: ``module:function``, importable; the function makes the client app of a run.
    """

    def __init__(self, count: int, *, app: str) -> None:
        self._count, self._app = count, app
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        """Start them.

        Raises:
            RunError: the operating system refuses.
        """
        try:
            for number in range(self._count):
                self._workers.append(_Worker(number, app=self._app))
        except OSError as error:
            self._end()
            raise RunError(
                f"engine local: a worker process cannot be started: {error.strerror}; use fewer with --workers"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def processes(self) -> list[int]:
        """Process numbers."""
        return [worker.process.pid for worker in self._workers]

    def begin(self, *, clients: int, run_config: Mapping[str, Any], run_id: int) -> None:
        """Let every worker make the client app anew, for a run with these settings.

        Raises:
            RunError: a worker has ended.
        """
        settings = {"clients": clients, "run_config": dict(run_config), "run_id": run_id}
        for worker in self._workers:
            worker.send(BEGIN + json.dumps(settings).encode())

    def answers(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield the reply to each message, in the order of the messages; a bounded number is asked ahead.

        Raises:
            RunError: a worker has ended.
        """
        source, asked = iter(messages), deque[_Worker]()
        try:
            while True:
                while len(asked) < ASKED_AHEAD * self._count and (message := next(source, None)) is not None:
                    worker = self._workers[message.metadata.dst_node_id % self._count]
                    worker.send(MESSAGE + message_to_proto(message).SerializeToString())
                    asked.append(worker)
                if not asked:
                    return
                reply = asked[0].receive()
                asked.popleft()
                yield reply
        finally:  # nobody waits for the rest, as with any late reply
            for worker in asked:
                worker.unwanted += 1

    def _end(self) -> None:
        """End all of them, and wait until they are gone."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.end()
        self._workers = []


class _Worker:
    """One process and the pipe to it.

    Attributes:
        unwanted: replies that are still to come and that nobody waits for.
    """

    def __init__(self, number: int, *, app: str) -> None:
        self._number, self.unwanted = number, 0
        ours, theirs = socket.socketpair()
        with theirs:
            self.pipe = Connection(ours.detach())
            try:
                self.process = _started(theirs.fileno(), app=app)
            except OSError:
                self.pipe.close()
                raise

    def send(self, frame: bytes) -> None:
        try:
            self.pipe.send_bytes(frame)
        except OSError:
            raise self._has_ended() from None

    def receive(self) -> Message:
        """Return the oldest reply that is wanted."""
        try:
            while self.unwanted:
                self.pipe.recv_bytes()
                self.unwanted -= 1
            return message_from_proto(ProtoMessage.FromString(self.pipe.recv_bytes()))
        except (EOFError, OSError):
            raise self._has_ended() from None

    def end(self) -> None:
        """Wait until it is gone; it goes by itself once the pipe is closed."""
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _has_ended(self) -> RunError:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        return RunError(
            f"engine local: worker process {self._number} has ended with status {self.process.poll()}: out of "
            "memory, perhaps; go on with --resume, or with fewer --workers"
        )


def _started(descriptor: int, *, app: str) -> "subprocess.Popen[bytes]":
    """A process of its own, not a fork, which is unsafe once threads run; one core each."""
    words = [sys.executable, "-P", "-m", "simulations.worker_process", str(descriptor), app]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(  # noqa: S603  # our own words alone
        words,
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what is printed there is the run's result
        env=environment,
        start_new_session=True,  # a Ctrl-C is for the parent, and these end with it
    )
