"""A ranker that trains in milliseconds, people for it, and a whole run folder of both."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrec.agreement import Agreement, write_agreement
from fedrec.data.histories import Histories
from fedrec.model.adapters import AdapterSpec, adapter_arrays, attach_adapter
from fedrec.model.base import base_digest, new_ranker, save_base
from fedrec.model.decoder import small_llama
from fedrec.model.pairs import PublicPairs, no_pairs
from fedrec.model.ranker import Ranker, RankerSpec
from fedrec.privacy.plan import PrivacyPlan
from fedrec.runfolder import FOLDERS
from fedrec.schema import Arrays
from fedrec.wire import Instruction
from fedrec.workspace import make_keys, open_budgets, write_workspace

ITEMS, DIMENSIONS, WIDTH, HISTORY = 40, 12, 16, 6
TEXT_SCALE, TEXT_WINDOW, TEXT_DECAY = 10.0, 4, 0.5

KINDS = ("lora", "ffa-lora", "bottleneck")
TARGETS = ("head", "all-linear")


def vectors(items: int = ITEMS) -> np.ndarray:
    """Unit rows, (I, K) float32."""
    rows = np.random.default_rng(5).normal(size=(items, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ranker_spec(**changes: Any) -> RankerSpec:
    """Two blocks of width 16 over six events."""
    decoder = small_llama(width=WIDTH, layers=2, heads=2, feed_forward=24, history=HISTORY)
    standard = RankerSpec(decoder, HISTORY, TEXT_WINDOW, TEXT_DECAY, TEXT_SCALE, dropout=0.3)
    return replace(standard, **changes)


def untrained(**changes: Any) -> Ranker:
    """The ranker as it is built."""
    return new_ranker(vectors(), ranker_spec(**changes), seed=0)


def nudge(ranker: Ranker, *, size: float = 0.2, seed: int = 1) -> Ranker:
    """Move every trainable parameter, so that every part of the score has something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in ranker.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return ranker


def learned() -> Ranker:
    """As if pretrained: every parameter moved; in evaluation mode."""
    return deepcopy(_learned())


def adapter_spec(**changes: Any) -> AdapterSpec:
    """The default adapter at rank 2."""
    return replace(AdapterSpec("lora", rank=2, targets="head", norms=True, gains=True), **changes)


def adapted(**changes: Any) -> Ranker:
    """A learned base with an adapter that has moved away from its start; in training mode."""
    return deepcopy(_adapted(adapter_spec(**changes)))


@cache
def _learned() -> Ranker:
    return nudge(untrained()).eval()


@cache
def _adapted(spec: AdapterSpec) -> Ranker:
    ranker = learned()
    attach_adapter(ranker, spec, seed=0)
    return nudge(ranker, size=0.1, seed=2)


def histories(*lengths: int, seed: int = 0) -> Histories:
    """People with these many events, none repeating the item just before it."""
    rng = np.random.default_rng(seed)
    rows = [np.cumsum(rng.integers(1, ITEMS, length)) % ITEMS for length in lengths]
    return Histories.from_lists([row.tolist() for row in rows])


def scores(ranker: Ranker, items: Tensor) -> Tensor:
    """Logits after every event, (B, L, I), without a graph."""
    positions = torch.arange(items.shape[1]).expand(items.shape)
    with torch.no_grad():
        return ranker(items, positions)


def open_plan(**changes: Any) -> PrivacyPlan:
    """No noise, everyone takes part: the sum itself. Divided by one."""
    public = {
        "sampling_rate": 1.0,
        "rounds": 4,
        "local_steps": 1,
        "clip_norm": 0.5,
        "clipping": "flat",
        "expected_people": 1,
    }
    return PrivacyPlan.without_privacy(**(public | changes))


@cache
def private_plan(**changes: Any) -> PrivacyPlan:
    """Epsilon 8 over four rounds."""
    public = {
        "sampling_rate": 0.5,
        "rounds": 4,
        "local_steps": 1,
        "clip_norm": 0.5,
        "clipping": "flat",
        "expected_people": 8,
    }
    return PrivacyPlan.calibrate(8.0, 1e-5, **(public | changes))


def agreement(plan: PrivacyPlan | None = None, **changes: Any) -> Agreement:
    """What everyone in the tests agreed on."""
    standard = Agreement(
        run_id="run-1",
        base_digest="a" * 64,
        adapter=adapter_spec(),
        plan=plan or open_plan(),
        local_learning_rate=0.5,
        mask_last=True,
        negatives=None,
        seed=3,
        server_key="5e" * 32,
    )
    return replace(standard, **changes)


def public_pairs() -> PublicPairs:
    """Each item with the two that come next in the catalogue; nobody was seen to take them."""
    first = np.repeat(np.arange(ITEMS), 2)
    keys = np.sort(first * ITEMS + (first + np.tile([1, 2], ITEMS)) % ITEMS)
    first, then = (array.astype(np.int32) for array in np.divmod(keys, ITEMS))
    return PublicPairs(ITEMS, first, then, np.zeros(len(keys), np.float32), no_pairs(ITEMS).spec)


def run_folder(path: Path, people: Histories, clients: list[np.ndarray], **changes: Any) -> Agreement:
    """Write a run folder as ``fedrec simulate`` prepares it; returns its agreement."""
    for name in FOLDERS:
        (path / name).mkdir(parents=True)
    save_base(learned(), path / "base", public_pairs())
    agreed = agreement(base_digest=base_digest(path / "base"), server_key=make_keys(path), **changes)
    write_workspace(path, people, clients)
    open_budgets(path, agreed, clients=len(clients))
    write_agreement(agreed, path)
    return agreed


def instruction(agreed: Agreement, arrays: Arrays, *, round_index: int = 1) -> Instruction:
    """What the server asks of a client."""
    return Instruction(agreed.run_id, round_index, agreed.base_digest, agreed.digest(), adapter=arrays)


def start_arrays(agreed: Agreement) -> Arrays:
    """An adapter that has learned a little already, for rankers over ``learned()``."""
    ranker = learned()
    attach_adapter(ranker, agreed.adapter, seed=agreed.seed)
    return adapter_arrays(nudge(ranker, size=0.05, seed=4))
