"""A made-up Fleet API on a real HTTP server, for what no real server would do; and a stop that nobody waits for."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flwr.app import Message
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from clients.transport import Link

SECRET = "user 123 bought X"
NODE = 5


class StopAfter(threading.Event):
    """Is set by the wait number ``waits``; nobody really waits. Remembers how long each would have been."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.left = waits
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        self.left -= 1
        if self.left <= 0:
            self.set()
        return self.is_set()


class Fleet:
    """What a server's Fleet API answers, by the last word of the path: protobuf bytes, or a status."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: dict[str, list[bytes]] = {}
        self.elsewhere = ""  # where a status of 3xx sends a client
        self.encoding = ""  # how answers are said to be packed
        self.answers: dict[str, Callable[[bytes], bytes | int]] = {
            "register-node": lambda body: b"",
            "activate-node": lambda body: ActivateNodeResponse(node_id=NODE).SerializeToString(),
            "send-node-heartbeat": lambda body: SendNodeHeartbeatResponse(success=True).SerializeToString(),
            "pull-messages": lambda body: b"",
            "push-messages": lambda body: PushMessagesResponse(session_id="s").SerializeToString(),
            "confirm-message-received": lambda body: b"",
            "deactivate-node": lambda body: b"",
            "unregister-node": lambda body: b"",
        }

    def answer(self, word: str, body: bytes) -> bytes | int:
        self.asked.append(word)
        self.bodies.setdefault(word, []).append(body)
        return self.answers.get(word, lambda body: 404)(body)

    def offer(self, message: Message, *, tree: ObjectTree | None = None, spoil: bool = False) -> None:
        """Hand out ``message`` once, and its parts, which are ``spoil``ed by one byte."""
        parts = {number: part.deflate() for number, part in get_all_nested_objects(message).items()}
        offered = [PullMessagesResponse(message_object_trees=[tree or get_object_tree(message)])]
        offered[0].messages_list.add().metadata.run_id = message.metadata.run_id

        def part_of(body: bytes) -> bytes:
            content = parts[PullObjectRequest.FromString(body).object_id]
            content = content[:-1] + bytes([content[-1] ^ 1]) if spoil else content
            return PullObjectResponse(
                object_found=True, object_available=True, object_content=content
            ).SerializeToString()

        self.answers["pull-messages"] = lambda body: offered.pop().SerializeToString() if offered else b""
        self.answers["pull-object"] = part_of


@contextmanager
def served(fleet: Fleet, *, tls: ssl.SSLContext | None = None) -> Iterator[Link]:
    """A real HTTP server on the loopback interface that answers as ``fleet`` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers["content-length"]))
            said = fleet.answer(self.path.rsplit("/", 1)[-1], body)
            content = said if isinstance(said, bytes) else SECRET.encode()
            self.send_response(200 if isinstance(said, bytes) else said)
            self.send_header("content-type", "application/protobuf")
            self.send_header("content-length", str(len(content)))
            if fleet.encoding:
                self.send_header("content-encoding", fleet.encoding)
            if fleet.elsewhere:
                self.send_header("location", fleet.elsewhere)
            self.end_headers()
            with suppress(ConnectionError):  # a client may have heard enough
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Link(f"127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
