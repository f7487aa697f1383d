"""Flower's own server and client take these keys: over TLS, with node authentication, as separate processes."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedrec.keyfiles import make_authority, make_client, make_server
from fedrec.quiet import SETTINGS

NOW = datetime.now(UTC)
PATIENCE_S = 60
PROGRAMS = Path(sys.executable).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


class Place:
    """A server's and two clients' keys, and Flower's programs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"  # Flower starts further programs of its own by name
        self.environment = os.environ | SETTINGS | {"FLWR_HOME": str(folder / "home"), "PATH": path}
        make_authority(folder / "authority", days=30, now=NOW)
        make_authority(folder / "other", days=30, now=NOW)
        make_server(folder / "server", folder / "authority", ["127.0.0.1"], days=29, now=NOW)
        for name in ("known", "stranger"):
            make_client(folder / name, name, with_request=False)
        (folder / "home").mkdir()
        connection = f'[superlink.tls]\naddress = "{self.address}"\nroot-certificates = "{folder}/server/ca.crt"\n'
        (folder / "home" / "config.toml").write_text(f'[superlink]\ndefault = "tls"\n{connection}')

    @contextmanager
    def running(self, program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{program}.log").open("ab") as log:
            command = [PROGRAMS / program, *map(str, arguments)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.folder)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)

    def node(self, name: str, *, trusting: str = "server"):
        root = ("--root-certificates", self.folder / trusting / "ca.crt", "--superlink", self.address)
        key = ("--auth-supernode-private-key", self.folder / name / "node.key", "--port", free_port())
        return self.running("flower-supernode", *root, *key)

    def flwr(self, *arguments: object) -> str:
        command = [PROGRAMS / "flwr", "supernode", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=True)
        return done.stdout

    def statuses(self) -> list[str]:
        return [node["status"] for node in json.loads(self.flwr("list", "tls", "--format", "json"))["nodes"]]

    def answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.folder / "server" / "ca.crt"))
        try:
            with urllib.request.urlopen(f"https://{self.address}/health", context=context, timeout=5) as reply:
                return reply.status == 200
        except urllib.error.URLError:
            return False


@pytest.mark.slow
def test_flower_lets_a_registered_node_key_in_over_tls_and_no_other(tmp_path):
    place = Place(tmp_path)
    host, port = place.address.split(":")
    server = tmp_path / "server"
    tls = (
        "--ssl-ca-certfile",
        server / "ca.crt",
        "--ssl-certfile",
        server / "tls.crt",
        "--ssl-keyfile",
        server / "tls.key",
    )
    quiet = ("--enable-supernode-auth", "--disable-runtime-dependency-installation", "--database", tmp_path / "sl.db")
    with place.running("flower-superlink", "--host", host, "--port", port, *tls, *quiet):
        wait_until(place.answers)
        place.flwr("register", tmp_path / "known" / "node.pub", "tls", "--name", "known")
        with place.node("stranger") as refused:
            assert refused.wait(PATIENCE_S) != 0
        with place.node("known", trusting="other") as misled:
            assert misled.wait(PATIENCE_S) != 0
        assert place.statuses() == ["registered"]
        with place.node("known"):
            wait_until(lambda: place.statuses() == ["online"])
