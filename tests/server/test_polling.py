"""Replies come as soon as they are there, whatever Flower's own grid would wait."""

from collections.abc import Iterable, Iterator

from flwr.app import Message

from server.polling import PollingGrid, replies_to
from simulations.local_grid import LocalGrid
from tests.tiny_federation import client_app, message_to


class Late(LocalGrid):
    """Hands out one reply at each look, and reads messages twice, as Flower's grid of a SuperLink does."""

    looks = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        twice = [list(messages), list(messages)]
        assert twice[0] == twice[1], "a generator can be read once"
        return [*super().push_messages(twice[1]), ""]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.looks += 1
        return super().pull_messages(sorted(message_ids)[:1])


def _late() -> Late:
    return Late(client_app(), clients=2, run_id=3)


def _messages() -> Iterator[Message]:
    yield from (message_to(2), message_to(3))


def test_grid_passes_everything_on() -> None:
    grid = PollingGrid(LocalGrid(client_app(), clients=2, run_id=3))
    assert list(grid.get_node_ids()) == [2, 3]
    assert grid.run.run_id == 3
    grid.set_run(grid.run)
    assert grid.create_message(message_to(2).content, "train", 2, "1").metadata.dst_node_id == 2
    assert len(list(grid.pull_messages(grid.push_messages(_messages())))) == 2


def test_messages_from_a_generator_reach_a_grid_that_reads_them_twice() -> None:
    replies = list(PollingGrid(_late(), poll_s=0.0).send_and_receive(_messages()))
    assert sorted(reply.metadata.src_node_id for reply in replies) == [2, 3]


def test_each_reply_is_yielded_at_the_look_that_found_it() -> None:
    grid = _late()
    looks: list[int] = []
    waited: list[float] = []
    for reply in replies_to(PollingGrid(grid), _messages(), timeout_s=None, poll_s=0.25, wait=waited.append):
        assert isinstance(reply, Message)
        looks.append(grid.looks)
    assert looks == [1, 2]
    assert waited == [0.25]


class Deaf(LocalGrid):
    """Never has a reply."""

    looks = 0

    def pull_messages(self, message_ids: object) -> list[Message]:
        self.looks += 1
        return []


def test_waiting_ends_at_the_deadline() -> None:
    deaf = Deaf(client_app(), clients=2, run_id=3)
    assert list(PollingGrid(deaf).send_and_receive(_messages(), timeout=0.0)) == []
    assert deaf.looks == 1
