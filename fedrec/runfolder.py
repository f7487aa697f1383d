"""One run, one folder. Every file in it appears whole or not at all, and one process at a time may write.

config.toml           the resolved settings
events.jsonl          one line a round
adapter.safetensors   the published adapter
statistics.safetensors  what clients counted, where they did: the pairs that stand out
base/                 the frozen public base
checkpoints/          where the run stands, after every round
policy.toml           what each simulated client allows
ledger/               what each simulated client has spent
keys/                 private keys: the server's, the operator's, each ledger's
workspace/            what a simulated client needs to train
report.html, report.json, summary.json
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import save

from fedrec.errors import RunError
from fedrec.locks import take

LOCK = ".lock"
EVENTS = "events.jsonl"
ADAPTER = "adapter.safetensors"
STATISTICS = "statistics.safetensors"
SPLIT = "split.json"
FOLDERS = ("base", "checkpoints", "keys", "ledger", "workspace")
FEDERATION_FOLDERS = ("base", "checkpoints")  # what is private lies elsewhere: at the merchants, and with the server


class RunFolder:
    """An open, locked run folder; close it, or use it in a ``with``, to let the next process in.

    The lock is the operating system's, so it goes with the process however that ends.
    """

    def __init__(self, path: Path, *, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, *, folders: Sequence[str] = FOLDERS) -> "RunFolder":
        """Make a new run folder.

        Args:
            folders: to make in it: those of a simulation, or of a federation on separate machines.

        Raises:
            RunError: it holds files already, cannot be written, or another process uses it.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(entry.name != LOCK for entry in path.iterdir())
        except OSError as error:
            raise RunError(f"{path}: cannot be a run folder: {error.strerror}; choose another --out") from None
        if occupied:
            raise RunError(f"{path}: exists; pass --resume or another --out")
        folder = cls(path, lock=_lock(path))
        for name in folders:
            (path / name).mkdir()
        return folder

    @classmethod
    def open_for_resume(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises:
            RunError: it is not a run folder, cannot be written, or another process uses it.
        """
        if not (path / "checkpoints").is_dir():
            raise RunError(f"{path}: no run to resume: expected a folder with checkpoints/; leave out --resume")
        folder = cls(path, lock=_lock(path))
        for leftover in (*path.glob(".*.tmp"), *(path / "checkpoints").glob(".*.tmp")):
            leftover.unlink(missing_ok=True)  # a write that a crash cut short
        return folder

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process in; calling it again does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def events(self) -> Path:
        return self.path / EVENTS

    @property
    def adapter(self) -> Path:
        return self.path / ADAPTER

    @property
    def statistics(self) -> Path:
        return self.path / STATISTICS

    @property
    def split(self) -> Path:
        return self.path / SPLIT

    @property
    def base(self) -> Path:
        return self.path / "base"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def workspace(self) -> Path:
        return self.path / "workspace"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add one line to ``events.jsonl``, on disk when this returns.

        Raises:
            RunError: the disk refuses; a part of the line may be there, and goes when the run is resumed.
        """
        try:
            with self.events.open("a", encoding="utf-8") as stream:
                stream.write(_line(event))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunError(f"{self.events}: cannot be written: {error.strerror}; free space, then --resume") from None

    def rewrite_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Replace ``events.jsonl``: what a resumed run does, so that lines continue where its checkpoint stands."""
        write_text(self.events, "".join(_line(event) for event in events))

    def read_events(self) -> list[dict[str, Any]]:
        """All lines of ``events.jsonl``, none when there is no such file.

        Raises:
            RunError: a line is not JSON; names it.
        """
        return read_events(self.path)


def server_key_path(run: Path) -> Path:
    """Return where the key lies with which the server of a run signs; its public half is what clients pin."""
    return run / "keys" / "server.key"


def read_events(run: Path, *, growing: bool = False) -> list[dict[str, Any]]:
    """All lines of a run's ``events.jsonl``, none when there is no such file.

    Args:
        run: its folder.
        growing: the run may be going on: leave out a last line that is only half there.

    Raises:
        RunError: a line is not JSON; names it.
    """
    path = run / EVENTS
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = (text[: text.rfind("\n") + 1] if growing else text).splitlines()
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically and durably; raises ``RunError`` when the disk refuses."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically and durably; NaN and infinity become null, which every reader understands."""
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as safetensors, atomically and durably; the same content gives the same bytes.

    Raises:
        RunError: the disk refuses.
    """
    contiguous = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    write_bytes(path, _canonical(save(contiguous, metadata=dict(metadata) if metadata else None)))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it holds the old bytes or the new ones, never a part.

    Raises:
        RunError: the disk refuses; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}; free space or choose another --out") from None


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(tensors: bytes) -> bytes:
    """Sort the metadata of safetensors bytes, which the library writes in random order."""
    end = 8 + int.from_bytes(tensors[:8], "little")
    header = json.loads(tensors[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return tensors[:8] + text.ljust(end - 8) + tensors[end:]


def _lock(path: Path) -> int:
    """Take the folder for this process; the descriptor holds the lock."""
    try:
        return take(path / LOCK, waits=False)
    except BlockingIOError:
        raise RunError(f"{path}: in use by another process; wait for it or choose another --out") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be a run folder: {error.strerror}; choose another --out") from None


def _line(event: Mapping[str, Any]) -> str:
    """One event as one line of JSON."""
    return json.dumps(_plain(event), ensure_ascii=False, allow_nan=False) + "\n"


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    """One line back; names the file and line when it is broken."""
    try:
        return dict(json.loads(line))
    except ValueError:
        raise RunError(f"{path}: line {number} is not JSON; resume the run to rewrite it") from None


def _plain(value: Any) -> Any:
    """Numpy scalars, paths and non-finite numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
