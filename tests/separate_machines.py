"""A whole federation on hosts of its own, made and run by the commands that people type."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.hosts import Host, Hosts
from tests.tiny_run import ROOT, catalogue_rows, event_rows, fedrec, read_lines, write_csv, write_settings
from tests.tiny_superlink import free_port

SHOPS = ("shop-a", "shop-b", "shop-c")
FROM_STORE = "shop-b"  # keeps a store of events; the others have files
PANEL, EACH = 24, 20  # people
COMMAND = (sys.executable, "-c", "from fedrec.cli import main; main()")
PORT, PRIVATE_PORT, SUPERLINK_PORT = 8443, 9464, 9465
START_S = 90.0
WITHOUT_PRIVACY = ("--no-dp",)


@dataclass
class Deployment:
    """What the operator and three merchants have on disk, and how their commands are run.

    Attributes:
        folder: of everything.
        hosts: the server's, then one for each shop.
        ports: public, private, SuperLink's.
    """

    folder: Path
    hosts: Hosts
    ports: tuple[int, int, int]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> Host:
        return self.hosts[0]

    @property
    def address(self) -> str:
        return f"{self.server.address}:{self.ports[0]}"

    @property
    def federation(self) -> Path:
        return self.folder / "federation"

    @property
    def config(self) -> Path:
        return self.folder / "server.toml"

    def home(self, shop: str) -> Path:
        return self.folder / shop

    def host_of(self, shop: str) -> Host:
        return self.hosts[1 + SHOPS.index(shop)]

    def do(self, *arguments: object) -> None:
        """Run a command that needs no host in this process: torch is here already."""
        outcome = fedrec(*arguments, home=self.folder)
        assert outcome.exit_code == 0, f"{arguments[:3]}: {outcome.stderr}"

    def fedrec(self, *arguments: object, host: Host | None = None, code: int = 0) -> str:
        """Run one command to its end, which must be ``code``; return what it printed."""
        done = (host or self.server).run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=self.folder,
            timeout=300,
        )
        assert done.returncode == code, f"{arguments[:3]}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *arguments: object, host: Host | None = None, log: str) -> subprocess.Popen:
        """Start a command; what it says goes to ``log`` in the folder."""
        with (self.folder / log).open("ab") as said:
            return (host or self.server).popen(
                [*COMMAND, *arguments], stdout=said, stderr=said, env=self._environment(), cwd=self.folder
            )

    def start_server(self) -> subprocess.Popen:
        """Start ``fedrec server`` and wait until it is healthy."""
        process = self.start("server", "--config", self.config, log="server.log")
        self.wait(self.is_healthy, "the server", process)
        return process

    def start_client(self, shop: str) -> subprocess.Popen:
        """Start ``fedrec client`` of a shop on its own host."""
        home = self.home(shop)
        return self.start("client", "--config", home / "client.toml", host=self.host_of(shop), log=f"{shop}.log")

    def enrol(self, shop: str, *flags: object) -> str:
        keys = self.home(shop) / "keys"
        named = ["--node-key", keys / "node.pub", "--reply-key", keys / "reply.pub", "--config", self.config]
        return self.fedrec("enrol", "add", shop, *named, *flags)

    def is_healthy(self) -> bool:
        """Whether the server says so on its private port, asked on its own host."""
        asked = (
            f"import httpx; print(httpx.get('http://127.0.0.1:{self.ports[1]}/health', trust_env=False).status_code)"
        )
        done = self.server.run([sys.executable, "-c", asked], capture_output=True, text=True)
        return done.stdout.strip() == "200"

    def status(self) -> dict:
        """``fedrec status --json``."""
        done = self.server.run(
            [*COMMAND, "status", self.federation, "--config", self.config, "--json"],
            capture_output=True, text=True, env=self._environment(), cwd=self.folder, timeout=60,
        )  # fmt: skip
        return json.loads(done.stdout)

    def joined(self, shop: str) -> int:
        """How often a shop's client has joined since its log was begun."""
        return (self.folder / f"{shop}.log").read_text().count("joined node=")

    def wait(self, holds, what: str, *processes: subprocess.Popen, within_s: float = START_S) -> None:
        """Wait until ``holds()``; fail at once when a process that must live has ended."""
        end = time.monotonic() + within_s
        while not holds():
            dead = [process.args[-3:] for process in processes if process.poll() is not None]
            assert not dead, f"{dead} ended\n{self.logs()}"
            assert time.monotonic() < end, f"{what}: not within {within_s:g} s\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    def events(self) -> list[dict]:
        return read_lines(self.federation / "events.jsonl")

    def _environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, **self.environment}


def prepare(
    folder: Path, hosts: Hosts, *, flags: Sequence[object] = WITHOUT_PRIVACY, changes: dict | None = None
) -> Deployment:
    """Do what an operator and three merchants do before the first start; nobody is enrolled yet.

    Args:
        folder: empty.
        hosts: four.
        flags: of ``fedrec federation new``.
        changes: settings by dotted name.
    """
    ports = (PORT, PRIVATE_PORT, SUPERLINK_PORT) if hosts.isolated else (free_port(), free_port(), free_port())
    deployment = Deployment(folder, hosts, ports)
    settings = {"federation.rounds": 5, "privacy.sampling_rate": 1.0} | (changes or {})
    write_settings(folder / "settings.toml", settings)
    write_csv(folder / "items.csv", catalogue_rows())
    people = shop_rows()
    write_csv(folder / "panel.csv", people["panel"])
    public = ["--catalogue", folder / "items.csv", "--config", folder / "settings.toml"]
    do = deployment.do
    do("pretrain", "--out", folder / "base", "--data", folder / "panel.csv", *public)
    do("keys", "authority", folder / "authority")
    do("keys", "server", folder / "keys", "--authority", folder / "authority", "--host", deployment.server.address)
    sizes = ["--clients", len(SHOPS), "--people-per-client", EACH]
    where = ["--server-keys", folder / "keys", "--address", deployment.address]
    do("federation", "new", deployment.federation, "--base", folder / "base", *public, *sizes, *where, *flags)
    bare = ["--allow-not-private"] if "--no-dp" in flags else []
    for shop in SHOPS:
        events = write_csv(folder / f"{shop}.csv", without_last(people[shop]))
        data = ["--data", events]
        if shop == FROM_STORE:
            do("store", "import", folder / f"{shop}.sqlite", *data)
            data = ["--store", folder / f"{shop}.sqlite"]
        do("join", deployment.federation / "invitation", *data, "--name", shop, "--out", deployment.home(shop), *bare)
    write_server_toml(deployment)
    return deployment


def write_server_toml(deployment: Deployment) -> None:
    public, private, superlink = deployment.ports
    deployment.config.write_text(
        f'keys = "keys"\nstate = "state"\nhost = "{deployment.server.address}"\n'
        f"port = {public}\nprivate_port = {private}\nsuperlink_port = {superlink}\n"
    )


@contextmanager
def running(deployment: Deployment, shops: Sequence[str] = SHOPS) -> Iterator[dict[str, subprocess.Popen]]:
    """The server and some shops, all online, by name; ended by SIGTERM, which must end well."""
    with ExitStack() as stack:
        processes = {"server": deployment.start_server()}
        stack.callback(end_well, processes)
        for shop in shops:
            deployment.enrol(shop)
            processes[shop] = deployment.start_client(shop)
        deployment.wait(lambda: all(map(deployment.joined, shops)), "all shops online", *processes.values())
        yield processes


def end_well(processes: dict[str, subprocess.Popen]) -> None:
    """Send SIGTERM to whoever still lives; each must be gone soon, with exit code 0."""
    alive = {name: process for name, process in reversed(processes.items()) if process.poll() is None}
    for process in alive.values():
        process.send_signal(signal.SIGTERM)
    codes = {name: process.wait(30) for name, process in alive.items()}
    assert set(codes.values()) <= {0}, codes


def shop_rows() -> dict[str, list[dict]]:
    """Everyone's events, by shop; "panel" for those who are public."""
    rows: dict[str, list[dict]] = {name: [] for name in ("panel", *SHOPS)}
    for row in event_rows(people=PANEL + EACH * len(SHOPS)):
        person = int(row["user_id"][1:])
        shop = "panel" if person < PANEL else SHOPS[(person - PANEL) // EACH]
        rows[shop].append({**row, "shop": shop})
    return rows


def without_last(rows: list[dict]) -> list[dict]:
    """What a simulation trains on: everybody's events less the last."""
    return [
        row for row, after in zip(rows, [*rows[1:], None], strict=True) if after and after["user_id"] == row["user_id"]
    ]


def final_vectors(run: Path) -> dict[str, np.ndarray]:
    """The vectors of a run's newest checkpoint."""
    return load_file(max((run / "checkpoints").glob("round-*.safetensors")))
