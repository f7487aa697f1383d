"""The public base on disk: item vectors, the pretrained ranker and how to build it again, public pairs."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedrec.errors import RunError
from fedrec.model.pairs import PAIRS, PublicPairs, no_pairs
from fedrec.model.ranker import Ranker, RankerSpec

PANEL = "panel.safetensors"  # public people kept aside, beside the base
CATALOGUE = "catalogue.sha256"  # digest of the items and texts it was made from, beside the base
LONGEST_HISTORY = 4096  # events; attention takes memory by its square
FILES = ("items.safetensors", "ranker.safetensors", "ranker.json", PAIRS)


def save_base(ranker: Ranker, folder: Path, pairs: PublicPairs | None = None) -> None:
    """Write a ranker without an adapter, and public pairs (none when absent), into ``folder``.

    ``load_base`` and ``PublicPairs.load`` read them anywhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": ranker.vectors.contiguous()}, folder / "items.safetensors")
    save_file({name: p.detach().contiguous() for name, p in ranker.state_dict().items()}, folder / "ranker.safetensors")
    (no_pairs(ranker.items) if pairs is None else pairs).save(folder)
    (folder / "ranker.json").write_text(json.dumps(asdict(ranker.spec), indent=1, sort_keys=True), encoding="utf-8")


def load_base(folder: Path) -> Ranker:
    """Build the ranker that ``save_base`` wrote, when all of the base can be used.

    Raises:
        RunError: a file is missing, truncated or does not fit the others.
    """
    try:
        spec = RankerSpec(**json.loads((folder / "ranker.json").read_text(encoding="utf-8")))
        _check(spec)
        ranker = Ranker(load_file(folder / "items.safetensors")["vectors"], spec)
        ranker.load_state_dict(load_file(folder / "ranker.safetensors"))
        _check_items(PublicPairs.load(folder), ranker)
    except OSError as error:
        raise RunError(
            f"{folder}: not a usable base: {error.strerror or error}; make one with fedrec pretrain"
        ) from None
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:  # RecursionError among them
        raise RunError(f"{folder}: not a usable base: {str(error).splitlines()[0]}") from None
    return ranker


def _check(spec: RankerSpec) -> None:
    """Refuse, as ``ValueError``, what no settings give: a base may come from somebody else."""
    for name in ("history", "text_window"):
        if type(value := getattr(spec, name)) is not int or not 1 <= value <= LONGEST_HISTORY:
            raise ValueError(f"{name}: expected a whole number from 1 to {LONGEST_HISTORY}")
    for name in ("text_decay", "text_scale", "dropout"):
        if not isinstance(value := getattr(spec, name), int | float) or not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number")


def _check_items(pairs: PublicPairs, ranker: Ranker) -> None:
    if pairs.items != ranker.items:
        raise ValueError(f"{PAIRS}: for {pairs.items} items, the ranker has {ranker.items}")


def base_digest(folder: Path) -> str:
    """Return the SHA-256 over the base's files, in hex."""
    digest = hashlib.sha256()
    for name in FILES:
        with (folder / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def new_ranker(vectors: np.ndarray, spec: RankerSpec, *, seed: int) -> Ranker:
    """Build an untrained ranker from item vectors (I, K), deterministic in ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Ranker(torch.from_numpy(np.ascontiguousarray(vectors, np.float32)), spec)
