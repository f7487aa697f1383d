"""Replies as soon as they arrive: Flower's own ``Grid`` looks for them every three seconds."""

import time
from collections.abc import Callable, Iterable, Iterator

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

POLL_S = 0.2


def replies_to(
    grid: Grid,
    messages: Iterable[Message],
    *,
    timeout_s: float | None,
    poll_s: float,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Message]:
    """Send messages and yield each reply soon after it arrives.

    Args:
        grid: Flower's way to the clients.
        messages: for one client each.
        timeout_s: when to give up on the replies that are missing; None waits for all.
        poll_s: how long to wait between two looks, > 0.
        wait: waits that long; may raise.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    waiting = {one for one in grid.push_messages(messages) if one}  # Flower has no number for what it did not take
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if not waiting or (deadline is not None and time.monotonic() >= deadline):
            return
        wait(poll_s)


class PassingGrid(Grid):
    """Passes everything on to another grid; for those that change one thing."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

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
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; as a list, because Flower's grid reads them twice."""
        return self._grid.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies."""
        return self._grid.send_and_receive(messages, timeout=timeout)


class PollingGrid(PassingGrid):
    """Waits for replies with ``replies_to``."""

    def __init__(self, grid: Grid, *, poll_s: float = POLL_S) -> None:
        super().__init__(grid)
        self._poll_s = poll_s

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply soon after it arrives, until all are here or ``timeout`` seconds pass."""
        return replies_to(self, messages, timeout_s=timeout, poll_s=self._poll_s)
