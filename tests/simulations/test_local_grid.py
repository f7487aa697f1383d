"""The in-process grid behaves like Flower's, and a registered client costs nothing until it is asked."""

import tracemalloc

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from simulations.local_grid import LocalGrid
from tests.tiny_federation import client_app, message_to


def test_node_holds_the_partition_of_its_place() -> None:
    partitions: list[int] = []

    def merchant_of(partition: int) -> None:
        partitions.append(partition)
        raise ValueError

    grid = LocalGrid(client_app(merchant_of), clients=3)
    assert list(grid.get_node_ids()) == [2, 3, 4]
    list(grid.send_and_receive([message_to(node) for node in grid.get_node_ids()]))
    assert partitions == [0, 1, 2]


def test_replies_stream_one_at_a_time() -> None:
    trained: list[int] = []

    def merchant_of(partition: int) -> None:
        trained.append(partition)
        raise ValueError

    replies = iter(LocalGrid(client_app(merchant_of), clients=3).send_and_receive(message_to(n) for n in (2, 3, 4)))
    next(replies)
    assert trained == [0]


def test_a_hundred_thousand_registered_clients_cost_little() -> None:
    app = client_app()
    tracemalloc.start()
    grid = LocalGrid(app, clients=100_000)
    assert len(grid.get_node_ids()) == 100_000
    list(grid.send_and_receive([message_to(99_999)]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_push_and_pull_hand_each_reply_over_once() -> None:
    grid = LocalGrid(client_app(), clients=2)
    identifiers = grid.push_messages([message_to(2), message_to(3)])
    replies = grid.pull_messages(identifiers)
    assert [reply.metadata.reply_to_message_id for reply in replies] == identifiers
    assert all(reply.metadata.message_id for reply in replies)
    assert grid.pull_messages(identifiers) == []


def test_context_keeps_a_clients_state_and_settings_for_the_run() -> None:
    grid = LocalGrid(client_app(), clients=2, run_config={"workspace": "here"})
    context = grid._context(3)
    assert context is grid._context(3)
    assert context.run_config == {"workspace": "here"}
    assert context.node_config == {"partition-id": 1, "num-partitions": 2}


def test_only_what_an_app_keeps_is_kept() -> None:
    app, counts = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == 3:
            context.state["count"] = MetricRecord({"asked": 1 + int(context.state.get("count", {}).get("asked", 0))})
            counts.append(context.state["count"]["asked"])
        return Message(RecordDict(), reply_to=message)

    grid = LocalGrid(app, clients=1000)
    list(grid.send_and_receive([message_to(node) for node in (*grid.get_node_ids(), 3, 3)]))
    assert counts == [1, 2, 3]
    assert list(grid._contexts) == [3]


def test_unknown_node_is_answered_with_an_error() -> None:
    [reply] = LocalGrid(client_app(), clients=2).send_and_receive([message_to(9)])
    assert "node 9 is not part of this run" in reply.error.reason


def test_messages_carry_the_run_and_come_from_the_server() -> None:
    grid = LocalGrid(client_app(), clients=1, run_id=7)
    message = grid.create_message(message_to(2).content, "train", 2, "1")
    assert isinstance(message, Message)
    assert grid.run.run_id == 7
    grid.set_run(grid.run)
    assert grid.create_message(message.content, "train", 2, "1").metadata.run_id == 7


@pytest.mark.parametrize("node", [1, 4])
def test_nodes_outside_the_range_have_no_context(node: int) -> None:
    with pytest.raises(KeyError, match=f"node {node} is not part of this run"):
        LocalGrid(client_app(), clients=2)._context(node)
