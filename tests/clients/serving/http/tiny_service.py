"""A service over a tiny run, asked as a browser would ask it, and one in a process of its own."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import load_file

from clients.serving.events import Event
from clients.serving.http.app import Desk, build_app, open_desk
from clients.serving.http.door import Door
from clients.serving.http.tokens import Holder, Tokens, digest_of
from clients.serving.served import Current, load_served
from clients.serving.store import EventStore
from fedrec.config_serving import HttpConfig
from fedrec.data.events import read_events
from fedrec.runfolder import ADAPTER, write_arrays
from tests.tiny_run import ROOT, Bench

HOME = "http://127.0.0.1"
ALL = "all-scopes"  # the token of somebody who may ask everything
START_S, ANSWER_S, END_S = 120, 60, 60  # of a process, on a machine that is busy with others
SERVE = "import sys; from fedrec.cli import main; main()"


@dataclass(frozen=True, eq=False)
class Service:
    """The application in this process, and its parts."""

    desk: Desk
    door: Door

    def ask(self, method: str, path: str, body: object = None, **options: object) -> httpx.Response:
        """One request; ``body`` goes as JSON."""
        return asyncio.run(self.asked(method, path, body, **options))

    async def asked(self, method: str, path: str, body: object = None, **options: object) -> httpx.Response:
        """The same inside a loop."""
        transport = httpx.ASGITransport(self.door, raise_app_exceptions=True)
        sent = {} if body is None else {"json": body}
        async with httpx.AsyncClient(transport=transport, base_url=HOME, timeout=30) as client:
            return await client.request(method, path, **sent, **options)

    def items(self, path: str, **body: object) -> list[str]:
        """Ids of a list that is answered."""
        answer = self.ask("POST", path, body)
        assert answer.status_code == 200, answer.text
        return [one["item_id"] for one in answer.json()["items"]]

    def items_of(self, user: str | None, key: dict) -> list[str]:
        """The same, for a person of the store or nobody, with a token."""
        answer = self.ask("POST", "/v1/recommend", {"user": user, "k": 40}, **key)
        return [one["item_id"] for one in answer.json()["items"]]

    def metrics(self) -> str:
        return self.desk.metrics.page().decode()


def service_of(store: EventStore, run: Path, *, tokens: Tokens | None = None, **changes: object) -> Service:
    """A service of a run and a store."""
    config = HttpConfig(**changes)
    desk = open_desk(Current(load_tiny, store, run=run), store, config=config)
    return Service(desk, build_app(desk, config=config, tokens=tokens))


def load_tiny(run: Path):
    return load_served(run, encoder=None, cache=run / "cache")


def tokens_of(**scopes: str) -> Tokens:
    """Tokens that are called as their holders are."""
    return Tokens([(digest_of(name), Holder(name, frozenset(said.split(",")))) for name, said in scopes.items()])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def stocked(bench: Bench, path: Path) -> EventStore:
    """A store with what the tiny run's people did."""
    store = EventStore.create(path)
    rows = read_events(bench.events, columns={}).select("user_id", "item_id", "timestamp").rows()
    events = [Event(user, item, at, "purchase") for user, item, at in rows]
    store.append_all((f"row {index}", event) for index, event in enumerate(events))
    return store


def another_run(run: Path, target: Path) -> Path:
    """The same run with another adapter, and so of another version."""
    shutil.copytree(run, target)
    data = (target / ADAPTER).read_bytes()
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    arrays = {name: values + np.float32(0.5) for name, values in load_file(target / ADAPTER).items()}
    write_arrays(target / ADAPTER, arrays, metadata=about)
    return target


@dataclass
class Process:
    """``fedrec serve`` in a process."""

    running: subprocess.Popen
    facts: dict[str, str]
    log: Path

    @property
    def address(self) -> str:
        return self.facts["address"]

    def ask(self, method: str, path: str, body: object = None, **options: object) -> httpx.Response:
        sent = {} if body is None else {"json": body}
        try:
            return httpx.request(method, self.address + path, **sent, timeout=ANSWER_S, trust_env=False, **options)
        except httpx.TimeoutException:
            raise AssertionError(f"{method} {path}: no answer within {ANSWER_S} s\n{self.said()}") from None

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def until(self, condition, *, seconds: float = 60) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            what = f"line {condition.__code__.co_firstlineno} of {condition.__code__.co_filename}"
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{self.said()}"
            assert self.running.poll() is None, f"{what}: the process has ended\n{self.said()}"
            time.sleep(0.05)

    def ended(self) -> int:
        """Its exit code, once it was told to end."""
        try:
            return self.running.wait(END_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"told to end, and still there after {END_S} s\n{self.said()}") from None


@contextmanager
def process(run: Path, store: Path, *flags: object) -> Iterator[Process]:
    """Serve until the end of the block, then SIGTERM; the exit code is checked."""
    with started(run, "--store", store, *flags, home=store.parent) as serving:
        yield serving


@contextmanager
def started(*arguments: object, home: Path) -> Iterator[Process]:
    """The same with nothing but these arguments, called in ``home``."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", 0, "--json", *arguments]
    log = home / "serve.log"
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as errors:
        running = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, cwd=home, env=environment
        )
        try:
            is_there, _, _ = select.select([running.stdout], [], [], START_S)
            line = running.stdout.readline() if is_there else ""
            assert line, f"ended, or not ready within {START_S} s\n{log.read_text()}"
            serving = Process(running, json.loads(line), log)
            yield serving
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
                assert serving.ended() == 0, log.read_text()
        finally:
            running.kill()
            running.wait()
            running.stdout.close()
