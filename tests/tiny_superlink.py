"""A real SuperLink behind a real gateway, and resident nodes in threads: what a deployment is, on the loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.link import Link
from clients.node import run_node
from fedrec.certificates import new_key
from server.control import open_control
from server.settings import ServerSettings
from server.superlink import SuperLink
from tests.tiny_gateway import Authority, Gateway, running_gateway

Handler = Callable[[Message, Context], Message]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def echo(message: Message, context: Context) -> Message:
    """Answer with the content that came and one word more."""
    own = RecordDict({"said": ConfigRecord({"node": str(context.node_id)})})
    own.update(message.content)
    return Message(own, reply_to=message)


def app_of(handler: Handler) -> ClientApp:
    app = ClientApp()
    app.train()(handler)
    return app


def message_of(node_id: int, word: str = "hello", *, kind: str = "train") -> Message:
    """A message whose content differs with ``word``."""
    return Message(RecordDict({"asked": ConfigRecord({"word": word})}), node_id, kind, group_id="1")


@dataclass
class Site:
    """A server's two halves, and the way to them from both sides."""

    settings: ServerSettings
    superlink: SuperLink
    gateway: Gateway

    def link(self, key: ec.EllipticCurvePrivateKey) -> Link:
        return Link(f"127.0.0.1:{self.gateway.public}", self.gateway.authority.read_bytes(), key)

    def enrolled(self) -> tuple[int, ec.EllipticCurvePrivateKey]:
        """A new key that SuperLink knows, and its node."""
        key = new_key()
        with open_control(self.settings.loopback) as control:
            return control.register(key.public_key()), key

    def node(self, key: ec.EllipticCurvePrivateKey, handler: Handler = echo) -> AbstractContextManager[None]:
        """A resident node of this key."""
        return resident(self.link(key), handler)


@contextmanager
def resident(link: Link, handler: Handler = echo) -> Iterator[None]:
    """A node in a thread that answers until the ``with`` ends."""
    stop = threading.Event()
    joined = threading.Thread(
        target=run_node, args=(app_of(handler), link), kwargs={"stop": stop, "poll_s": 0.05}, daemon=True
    )
    joined.start()
    try:
        yield
    finally:
        stop.set()
        joined.join(20)
        assert not joined.is_alive()


@contextmanager
def running_site(folder: Path, **gateway: object) -> Iterator[Site]:
    """A SuperLink that is supervised by this process, and a gateway in a process of its own."""
    with ExitStack() as stack:
        settings = ServerSettings(keys=folder / "keys", state=folder / "state", superlink_port=free_port())
        loopback = settings.loopback
        superlink = stack.enter_context(SuperLink(loopback))
        authority = Authority(folder, "outside")
        options = {"upstream_ca": loopback.authority, **gateway}
        door = stack.enter_context(running_gateway(authority, f"https://{loopback.address}", **options))
        yield Site(settings, superlink, door)
