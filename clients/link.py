"""A client's connection to its server: Flower's Fleet API with Flower's own messages, and none of its processes.

It asks for messages and sends replies, and that is all: it never fetches the app that a server offers (Flower's
"FAB"), nor a run's settings. What runs here is what is installed here.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from clients.transport import Link, bound, reason_of, tls_of, url_of
from fedrec.errors import RunError, WireError
from fedrec.wire_parts import check_parts

log = logging.getLogger(__name__)

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
FIRST_LOOK_S = 0.1  # the server announces a message before it uploads its parts
LONGEST_UPLOAD_S = 20.0  # it uploads on its own machine; if it was killed meanwhile, the parts never come
MAX_OBJECTS = 4096  # parts of one message; with n arrays it has 2 n + 4
MAX_MESSAGE_BYTES = 256 * 2**20
_HINTS = {  # a refused node's status; 412 is also what a node hears whose killed predecessor still counts as there
    401: ": not enrolled (send node.pub and reply.pub to the operator), or this machine's clock is wrong",
    412: ": not enrolled (send node.pub and reply.pub to the operator), or its last connection still counts",
}
_PASSING = frozenset({408, 429, 502, 503, 504})  # a proxy's words for "later"


class LinkLostError(RunError):
    """The server no longer knows this node, or refuses it: join again. Carries no text of the server's.

    Attributes:
        status: of HTTP, where that is how the server said so.
    """

    def __init__(self, why: str, *, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class LinkStoppedError(Exception):
    """Whoever runs the node asked it to stop."""


Request = TypeVar("Request")
Response = TypeVar("Response")


class Session:
    """An active node's exchange with its server; every call is repeated while the network fails, until ``stop``."""

    def __init__(self, client: FleetHttpClient, node_id: int, *, stop: threading.Event, lost: threading.Event) -> None:
        self._client = client
        self._node = Node(node_id=node_id)
        self._stop = stop
        self._lost = lost

    @property
    def node_id(self) -> int:
        """Flower's number for this node."""
        return self._node.node_id

    def receive(self) -> Message | None:
        """Fetch the next message; None when there is none.

        Raises:
            WireError: what came is no message to this node; nothing can be answered.
            LinkLostError: join again.
            LinkStoppedError: stopped while waiting.
        """
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        if not response.message_object_trees:
            raise WireError("message: expected the numbers of its parts")
        run_id, tree = response.messages_list[0].metadata.run_id, response.message_object_trees[0]
        contents = self._contents(tree, run_id)
        received = ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=tree.object_id)
        self._call(self._client.ConfirmMessageReceived, received)
        return self._opened(tree, contents)

    def reply(self, message: Message) -> None:
        """Send a reply with its arrays.

        Raises:
            LinkLostError, LinkStoppedError: as ``receive``.
        """
        message.metadata.__dict__["_message_id"] = message.object_id  # there is no public way
        run_id = message.metadata.run_id
        with no_object_id_recompute():
            pushed = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(message))],
                message_object_trees=[get_object_tree(message)],
                clientapp_runtime_list=[0.0],  # how long it took is this client's own affair
            )
            response = self._call(self._client.PushMessages, pushed)
            push = make_push_object_fn_protobuf(
                self._repeating(self._client.PushObject), self._node, run_id, response.session_id
            )
            try:
                push_objects(get_all_nested_objects(message), push, object_ids_to_push=set(response.objects_to_push))
            except ObjectPushError as error:
                raise LinkLostError("the server took the reply but not its arrays") from error

    def _contents(self, tree: ObjectTree, run_id: int) -> dict[str, bytes]:
        """Fetch the parts of a message, each of which must be what its number says."""
        parts = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        if len(parts) > MAX_OBJECTS:
            raise WireError(f"message of {len(parts)} parts: expected at most {MAX_OBJECTS}")
        pull = make_pull_object_fn_protobuf(self._repeating(self._client.PullObject), self._node, run_id)
        sizes: list[int] = []

        def pull_bounded(part: str) -> bytes:
            content = pull(part)
            sizes.append(len(content))
            if sum(sizes) > MAX_MESSAGE_BYTES:  # before the next one is fetched
                raise WireError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes")
            return content

        try:
            contents = pull_objects(parts, pull_bounded, initial_backoff=FIRST_LOOK_S, max_time=LONGEST_UPLOAD_S)
        except ObjectPullError as error:
            raise WireError("message: a part of it is not there") from error
        if any(get_object_id(content) != part for part, content in contents.items()):
            raise WireError("message: a part of it is not what its number says")
        check_parts(contents, max_bytes=MAX_MESSAGE_BYTES)
        return contents

    def _opened(self, tree: ObjectTree, contents: dict[str, bytes]) -> Message:
        try:
            message = inflate_object_from_contents(tree.object_id, contents)
        except Exception as error:  # Flower's parser on a stranger's bytes
            raise WireError(f"message: cannot be read ({type(error).__name__})") from error
        if not isinstance(message, Message) or message.metadata.dst_node_id != self.node_id:
            raise WireError("message: expected one to this node")
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _repeating(self, call: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """Make a method of Flower's client that is repeated."""
        return lambda request: self._call(call, request)

    def _call(self, call: Callable[[Request], Response], request: Request) -> Response:
        """Call until it works, the server refuses, or there is no point any more."""
        for delay_s in delays():
            if self._lost.is_set():
                raise LinkLostError("unknown to the server")
            try:
                return call(request)
            except (httpx.RequestError, ValueError) as error:  # not there, or not Flower's protocol
                reason = reason_of(error)
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status not in _PASSING:
                    raise LinkLostError(f"HTTP {status}", status=status) from error
                reason = f"HTTP {status}"
            log.warning("unreachable reason=%s retry_in_s=%.1f", reason, delay_s)
            if self._stop.wait(delay_s):
                break
        raise LinkStoppedError


@contextmanager
def connect(link: Link, *, stop: threading.Event) -> Iterator[Session]:
    """Join: activate this node, keep it alive with a heartbeat, and take leave afterwards.

    Args:
        link: how to reach the server.
        stop: ends any wait.

    Raises:
        LinkLostError: the server refuses the node.
        LinkStoppedError: stopped before it could be reached.
    """
    private_key, public_key = (link.key, link.key.public_key()) if link.key else generate_key_pairs()
    public = public_key_to_bytes(public_key)
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(private_key, public_key),
    ]
    with FleetHttpClient(url_of(link), interceptors=interceptors, verify=tls_of(link) or False) as client:
        bound(vars(client)["_client"])
        lost = threading.Event()
        joining = Session(client, 0, stop=stop, lost=lost)
        if link.key is None:
            joining._call(client.RegisterNode, RegisterNodeFleetRequest(public_key=public))
        activation = ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            node_id = joining._call(client.ActivateNode, activation).node_id
        except LinkLostError as error:
            raise LinkLostError(f"{error}{_HINTS.get(error.status or 0, '')}", status=error.status) from error
        heartbeat = HeartbeatSender(_heartbeat(client, node_id, lost=lost))
        heartbeat.start()
        try:
            yield Session(client, node_id, stop=stop, lost=lost)
        finally:
            heartbeat.stop()
            with suppress(httpx.HTTPError, ValueError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
                if link.key is None:
                    client.UnregisterNode(UnregisterNodeFleetRequest(node_id=node_id))


def delays() -> Iterator[float]:
    """Seconds to wait after each failure in a row: doubling from 1 to 60, less up to half, so that clients spread."""
    longest_s = FIRST_DELAY_S
    while True:
        yield longest_s * (0.5 + secrets.randbelow(1001) / 2000)
        longest_s = min(2 * longest_s, LONGEST_DELAY_S)


def _heartbeat(client: FleetHttpClient, node_id: int, *, lost: threading.Event) -> Callable[[], bool]:
    """Return what says that this node lives; False is tried again."""
    request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)

    def send() -> bool:
        try:
            if not client.SendNodeHeartbeat(request).success:
                lost.set()
        except (httpx.HTTPError, ValueError):
            return False
        return True

    return send
