"""A grid that can be told that its engine is gone, so that nobody waits for replies that cannot come."""

import threading
from collections.abc import Iterable, Iterator

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.errors import RunError
from server.polling import replies_to

POLL_S = 0.05


class StoppableGrid(Grid):
    """Passes everything on to another grid until ``stopped`` is set; then every call raises ``RunError``."""

    def __init__(self, grid: Grid, *, stopped: threading.Event) -> None:
        self._grid = grid
        self._stopped = stopped

    def set_run(self, run: Run) -> None:
        """Take part in ``run``."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Run information."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; Flower keeps this for older apps."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes that have joined."""
        self._check()
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        self._check()
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are there."""
        self._check()
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply soon after it arrives, until all are here or ``timeout`` seconds pass."""
        return replies_to(self, messages, timeout_s=timeout, poll_s=POLL_S, wait=self._stopped.wait)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise RunError("the engine has stopped; resume the run")
