"""SuperLink's Control API: which nodes it knows, and the start of a run. It answers on loopback alone."""

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedrec import __version__
from fedrec.errors import RunError
from server.loopback import Loopback

Request = TypeVar("Request")
Response = TypeVar("Response")

_GONE = "unregistered"
# Flower starts no run without an app. Ours is installed on both sides and never travels, so this one has a name and
# no code: no process of ours fetches it, and a foreign one that did would find nothing to run.
_APP = f"""[project]
name = "fedrec"
version = "{__version__}"

[tool.flwr.app]
publisher = "fedrec"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
"""


@dataclass(frozen=True)
class NodeState:
    """What SuperLink knows of a registered node.

    Attributes:
        node_id: Flower's number for it.
        public_key: PEM, as it was registered.
        status: Flower's word: registered, online or offline.
        last_activated: when it last joined, ISO 8601; None when it never did.
    """

    node_id: int
    public_key: bytes
    status: str
    last_activated: str | None


class Control:
    """An open connection to the Control API; from ``open_control``. Every call raises ``RunError`` when it fails."""

    def __init__(self, client: ControlHttpClient, address: str) -> None:
        self._client, self._address = client, address

    def register(self, public_key: ec.EllipticCurvePublicKey) -> int:
        """Let the owner of this key join as a node; return Flower's number for it.

        Flower remembers a key for ever: one that was registered once, and even unregistered, is refused.
        """
        request = RegisterNodeRequest(public_key=public_key_to_bytes(public_key))
        return self._call(self._client.RegisterNode, request, "to register a node").node_id

    def unregister(self, node_id: int) -> None:
        """Refuse a node from now on."""
        self._call(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id), "to unregister a node")

    def nodes(self) -> list[NodeState]:
        """All nodes that may join."""
        listed = self._call(self._client.ListNodes, ListNodesRequest(), "to list nodes").nodes_info
        return [
            NodeState(one.node_id, one.public_key, one.status, one.last_activated_at or None)
            for one in listed
            if one.status != _GONE
        ]

    def start_run(self) -> int:
        """Start a run, whose task then waits to be taken; return Flower's number for it."""
        self._call(self._client.ListRuns, ListRunsRequest(), "to list runs")  # drops what ended runs left behind
        request = StartRunRequest()
        request.fab.content = _app()
        run_id = self._call(self._client.StartRun, request, "to start a run").run_id
        if not run_id:
            raise RunError("SuperLink started no run; see superlink.log")
        return run_id

    def _call(self, call: Callable[[Request], Response], request: Request, wish: str) -> Response:
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            raise RunError(f"SuperLink refuses {wish}: HTTP {error.response.status_code}; see superlink.log") from None
        except (httpx.RequestError, ValueError) as error:
            reason = type(error).__name__
            raise RunError(f"{self._address}: no SuperLink answers ({reason}); is fedrec server running?") from None


@contextmanager
def open_control(loopback: Loopback) -> Iterator[Control]:
    """Connect to the Control API of the server whose state this is.

    Raises:
        RunError: no server was ever started with it; later, none answers.
    """
    with loopback.connect(ControlHttpClient) as client:
        yield Control(client, loopback.address)


def _app() -> bytes:
    """The app without code, as Flower packs one; the same bytes each time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), _APP)
    return packed.getvalue()
