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

from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError, RunError
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
    clients, people = _read(_file(run).resolve())
    if not 0 <= partition < len(clients) - 1:
        raise RunError(
            f"{_file(run)}: holds clients 0 to {len(clients) - 2}, not {partition}; match --clients to the run"
        )
    return people.subset(np.arange(clients[partition], clients[partition + 1]))


def client_count(run: Path) -> int:
    """Return how many clients a run was prepared with.

    Raises:
        RunError: the workspace is missing or damaged.
    """
    clients, _ = _read(_file(run).resolve())
    return len(clients) - 1


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
    """Make what guards the simulated clients' budgets: one policy for all, and an empty ledger for each.

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
    for partition in range(clients):
        dataset = _dataset(client_histories(run, partition))
        Ledger.create(ledger_files(run, partition), dataset=dataset, policy=policy, durable=False)


def policy_of(run: Path, plan: PrivacyPlan) -> Policy | None:
    """Return the policy of the simulated clients; None when the plan is stamped NOT PRIVATE.

    Raises:
        PrivacyError: the plan is private and the policy missing or unreadable.
    """
    return load_policy(_policy_path(run)) if plan.private else None


def ledger_of(run: Path, partition: int, plan: PrivacyPlan) -> Ledger:
    """Open the ledger of one simulated client.

    A simulation's people are not at stake in a power cut, so its ledgers do not wait for the disk.

    Raises:
        PrivacyError: missing, altered or rolled back.
    """
    dataset = _dataset(client_histories(run, partition))
    return Ledger.open(ledger_files(run, partition), dataset=dataset, policy=policy_of(run, plan), durable=False)


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
def _read(path: Path) -> tuple[np.ndarray, Histories]:
    try:
        arrays = load_file(path)
        return arrays["clients"], Histories(arrays["offsets"], arrays["items"], arrays["timestamps"])
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{path}: not a usable workspace: {error}; prepare the run again") from None
