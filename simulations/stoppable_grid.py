"""A grid that can be told that its engine is gone, so that nobody waits for replies that cannot come."""

import threading
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

from fedrec.errors import RunError
from server.polling import PassingGrid, replies_to

POLL_S = 0.05


class StoppableGrid(PassingGrid):
    """Passes everything on to another grid until ``stopped`` is set; then every call to clients raises ``RunError``."""

    def __init__(self, grid: Grid, *, stopped: threading.Event) -> None:
        super().__init__(grid)
        self._stopped = stopped

    def get_node_ids(self) -> Iterable[int]:
        """All nodes that have joined."""
        self._check()
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        self._check()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are there."""
        self._check()
        return super().pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply soon after it arrives, until all are here or ``timeout`` seconds pass."""
        return replies_to(self, messages, timeout_s=timeout, poll_s=POLL_S, wait=self._stopped.wait)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise RunError("the engine has stopped; resume the run")
