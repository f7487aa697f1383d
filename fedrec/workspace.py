"""The private half of a simulated run: every client's people in one file, each client reading its own slice.

A real client has its own data and no workspace; this is what ``fedrec simulate`` prepares instead.
"""

import hashlib
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedrec.agreement import Agreement
from fedrec.data.histories import Histories
from fedrec.errors import RunError
from fedrec.privacy.ledger import Ledger
from fedrec.runfolder import write_arrays


def write_workspace(run: Path, histories: Histories, clients: Sequence[np.ndarray]) -> None:
    """Write what each client may train on.

    Args:
        run: the run folder.
        histories: everyone's training events.
        clients: person indices of each client.
    """
    people = histories.subset(np.concatenate(clients))
    ends = np.cumsum([len(group) for group in clients])
    arrays = {
        "clients": np.concatenate([[0], ends]).astype(np.int64),
        "offsets": people.offsets,
        "items": people.items,
        "timestamps": people.timestamps,
    }
    write_arrays(_file(run), arrays)


def client_histories(run: Path, partition: int) -> Histories:
    """Return the people of one client.

    Raises:
        RunError: there is no such client, or the file is damaged.
    """
    clients, people = _read(_file(run).resolve())
    if not 0 <= partition < len(clients) - 1:
        raise RunError(
            f"{_file(run)}: holds clients 0 to {len(clients) - 2}, not {partition}; match --clients to the run"
        )
    return people.subset(np.arange(clients[partition], clients[partition + 1]))


def copy_workspace(run: Path, other: Path) -> None:
    """Give another run folder the same base and the same people, but ledgers of its own."""
    for name in ("base", "workspace"):
        files = [path for path in (run / name).iterdir() if path.is_file()]
        for path in files:
            shutil.copy2(path, other / name / path.name)


def create_ledgers(run: Path, agreement: Agreement, *, clients: int) -> None:
    """Start an empty ledger for each simulated client, and a place for its last reply."""
    (run / "workspace" / "replies").mkdir(exist_ok=True)
    for partition in range(clients):
        Ledger.create(
            _ledger_path(run, partition),
            dataset=_dataset(client_histories(run, partition)),
            plan=agreement.plan,
            durable=False,
        )


def ledger_of(run: Path, partition: int, agreement: Agreement) -> Ledger:
    """Open the ledger of one simulated client.

    A simulation's people are not at stake in a power cut, so its ledgers do not wait for the disk.

    Raises:
        PrivacyError: missing or altered.
    """
    return Ledger.open(
        _ledger_path(run, partition),
        dataset=_dataset(client_histories(run, partition)),
        plan=agreement.plan,
        durable=False,
    )


def replies_path(run: Path, partition: int) -> Path:
    """Return where one simulated client keeps its last reply."""
    return run / "workspace" / "replies" / f"client-{partition:05d}.safetensors"


def _ledger_path(run: Path, partition: int) -> Path:
    return run / "ledger" / f"client-{partition:05d}.sqlite"


def _dataset(histories: Histories) -> str:
    """Identity of a client's people, whatever run uses them."""
    digest = hashlib.sha256()
    for array in (histories.offsets, histories.items, histories.timestamps):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _file(run: Path) -> Path:
    return run / "workspace" / "people.safetensors"


@lru_cache(maxsize=2)
def _read(path: Path) -> tuple[np.ndarray, Histories]:
    try:
        arrays = load_file(path)
        return arrays["clients"], Histories(arrays["offsets"], arrays["items"], arrays["timestamps"])
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{path}: not a usable workspace: {error}; prepare the run again") from None
