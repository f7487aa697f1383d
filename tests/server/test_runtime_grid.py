"""What a client does that lies, dawdles or floods, and what the others and the server's memory notice of it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.control_pb2 import StopRunRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

import server.runtime_grid
from fedrec.errors import RunError
from fedrec.wire import refusal_from_error
from server.flower_run import open_grid
from tests.fedrec.test_wire_parts import naming
from tests.tiny_gateway import eventually
from tests.tiny_superlink import Site, message_of, running_site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


@contextmanager
def bare_node(site: Site) -> Iterator[tuple[int, FleetHttpClient]]:
    """A registered node that says exactly what a test lets it say."""
    node_id, key = site.enrolled()
    link = site.link(key)
    signed = [NodeAuthHttpInterceptor(key, key.public_key())]
    with FleetHttpClient.from_server_address(link.address, False, link.root_certificates, signed) as client:
        hello = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=60)
        assert client.ActivateNode(hello).node_id == node_id
        yield node_id, client


def announced_only(client: FleetHttpClient, node_id: int, reply: Message) -> None:
    """Tell SuperLink of a reply and keep its parts."""
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        heads, trees = [message_to_proto(reply)], [get_object_tree(reply)]
    client.PushMessages(
        PushMessagesRequest(
            node=Node(node_id=node_id), messages_list=heads, message_object_trees=trees, clientapp_runtime_list=[0.0]
        )
    )


def test_who_announces_a_reply_and_never_sends_it_holds_up_nobody(site, monkeypatch):
    monkeypatch.setattr(server.runtime_grid, "LONGEST_UPLOAD_S", 2.0)
    honest, key = site.enrolled()
    with bare_node(site) as (idle, client), site.node(key), open_grid(site.settings) as grid:
        assert eventually(lambda: {honest, idle} <= set(grid.get_node_ids()))
        asked = {node_id: message_of(node_id) for node_id in (idle, honest)}
        began, seen = time.monotonic(), []

        def announce() -> None:
            assert eventually(lambda: client.PullMessages(PullMessagesRequest(node=Node(node_id=idle))).messages_list)
            announced_only(client, idle, Message(RecordDict(), reply_to=asked[idle]))

        beside = threading.Thread(target=announce)
        replies = grid.send_and_receive(list(asked.values()), timeout=30)
        beside.start()
        for reply in replies:
            seen.append((reply.metadata.src_node_id, reply.has_error(), time.monotonic() - began))
        beside.join()
    assert [(node_id, failed) for node_id, failed, _ in seen] == [(honest, False), (idle, True)]
    assert seen[0][2] < 2.0 <= seen[1][2] < 10.0


def test_a_reply_beyond_the_bound_is_an_error_of_its_sender_alone(site):
    def flood(message: Message, context: Context) -> Message:
        noise = np.random.default_rng(0).standard_normal(2**19)  # 4 MiB
        return Message(RecordDict({"arrays": ArrayRecord([noise])}), reply_to=message)

    honest, key = site.enrolled()
    flooding, other = site.enrolled()
    with (
        site.node(key),
        site.node(other, flood),
        open_grid(site.settings, max_reply_bytes=2**20) as grid,
    ):
        assert eventually(lambda: {honest, flooding} <= set(grid.get_node_ids()))
        replies = list(grid.send_and_receive([message_of(honest), message_of(flooding)], timeout=30))
        failed = {reply.metadata.src_node_id: reply.has_error() for reply in replies}
        assert failed == {honest: False, flooding: True}
        (error,) = [reply.error for reply in replies if reply.has_error()]
        assert refusal_from_error(error) is None  # the server's admission then says "failed"


def test_a_reply_that_names_one_chunk_many_times_is_refused_before_it_fills_the_memory(site, monkeypatch):
    def bomb(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": ArrayRecord({"x": Array(np.zeros(2**19, np.float32))})}), reply_to=message)

    node_id, key = site.enrolled()
    with site.node(key, bomb), open_grid(site.settings) as grid:
        assert eventually(lambda: node_id in grid.get_node_ids())
        monkeypatch.setattr(Array, "deflate", naming([0] * 100))  # 2 MiB that become 200
        (reply,) = grid.send_and_receive([message_of(node_id)], timeout=30)
    assert reply.has_error()


def test_a_reply_cannot_say_that_it_comes_from_somebody_else(site):
    victim, _ = site.enrolled()
    liar, other = site.enrolled()

    def lie(message: Message, context: Context) -> Message:
        reply = Message(RecordDict(), reply_to=message)
        inner = {"_src_node_id": victim, "_reply_to_message_id": "0" * 64, "_group_id": "77"}
        proto = message_to_proto

        def honest_outside(one: Message) -> object:
            outside = proto(one)
            outside.metadata.src_node_id = liar
            outside.metadata.reply_to_message_id = message.metadata.message_id
            return outside

        reply.metadata.__dict__.update(inner)
        monkey.setattr("clients.link.message_to_proto", honest_outside)
        return reply

    with pytest.MonkeyPatch.context() as monkey, site.node(other, lie), open_grid(site.settings) as grid:
        assert eventually(lambda: liar in grid.get_node_ids())
        asked = message_of(liar)
        (reply,) = grid.send_and_receive([asked], timeout=20)
    assert reply.metadata.src_node_id == liar
    assert reply.metadata.reply_to_message_id == asked.metadata.message_id
    assert reply.metadata.group_id == asked.metadata.group_id


def test_when_flower_ends_the_run_the_grid_says_so_and_how_to_go_on(site):
    with open_grid(site.settings) as grid:
        with site.settings.loopback.connect(ControlHttpClient) as control:
            control.StopRun(StopRunRequest(run_id=grid.run.run_id))
        with pytest.raises(RunError, match="Flower has ended this run; go on with --resume"):
            grid.get_node_ids()
