"""A shop's store to try things on: events, a clock, and what its files hold to the last byte."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.serving.events import Event
from clients.serving.forgetting import key_beside
from clients.serving.store import EventStore
from clients.serving.store_file import files_of
from tests.test_docs import ROOT

NOON = 1_800_000_000  # some time in 2027, when the shop's clock stands

OPEN = """
import json, os, resource, signal, sys
from pathlib import Path
from clients.serving import forgetting
from clients.serving.events import Event
from clients.serving.store import EventStore
from fedrec.errors import RunError
path, said = Path(sys.argv[1]), json.loads(sys.argv[2])
"""


class Clock:
    """Stands still until it is set."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def view(user_id: str, item_id: str, timestamp: float = 0, **changes: str | None) -> Event:
    """Somebody looked at something."""
    return Event(user_id, item_id, timestamp, **({"kind": "view"} | changes))


def new_store(folder: Path, clock: Clock | None = None) -> EventStore:
    return EventStore.create(folder / "shop.sqlite", clock=clock or Clock())


def bytes_of(path: Path) -> bytes:
    """Everything in a store's files, the key's and SQLite's own."""
    return b"".join(file.read_bytes() for file in (*files_of(path), key_beside(path)) if file.exists())


@contextmanager
def process(code: str, path: Path, *, said: object = None) -> Iterator[subprocess.Popen]:
    """A Python process that knows where the store is, and reads lines."""
    command = [sys.executable, "-c", OPEN + code, str(path), json.dumps(said)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        yield running
        running.stdin.close()
