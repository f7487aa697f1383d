"""A published model as a folder of plain files that any program can score with (``docs/export.md``)."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.serving.model import ServedModel
from clients.serving.program import OPSET, int8_codes, onnx_program, with_int8_weights
from fedrec.data.histories import Histories
from fedrec.drafts import whole_folder
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.panel import panel_people
from fedrec.evaluation.protocol import paired_difference
from fedrec.model.pairs import PairPart
from fedrec.runfolder import write_arrays, write_bytes, write_json

FORMAT = 1
PROGRAM, PAIRS, ITEMS, MANIFEST = "ranker.onnx", "pairs.safetensors", "items.json", "manifest.json"


@dataclass(frozen=True)
class Int8Quality:
    """NDCG@10 on a run's public panel, and what rounding item vectors and weights to int8 changes.

    Attributes:
        people: of the panel who have something to predict.
        float32: mean NDCG@10 with both as they are, in [0, 1].
        int8: with both rounded.
        change: the mean of the paired differences; negative where it costs.
        standard_error: of ``change``; NaN for one person.
    """

    people: int
    float32: float
    int8: float
    change: float
    standard_error: float


def int8_quality(model: ServedModel, panel: Histories, *, masking: Masking) -> Int8Quality:
    """Rank the panel with item vectors and weights as they are and as int8.

    Args:
        panel: public people, at least one of two events.
        masking: what the panel is not offered.
    """
    codes, scales = int8_codes(model.vectors)
    exact = copy.deepcopy(model.ranker)  # measuring leaves a ranker in training mode: not the one that is served
    rounded = with_int8_weights(model.ranker)
    rounded.vectors = torch.from_numpy(codes * scales[:, None])
    parts = list(model.parts.values())
    before, after = (panel_people(one, panel, masking=masking, parts=parts)[1] for one in (exact, rounded))
    change, error = paired_difference(before, after)
    return Int8Quality(len(before), float(before.mean()), float(after.mean()), change, error)


def export_model(
    model: ServedModel, folder: Path, *, int8: bool = False, quality: Int8Quality | None = None
) -> dict[str, Any]:
    """Write the program, the pairs, the order of the items and a manifest: all of it or nothing.

    Args:
        model: stays as it is.
        folder: new.
        int8: round item vectors and the weights of linear layers to int8, one scale a row.
        quality: what that costs, where it was measured.

    Returns:
        The manifest, as ``manifest.json`` holds it.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
        RunError: ``folder`` exists, or cannot be written.
    """
    table = int8_codes(model.vectors) if int8 else (model.vectors, np.ones(model.ranker.items, np.float32))
    with whole_folder(folder) as draft:
        write_bytes(draft / PROGRAM, onnx_program(with_int8_weights(model.ranker) if int8 else model.ranker, *table))
        write_arrays(draft / PAIRS, _pair_arrays(model.parts))
        write_json(draft / ITEMS, list(model.catalogue.item_ids))
        digests = {name: _digest(draft / name) for name in (PROGRAM, PAIRS, ITEMS)}
        write_json(draft / MANIFEST, _manifest(model, digests, int8=int8, quality=quality))
        manifest = json.loads((draft / MANIFEST).read_text(encoding="utf-8"))
        draft.chmod(0o755)  # a draft is for its owner alone; nothing in this one is secret
    return manifest


def _pair_arrays(parts: Mapping[str, PairPart]) -> dict[str, np.ndarray]:
    """Each part of pairs by name: rows of the table of what follows what, and how they are read."""
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        table = part.transitions
        arrays |= {f"{name}.{key}": getattr(table, key) for key in ("offsets", "columns", "values")}
        arrays |= {
            f"{name}.{key}": np.asarray(getattr(part, key)) for key in ("weight", "sharpness", "recent", "decay")
        }
    return arrays


def _manifest(
    model: ServedModel, digests: Mapping[str, str], *, int8: bool, quality: Int8Quality | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": model.version,
        "privacy": model.statement,
        "sha256": dict(digests),
        "opset": OPSET,
        "items": model.ranker.items,
        "dimensions": model.vectors.shape[1],
        "numbers": "int8" if int8 else "float32",
        "history": min(model.max_history, model.ranker.spec.history),
        "merges_repeats": model.merges_repeats,
        "masking": model.masking.value,
        "pairs": sorted(model.parts),
        "int8_ndcg@10": asdict(quality) if quality else None,
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
