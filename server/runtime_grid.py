"""Flower's ``Grid`` over SuperLink's Runtime API, for replies that cannot be trusted.

Flower's own grid takes who sent a reply from the reply itself, waits up to two hours for the parts of one while all
others wait behind it, and takes as many bytes as come. Here the sender is whoever was asked, each reply waits for its
parts alone, and one reply of bounded size is in memory at a time.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesRequest, PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    inflate_object_from_contents,
    push_objects,
)
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient

from fedrec.errors import RunError, WireError
from fedrec.wire_parts import check_parts
from server.polling import POLL_S, replies_to

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 64 * 2**20  # sixteen million numbers: many times the largest adapter we know
MAX_PARTS = 4096  # of one reply; with n arrays it has 2 n + 4
LONGEST_UPLOAD_S = 300.0  # from the announcement of a reply to its last part
LONGEST_OUTAGE_S = 90.0  # Flower ends a run of which it has heard nothing for 60
_RETRY_S = 1.0
_LONGEST_LOOK_S = 2.0
_PASSING = frozenset((500, 502, 503, 504))
_SERVER = Node(node_id=SUPERLINK_NODE_ID)

Request = TypeVar("Request")
Response = TypeVar("Response")


class RunLostError(RunError):
    """Flower's run is over, or cannot be had: another one may take over from the newest checkpoint."""


class RuntimeGrid(Grid):
    """The grid of one task of one run.

    Args:
        client: with the task's token.
        run: what the task belongs to.
        over: set when Flower says that the run is over; every call then raises ``RunLostError``.
        max_reply_bytes: a larger reply counts as an error of its sender, > 0.
    """

    def __init__(
        self, client: RuntimeHttpClient, run: Run, *, over: threading.Event, max_reply_bytes: int = MAX_REPLY_BYTES
    ) -> None:
        self._client, self._run, self._over, self._max_reply_bytes = client, run, over, max_reply_bytes
        self._asked: dict[str, Metadata] = {}
        self._announced: dict[str, _Announced] = {}

    def set_run(self, run: Run) -> None:
        """Take part in ``run``."""
        self._run = run

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; Flower keeps this for older apps."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes that are online."""
        return [node.node_id for node in self._call(self._client.GetNodes, GetNodesRequest()).nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; "" stands for one that SuperLink did not take."""
        messages = list(messages)
        if not messages:
            return []
        parts, trees, heads = {}, [], []
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id  # there is no public way
                self._asked[message.object_id] = message.metadata
                parts.update(get_all_nested_objects(message))
                trees.append(get_object_tree(message))
                heads.append(message_to_proto(remove_content_from_message(message)))
            request = PushAppMessagesRequest(messages_list=heads, message_object_trees=trees)
            response = self._call(self._client.PushMessages, request)
            push = make_push_object_fn_protobuf(
                lambda part: self._call(self._client.PushObject, part), _SERVER, self._run.run_id, response.session_id
            )
            try:
                push_objects(parts, push, object_ids_to_push=set(response.objects_to_push))
            except ObjectPushError:
                raise RunLostError("SuperLink took the messages but not their arrays; go on with --resume") from None
        return list(response.message_ids)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies that are whole, and an error in place of each that never will be."""
        wanted = [one for one in message_ids if one in self._asked]
        unknown = [one for one in wanted if one not in self._announced]
        if unknown:
            response = self._call(self._client.PullMessages, PullAppMessagesRequest(message_ids=unknown))
            for head, tree in zip(response.messages_list, response.message_object_trees, strict=True):
                if head.metadata.reply_to_message_id in unknown:
                    parts = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
                    self._announced[head.metadata.reply_to_message_id] = _Announced(parts, tree.object_id)
        for one in wanted:
            announced = self._announced.get(one)
            reply = self._reply(announced, self._asked[one]) if announced and announced.is_due() else None
            if announced and reply:
                del self._announced[one], self._asked[one]
                self._forget(announced)
                yield reply

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield each reply soon after it arrives, until all are here or ``timeout`` seconds pass."""
        try:
            yield from replies_to(self, messages, timeout_s=timeout, poll_s=POLL_S, wait=self._over.wait)
        finally:  # what comes later is late
            self._asked.clear()
            self._announced.clear()

    def _reply(self, announced: "_Announced", asked: Metadata) -> Message | None:
        """The reply; None while a part of it is missing; an error when it cannot be had."""
        about = Metadata(
            run_id=self._run.run_id,
            message_id=announced.message_id,
            src_node_id=asked.dst_node_id,
            dst_node_id=SUPERLINK_NODE_ID,
            reply_to_message_id=asked.message_id,
            group_id=asked.group_id,
            created_at=time.time(),
            ttl=asked.ttl,
            message_type=asked.message_type,
        )
        try:
            contents = self._contents(announced)
            if contents is None:
                return None
            return _opened(announced, contents, about)
        except WireError as error:
            log.warning("reply=unusable reason=%s", error)
            return make_message(metadata=about, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "unusable"))

    def _contents(self, announced: "_Announced") -> dict[str, bytes] | None:
        """All parts, each of which must be what its number says; None, and nothing kept, when one is missing."""
        if len(announced.parts) > MAX_PARTS:
            raise WireError(f"more than {MAX_PARTS} parts")
        contents: dict[str, bytes] = {}
        size = 0
        for part in announced.parts:
            request = PullObjectRequest(node=_SERVER, run_id=self._run.run_id, object_id=part)
            response = self._call(self._client.PullObject, request)
            if not response.object_found:
                raise WireError("a part of it is gone")
            if not response.object_available:
                announced.wait_for(part)
                return None
            size += len(response.object_content)
            if size > self._max_reply_bytes:
                raise WireError(f"more than {self._max_reply_bytes} bytes")
            if get_object_id(response.object_content) != part:
                raise WireError("a part of it is not what its number says")
            contents[part] = response.object_content
        check_parts(contents, max_bytes=self._max_reply_bytes)
        return contents

    def _forget(self, announced: "_Announced") -> None:
        """Let SuperLink drop what it still holds of a reply."""
        request = ConfirmMessageReceivedRequest(
            node=_SERVER, run_id=self._run.run_id, message_object_id=announced.message_id
        )
        self._call(self._client.ConfirmMessageReceived, request)

    def _call(self, call: Callable[[Request], Response], request: Request) -> Response:
        """Call; again while SuperLink is being restarted.

        Raises:
            RunLostError: the run is over, or SuperLink stays away.
        """
        end = time.monotonic() + LONGEST_OUTAGE_S
        while not self._over.is_set():
            try:
                return call(request)
            except (httpx.RequestError, ValueError) as error:  # not there, or not Flower's protocol
                reason = type(error).__name__
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in _PASSING:
                    self._over.set()
                    break
                reason = f"HTTP {error.response.status_code}"
            if time.monotonic() >= end:
                raise RunLostError(
                    f"SuperLink does not answer ({reason}); see that fedrec server runs, go on with --resume"
                )
            log.warning("superlink=unreachable reason=%s retry_in_s=%g", reason, _RETRY_S)
            self._over.wait(_RETRY_S)
        raise RunLostError("Flower has ended this run; go on with --resume")


class _Announced:
    """A reply of which SuperLink knows the parts' numbers, though perhaps not yet the parts."""

    def __init__(self, parts: list[str], message_id: str) -> None:
        self.parts, self.message_id = parts, message_id
        self._since = self._next_look = time.monotonic()
        self._wait_s = POLL_S

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._next_look

    def wait_for(self, part: str) -> None:
        """Look for this part first, and more seldom.

        Raises:
            WireError: it has been waited for long enough.
        """
        if time.monotonic() - self._since > LONGEST_UPLOAD_S:
            raise WireError("a part of it never came")
        self.parts.remove(part)
        self.parts.insert(0, part)
        self._next_look = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_LOOK_S)


def _opened(announced: _Announced, contents: dict[str, bytes], about: Metadata) -> Message:
    """Put the reply together; of what it says about itself nothing is taken."""
    try:
        inner = inflate_object_from_contents(announced.message_id, contents)
        if not isinstance(inner, Message):
            raise WireError("no message")
        if inner.has_error():
            return make_message(metadata=about, error=inner.error)
        return make_message(metadata=about, content=inner.content)
    except WireError:
        raise
    except Exception as error:  # Flower's parser on a stranger's bytes
        raise WireError(f"cannot be read ({type(error).__name__})") from error
