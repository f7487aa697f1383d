"""A stopped grid raises instead of waiting."""

import threading

import pytest
from flwr.app import Message

from fedrec.errors import RunError
from simulations.local_grid import LocalGrid
from simulations.stoppable_grid import StoppableGrid
from tests.tiny_federation import client_app, message_to


def _grid(stopped: threading.Event) -> StoppableGrid:
    return StoppableGrid(LocalGrid(client_app(), clients=2, run_id=3), stopped=stopped)


def test_grid_passes_everything_on() -> None:
    grid = _grid(threading.Event())
    assert list(grid.get_node_ids()) == [2, 3]
    assert grid.run.run_id == 3
    grid.set_run(grid.run)
    assert grid.create_message(message_to(2).content, "train", 2, "1").metadata.dst_node_id == 2
    replies = list(grid.send_and_receive([message_to(2), message_to(3)]))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3] or len(replies) == 2


def test_every_use_of_a_stopped_grid_raises() -> None:
    stopped = threading.Event()
    grid = _grid(stopped)
    stopped.set()
    for use in (
        grid.get_node_ids,
        lambda: grid.push_messages([]),
        lambda: grid.pull_messages([]),
        lambda: list(grid.send_and_receive([])),
    ):
        with pytest.raises(RunError, match="the engine has stopped; resume the run"):
            use()


class Deaf(LocalGrid):
    """Never has a reply, and says so to whoever wants to stop it."""

    stopped: threading.Event | None = None

    def pull_messages(self, message_ids: object) -> list[Message]:
        if self.stopped:
            self.stopped.set()
        return []


def test_waiting_for_replies_ends_when_the_engine_stops() -> None:
    deaf, stopped = Deaf(client_app(), clients=1), threading.Event()
    deaf.stopped = stopped
    with pytest.raises(RunError, match="the engine has stopped"):
        list(StoppableGrid(deaf, stopped=stopped).send_and_receive([message_to(2)]))


def test_waiting_for_replies_ends_at_the_deadline() -> None:
    grid = StoppableGrid(Deaf(client_app(), clients=1), stopped=threading.Event())
    assert list(grid.send_and_receive([message_to(2)], timeout=0)) == []
