"""The private half of a simulated run: every client's people in one file, each client reading its own slice.

A real client has its own data and no workspace; this is what ``fedrec simulate`` prepares instead. A client that is
never asked costs its slice of that file and one byte: its ledger is made when it is first asked.
"""

import hashlib
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.data.histories import Histories
from fedrec.errors import DataError, PrivacyError, RunError
from fedrec.firstuse import FirstUse
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy, load_policy, write_policy
from fedrec.runfolder import server_key_path, write_arrays
from fedrec.signing import SigningKey


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
    path = _file(run).resolve()
    try:
        people = _read(path)
        clients = people["clients"].get_shape()[0] - 1
        if not 0 <= partition < clients:
            raise RunError(
                f"{_file(run)}: holds clients 0 to {clients - 1}, not {partition}; match --clients to the run"
            )
        first, end = people["clients"][partition : partition + 2]
        offsets = people["offsets"][int(first) : int(end) + 1]
        events = slice(int(offsets[0]), int(offsets[-1]))
        return Histories(offsets - offsets[0], people["items"][events], people["timestamps"][events])
    except (OSError, ValueError, IndexError, KeyError, SafetensorError, DataError) as error:
        raise _unusable(path, error) from None


def client_count(run: Path) -> int:
    """Return how many clients a run was prepared with.

    Raises:
        RunError: the workspace is missing or damaged.
    """
    path = _file(run).resolve()
    try:
        return _read(path)["clients"].get_shape()[0] - 1
    except (OSError, KeyError, SafetensorError) as error:
        raise _unusable(path, error) from None


def copy_workspace(run: Path, other: Path) -> None:
    """Give another run folder the same base and the same people, but ledgers of its own."""
    for name in ("base", "workspace"):
        files = [path for path in (run / name).iterdir() if path.is_file()]
        for path in files:
            shutil.copy2(path, other / name / path.name)


def make_keys(run: Path) -> str:
    """Make the keys of a run's server and operator.

    Whatever an earlier preparation left half-made is removed first, ledgers included: without an agreement nobody has
    trained.

    Returns:
        The server's public key, for the agreement.

    Raises:
        PrivacyError: the run was agreed on, so its ledgers may hold charges.
    """
    _check_not_agreed(run)
    for name in ("keys", "ledger", "workspace/witness"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in ("keys", "ledger", "workspace/witness", "workspace/replies"):
        (run / name).mkdir(exist_ok=True)
    SigningKey.create(operator_key_path(run))
    return SigningKey.create(server_key_path(run)).public


def open_budgets(run: Path, agreement: Agreement, *, clients: int) -> None:
    """Make what guards the simulated clients' budgets: one policy for all, and the list of who was ever asked.

    ``make_keys`` comes first: the agreement names its key.
    A simulated client's policy allows exactly the agreed plan, base and code, and pins the agreed server key.

    Raises:
        PrivacyError: the run was agreed on, so its ledgers may hold charges.
    """
    _check_not_agreed(run)
    policy = None
    if agreement.plan.private:
        policy = Policy.for_plan(
            agreement.plan,
            base=agreement.base_digest,
            code=code_digest(),
            server_key=agreement.server_key,
            metrics=agreement.metrics,
            trust=agreement.plan.trust,
            statistics=agreement.statistics is not None,
        )
        write_policy(policy, _policy_path(run))
    _first_use(run).create(clients)


def policy_of(run: Path, plan: PrivacyPlan) -> Policy | None:
    """Return the policy of the simulated clients; None when the plan is stamped NOT PRIVATE.

    Raises:
        PrivacyError: the plan is private and the policy missing or unreadable.
    """
    return load_policy(_policy_path(run)) if plan.private else None


def ledger_of(run: Path, partition: int, plan: PrivacyPlan) -> Ledger:
    """Open the ledger of one simulated client; make it when the client is asked for the first time.

    A simulation's people are not at stake in a power cut, so its ledgers do not wait for the disk.

    Raises:
        PrivacyError: missing though it was made before, altered or rolled back.
    """
    dataset, policy = _dataset(client_histories(run, partition)), policy_of(run, plan)
    files = ledger_files(run, partition)
    with _first_use(run).of(partition) as is_first:
        # Of the three files the witness is written last. Without it, and never noted, nothing was ever charged.
        if is_first and not files.witness.exists():
            for left_by_a_crash in (*files, files.write_ahead_log):
                left_by_a_crash.unlink(missing_ok=True)
            return Ledger.create(files, dataset=dataset, policy=policy, durable=False)
    return Ledger.open(files, dataset=dataset, policy=policy, durable=False)


def was_asked(run: Path, partition: int) -> bool:
    """Whether there is, or must be, a ledger of one simulated client; who was never asked has spent nothing."""
    return _first_use(run).was(partition) or any(path.exists() for path in ledger_files(run, partition))


def ledger_files(run: Path, partition: int) -> LedgerFiles:
    """Return where one simulated client keeps its ledger, the key outside it and the witness."""
    name = f"client-{partition:05d}"
    return LedgerFiles(
        run / "ledger" / f"{name}.sqlite", run / "keys" / f"{name}.key", run / "workspace" / "witness" / f"{name}.json"
    )


def operator_key_path(run: Path) -> Path:
    """Return where the key lies that signs the run's privacy reports."""
    return run / "keys" / "operator.key"


def replies_path(run: Path, partition: int) -> Path:
    """Return where one simulated client keeps its last reply."""
    return run / "workspace" / "replies" / f"client-{partition:05d}.safetensors"


def _check_not_agreed(run: Path) -> None:
    if (run / AGREEMENT_FILE).exists():
        raise PrivacyError(f"{run}: was agreed on already; its ledgers are kept, and a lost one is no fresh budget")


def _first_use(run: Path) -> FirstUse:
    return FirstUse(run / "ledger" / "asked")


def _policy_path(run: Path) -> Path:
    return run / "policy.toml"


def _dataset(histories: Histories) -> str:
    """Identity of a client's people, whatever run uses them."""
    digest = hashlib.sha256()
    for array in (histories.offsets, histories.items, histories.timestamps):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _file(run: Path) -> Path:
    return run / "workspace" / "people.safetensors"


@lru_cache(maxsize=2)
def _read(path: Path) -> dict[str, Any]:
    """Each array of the workspace by name, mapped and not read: a slice of one costs no more than itself."""
    stored = safe_open(path, framework="numpy").__enter__()
    return {name: stored.get_slice(name) for name in ("clients", "offsets", "items", "timestamps")}


def _unusable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: not a usable workspace: {error}; prepare the run again")
