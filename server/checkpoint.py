"""Where a run stands, on disk after every round, whole or not at all.

A checkpoint is ``round-00007.safetensors`` (the vectors, and where ledgers end: 40 bytes a client) and
``round-00007.json`` (everything else, the sha256 of the first file and the server's signature). The JSON is written
last: without it there is no checkpoint.
"""

import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from fedrec.errors import RunError
from fedrec.runfolder import write_bytes, write_text
from server.census import Counts
from server.optimizer import AdamState, AverageState
from server.signer import Signer
from server.strategy import Federation, RoundRecord, ServerState

log = logging.getLogger(__name__)

FORMAT = 6
_NODES, _HEADS = "ledger_nodes", "ledger_heads"
KEPT = 3  # the latest, in case the newest is damaged; the best round is kept besides


def save_checkpoint(folder: Path, state: ServerState, *, federation: Federation, signer: Signer) -> None:
    """Write ``state`` durably, then drop all but the last three checkpoints and the best round's.

    Args:
        folder: ``checkpoints/`` of a run.
        state: after a finished round, or round 0.
        federation: public constants; a resumed run must share them all.
        signer: a resumed run must have the same key.

    Raises:
        RunError: the disk refuses.
    """
    tensors = save(_vectors(state) | _ends(state))
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "run_id": federation.run_id,
        "federation_sha256": federation.digest(),
        "round": state.round_index,
        "adam_steps": state.adam.steps,
        "average_count": state.average.count,
        "best_round": state.best_round,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "records": [record.to_dict() for record in state.records],
        "spent": sorted(state.spent),
        "counts": state.counts and {"noise_std": state.counts.noise_std, "replies": state.counts.replies},
    }
    manifest["signature"] = signer.seal(_canonical(manifest))
    stem = _stem(state.round_index)
    write_bytes(folder / f"{stem}.safetensors", tensors)
    write_text(folder / f"{stem}.json", json.dumps(manifest, indent=1))
    _prune(folder, best_round=state.best_round)


def load_latest(folder: Path, *, federation: Federation, signer: Signer) -> ServerState | None:
    """Read the newest checkpoint that is intact and this server's own.

    Any other is passed over with a warning: the rounds after the one before it are run again, and clients repeat
    the answers that they gave.

    Args:
        folder: ``checkpoints/`` of a run.
        federation: public constants now.
        signer: with the key that signed it.

    Returns:
        The state, or None when no checkpoint was ever written.

    Raises:
        RunError: none is intact (names the newest), or it belongs to other settings.
    """
    manifests = sorted(folder.glob("round-*.json"), reverse=True)
    for path in manifests:
        try:
            manifest, vectors = _read(path, signer)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("checkpoint=%s damaged=%s", path, error)
            continue
        if manifest["federation_sha256"] != federation.digest():
            raise RunError(f"{path}: belongs to another run or other settings; resume with the run's own config.toml")
        return _state(manifest, vectors)
    if manifests:
        raise RunError(f"{manifests[0]}: damaged, and so is every older checkpoint; start again with another --out")
    return None


def _vectors(state: ServerState) -> dict[str, np.ndarray]:
    """The state's vectors by name, float64: (P,) each, and (S,) the counts, where there are any."""
    return ({"counts": state.counts.totals} if state.counts else {}) | {
        "adapter": state.adapter,
        "adam_first": state.adam.first,
        "adam_second": state.adam.second,
        "average_total": state.average.total,
        "best": state.best,
    }


def _ends(state: ServerState) -> dict[str, np.ndarray]:
    """Where each client's ledger ends: its node, (N,) uint64, and the digest of its newest line, (N, 32) uint8."""
    heads = np.frombuffer(bytes.fromhex("".join(state.ledger_heads.values())), np.uint8)
    return {_NODES: np.fromiter(state.ledger_heads, np.uint64), _HEADS: heads.reshape(-1, 32)}


def _state(manifest: dict[str, Any], vectors: dict[str, np.ndarray]) -> ServerState:
    """The state back from its two halves."""
    return ServerState(
        round_index=manifest["round"],
        adapter=vectors["adapter"],
        adam=AdamState(manifest["adam_steps"], vectors["adam_first"], vectors["adam_second"]),
        average=AverageState(manifest["average_count"], vectors["average_total"]),
        best_round=manifest["best_round"],
        best_loss=math.inf if manifest["best_loss"] is None else manifest["best_loss"],
        best=vectors["best"],
        records=tuple(RoundRecord.from_dict(line) for line in manifest["records"]),
        ledger_heads={
            int(node): bytes(head).hex() for node, head in zip(vectors[_NODES], vectors[_HEADS], strict=True)
        },
        spent=frozenset(manifest["spent"]),
        counts=manifest["counts"] and Counts(vectors["counts"], **manifest["counts"]),
    )


def _read(path: Path, signer: Signer) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Both halves of one checkpoint; raises ``ValueError`` or ``KeyError`` when a bit is not as written."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    signature = manifest.pop("signature") if isinstance(manifest, dict) else ""
    if not signer.has_sealed(_canonical(manifest), signature):
        raise ValueError("the manifest does not carry this server's signature")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, expected {FORMAT}")
    if path.stem != _stem(manifest["round"]):
        raise ValueError(f"the manifest is that of round {manifest['round']}")
    tensors = path.with_suffix(".safetensors").read_bytes()
    if hashlib.sha256(tensors).hexdigest() != manifest["tensors_sha256"]:
        raise ValueError("the vectors do not match the manifest's digest")
    return manifest, load(tensors)


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _stem(round_index: int) -> str:
    """File name of a round's checkpoint, in an order that sorts."""
    return f"round-{round_index:05d}"


def _prune(folder: Path, *, best_round: int) -> None:
    """Remove old checkpoints, manifest first, so that a crash leaves none that is half there."""
    stems = sorted(path.stem for path in folder.glob("round-*.json"))
    for stem in stems[:-KEPT]:
        if stem != _stem(best_round):
            (folder / f"{stem}.json").unlink(missing_ok=True)
            (folder / f"{stem}.safetensors").unlink(missing_ok=True)
