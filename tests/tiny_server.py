"""``fedrec server`` as an operator starts it: a process with keys, settings and a state of its own, on the loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner

from clients.link import Link
from fedrec.cli import app
from fedrec.keyfiles import make_authority, make_client, make_server, read_key
from server.settings import ServerSettings, load_server_settings
from tests.tiny_gateway import ROOT
from tests.tiny_superlink import free_port

NOW = datetime.now(UTC)
PROGRAM = "from fedrec.cli import main; main()"


@dataclass(frozen=True)
class Operator:
    """An operator's folder: ``authority/``, ``keys/``, ``server.toml`` and, once started, ``state/``."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, *, gateway: str = "", **changes: object) -> "Operator":
        """Make keys and settings; ``changes`` are further lines of server.toml."""
        make_authority(folder / "authority", days=500, now=NOW)
        make_server(folder / "keys", folder / "authority", ["127.0.0.1"], days=398, now=NOW)
        values = {"keys": "keys", "state": "state", "host": "127.0.0.1"}
        values |= {name: free_port() for name in ("port", "private_port", "superlink_port")} | changes
        lines = [
            f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
            for name, value in values.items()
        ]
        (folder / "server.toml").write_text("\n".join([*lines, "[gateway]", gateway, ""]))
        return cls(folder)

    @property
    def config(self) -> Path:
        return self.folder / "server.toml"

    @property
    def settings(self) -> ServerSettings:
        return load_server_settings(self.config)

    def fedrec(self, *words: object):
        """One command in this process, with this server's settings."""
        return CliRunner().invoke(app, [str(word) for word in words] + ["--config", str(self.config)])

    def client(self, name: str) -> Path:
        """A client's new keys."""
        make_client(self.folder / name, name, with_request=False)
        return self.folder / name

    def enrol(self, name: str, *more: object):
        """Enrol a client whose keys were made by ``client``."""
        keys = self.folder / name
        return self.fedrec(
            "enrol", "add", name, "--node-key", keys / "node.pub", "--reply-key", keys / "reply.pub", *more
        )

    def link(self, name: str) -> Link:
        """How that client reaches the server."""
        roots = (self.folder / "keys" / "ca.crt").read_bytes()
        return Link(f"127.0.0.1:{self.settings.port}", roots, read_key(self.folder / name / "node.key"))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """The server, ready; killed at the end unless it has ended."""
        called = [sys.executable, "-c", PROGRAM, "server", "--config", str(self.config), "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / "server.log").open("a") as log:
            process = subprocess.Popen(called, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert process.stdout.readline() == "{\n", (self.folder / "server.log").read_text()
            yield process
        finally:
            process.kill()
            process.communicate(timeout=20)
