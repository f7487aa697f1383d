"""A node that stays: it comes back, it slows down, and no text of an exception leaves it."""

import gzip
import logging
import threading

import pytest
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

import clients.link
from clients.link import LONGEST_DELAY_S, MAX_OBJECTS, delays
from clients.node import answer, run_node
from clients.transport import MAX_ANSWER_BYTES
from tests.fedrec.test_wire_parts import naming
from tests.fleet_server import NODE, SECRET, Fleet, StopAfter, served
from tests.tiny_federation import client_app, context_of, message_to, sent, signed


def raising(error: Exception) -> ClientApp:
    """An app that always raises, without the guard of ours."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise error

    return app


def test_replies_of_a_node_answer_the_message_that_came() -> None:
    fleet, asked = Fleet(), message_to(NODE)
    fleet.offer(asked)
    with served(fleet) as link:
        run_node(client_app(), link, stop=StopAfter(1), node_config={"partition-id": 2})
    (body,) = fleet.bodies["push-messages"]
    (reply,) = PushMessagesRequest.FromString(body).messages_list
    assert reply.metadata.reply_to_message_id == get_object_tree(asked).object_id
    assert reply.metadata.src_node_id == NODE
    assert not reply.HasField("error")
    assert fleet.asked[-2:] == ["deactivate-node", "unregister-node"]


def test_node_never_asks_for_the_servers_code_or_settings() -> None:
    fleet = Fleet()
    fleet.offer(message_to(NODE))
    with served(fleet) as link:
        run_node(client_app(), link, stop=StopAfter(1), node_config={"partition-id": 2})
    assert "push-messages" in fleet.asked
    assert not {"get-fab", "get-run"} & set(fleet.asked)


def test_what_an_app_raises_leaves_as_a_code_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reply = answer(raising(ValueError(SECRET)), message_to(NODE), context_of(0))
    assert reply.error.reason == "E_INTERNAL"
    assert caplog.messages == ["refused=E_INTERNAL error=ValueError"]
    unknown = sent(signed(), NODE, kind="query.other")
    assert answer(client_app(), unknown, context_of(0)).error.reason == "E_INTERNAL"


@pytest.mark.parametrize(
    ("offered", "complaint"),
    [
        ({"message": message_to(NODE), "spoil": True}, "message: a part of it is not what its number says"),
        ({"message": message_to(NODE + 1)}, "message: expected one to this node"),
        (
            {
                "message": message_to(NODE),
                "tree": ObjectTree(children=[ObjectTree(object_id=str(one)) for one in range(MAX_OBJECTS)]),
            },
            f"message of {MAX_OBJECTS + 1} parts: expected at most {MAX_OBJECTS}",
        ),
    ],
)
def test_what_is_no_message_is_ignored_and_the_node_goes_on(
    offered: dict, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    fleet.offer(**offered)
    stop = StopAfter(2)
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=stop, node_config={"partition-id": 2}, poll_s=0.25)
    assert caplog.messages == [f"ignored {complaint}"]
    assert fleet.asked.count("pull-messages") == 2
    assert stop.waited == [0.25] * 2  # a server that offers such things without end is asked no more often
    assert "push-messages" not in fleet.asked


def test_message_that_would_grow_in_memory_is_ignored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet()
    monkeypatch.setattr("clients.link.MAX_MESSAGE_BYTES", 100_000)
    monkeypatch.setattr(Array, "deflate", naming([0] * 1000))
    fleet.offer(message_to(NODE))
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1), node_config={"partition-id": 2})
    assert caplog.messages == ["ignored message: expected at most 100000 bytes"]
    assert "push-messages" not in fleet.asked


def test_a_refused_node_tries_again_ever_more_slowly_and_repeats_none_of_the_servers_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet, stop = Fleet(), StopAfter(4)
    fleet.answers["activate-node"] = lambda body: 401
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=stop)
    assert fleet.asked.count("activate-node") == 4
    assert all(low <= waited <= 2 * low for low, waited in zip([0.5, 1, 2, 4], stop.waited, strict=True))
    hint = "not enrolled (send node.pub and reply.pub to the operator), or this machine's clock is wrong"
    assert all(line.startswith(f"disconnected reason=HTTP 401: {hint} retry_in_s=") for line in caplog.messages)


def test_a_node_that_is_not_enrolled_is_told_what_to_send(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    fleet.answers["activate-node"] = lambda body: 412
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1))
    hint = "not enrolled (send node.pub and reply.pub to the operator), or its last connection still counts"
    assert caplog.messages[0].startswith(f"disconnected reason=HTTP 412: {hint} retry_in_s=")


def test_a_server_that_is_away_is_asked_again_ever_more_slowly(caplog: pytest.LogCaptureFixture) -> None:
    stop = StopAfter(4)
    with served(Fleet()) as link:
        pass  # nobody listens there any more
    with caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=stop)
    assert all(low <= waited <= 2 * low for low, waited in zip([0.5, 1, 2, 4], stop.waited, strict=True))
    assert all(line.startswith("unreachable reason=ConnectError retry_in_s=") for line in caplog.messages)


def test_what_is_not_flowers_protocol_is_a_passing_failure(caplog: pytest.LogCaptureFixture) -> None:
    fleet, said = Fleet(), [b"\xff" * 9]
    fleet.answers["pull-messages"] = lambda body: said.pop() if said else b""
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(2))
    assert [line.split(" retry")[0] for line in caplog.messages] == ["unreachable reason=ValueError"]
    assert fleet.asked.count("pull-messages") == 2


def test_an_answer_that_would_fill_the_memory_is_not_read_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    fleet, sizes = Fleet(), [MAX_ANSWER_BYTES + 1, 1000]
    fleet.answers["pull-messages"] = lambda body: bytes(sizes.pop(0)) if sizes else b""
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(3))
    assert [line.split(" retry")[0] for line in caplog.messages] == [
        "unreachable reason=ReadError",
        "unreachable reason=ValueError",  # the second was read, and is not Flower's protocol
    ]


def test_a_packed_answer_is_not_unpacked(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand times its size may be in it."""
    fleet = Fleet()
    fleet.answers["activate-node"] = lambda body: gzip.compress(bytes(2**20))
    fleet.encoding = "gzip"
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1))
    assert caplog.messages[-1].startswith("unreachable reason=DecodingError retry_in_s=")


def test_no_more_of_a_message_is_fetched_than_it_may_hold(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("clients.link.MAX_MESSAGE_BYTES", 0)
    monkeypatch.setattr("flwr.supercore.inflatable.inflatable_utils.get_num_workers", lambda most: 1)
    fleet, asked = Fleet(), message_to(NODE)
    fleet.offer(asked)
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1))
    assert caplog.messages == ["ignored message: expected at most 0 bytes"]
    assert fleet.asked.count("pull-object") == 1 < len(get_all_nested_objects(asked))


def test_a_message_without_parts_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    fleet, offered = Fleet(), PullMessagesResponse()
    offered.messages_list.add()
    said = [offered.SerializeToString()]
    fleet.answers["pull-messages"] = lambda body: said.pop() if said else b""
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1))
    assert caplog.messages == ["ignored message: expected the numbers of its parts"]


def test_a_passing_failure_neither_loses_the_reply_nor_trains_twice() -> None:
    fleet, failures = Fleet(), [503, 502]
    taken = fleet.answers["push-messages"]
    fleet.answers["push-messages"] = lambda body: failures.pop() if failures else taken(body)
    fleet.offer(message_to(NODE))
    with served(fleet) as link:
        run_node(client_app(), link, stop=StopAfter(3), node_config={"partition-id": 2})
    bodies = fleet.bodies["push-messages"]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


def test_a_node_that_its_server_forgot_joins_again() -> None:
    fleet, beaten = Fleet(), threading.Event()

    def forgotten(body: bytes) -> bytes:
        beaten.set()
        return SendNodeHeartbeatResponse(success=False).SerializeToString()

    def pulled(body: bytes) -> bytes:
        assert beaten.wait(10)
        return b""

    fleet.answers |= {"send-node-heartbeat": forgotten, "pull-messages": pulled}
    with served(fleet) as link:
        run_node(client_app(), link, stop=StopAfter(50))
    assert fleet.asked.count("activate-node") > 1


def test_waits_double_up_to_a_minute_less_at_most_half() -> None:
    waits = delays()
    for longest in [1, 2, 4, 8, 16, 32, *[LONGEST_DELAY_S] * 3]:
        assert longest / 2 <= next(waits) <= longest


def test_message_whose_parts_never_come_is_given_up_before_the_node_is_missed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clients.link.LONGEST_UPLOAD_S < HEARTBEAT_DEFAULT_INTERVAL
    fleet = Fleet()
    fleet.offer(message_to(NODE))
    absent = PullObjectResponse(object_found=True, object_available=False).SerializeToString()
    fleet.answers["pull-object"] = lambda body: absent
    monkeypatch.setattr(clients.link, "LONGEST_UPLOAD_S", 0.3)
    with served(fleet) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), link, stop=StopAfter(1), node_config={"partition-id": 2})
    assert caplog.messages == ["ignored message: a part of it is not there"]
    assert "push-messages" not in fleet.asked
