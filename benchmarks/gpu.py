"""How fast a client's private step is on a GPU, and how much faster than here: ``python -m benchmarks.gpu``.

A step is what a client does in a round: the losses of its people, each one's own gradient of the adapter, the clipped
sum. The decoders are frozen and have random weights; only speed is measured. Without a GPU it says so and ends.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import numpy as np
import torch

from clients.training import LocalTraining, step_losses
from fedrec.data.histories import Histories
from fedrec.model.adapters import AdapterSpec, attach_adapter
from fedrec.model.base import new_ranker
from fedrec.model.decoder import small_llama
from fedrec.model.ranker import Ranker, RankerSpec
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.gradients import PersonGradients

CLIP_NORM = 1.0
LOOK_S = 0.05  # between two looks at how busy the GPU is


@dataclass(frozen=True)
class Size:
    """A decoder, and the work of one step."""

    name: str
    width: int
    layers: int
    heads: int
    feed_forward: int
    history: int = 50
    items: int = 10_000
    dimensions: int = 128
    people: int = 64


SIZES = (
    Size("100M", width=768, layers=12, heads=12, feed_forward=2816),
    Size("1B", width=2048, layers=20, heads=16, feed_forward=5632),
)


@dataclass(frozen=True)
class Way:
    """Where and how a step is computed."""

    device: str
    is_bf16: bool = False
    is_compiled: bool = False

    @property
    def name(self) -> str:
        """As the table says it."""
        return f"{self.device}, {'bf16' if self.is_bf16 else 'float32'}{', compiled' if self.is_compiled else ''}"


@dataclass(frozen=True)
class Measured:
    """One row.

    Attributes:
        size: of the decoder, by name.
        way: where and how.
        parameters: of the frozen decoder.
        updates_per_s: private steps in a second.
        of_first: the same as a multiple of the first way's, which is the CPU's.
        difference: of the clipped sum from the first way's, as a share of its length.
        busy: share of time the GPU was at work, per cent; None where nobody can say.
        peak_gib: most memory of the GPU in use at once.
        failed: why there are no numbers.
    """

    size: str
    way: str
    parameters: int
    updates_per_s: float | None = None
    of_first: float | None = None
    difference: float | None = None
    busy: float | None = None
    peak_gib: float | None = None
    failed: str | None = None


def build(size: Size) -> Ranker:
    """Return a ranker with a frozen decoder of random weights and LoRA on all linear layers, in training mode."""
    rows = np.random.default_rng(0).normal(size=(size.items, size.dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shape = {"width": size.width, "layers": size.layers, "heads": size.heads, "feed_forward": size.feed_forward}
    decoder = small_llama(**shape, history=size.history)
    spec = RankerSpec(decoder, size.history, text_window=10, text_decay=0.8, text_scale=10.0, dropout=0.0)
    ranker = new_ranker(rows, spec, seed=0)
    torch.nn.init.normal_(ranker.head.weight, std=0.02)  # at zero, nothing would reach the decoder
    attach_adapter(ranker, AdapterSpec("lora", rank=8, targets="all-linear", norms=True, gains=True), seed=0)
    return ranker.train()


def clipped_sum(ranker: Ranker, people: Histories, *, is_bf16: bool) -> np.ndarray:
    """One private step without its noise, which is the same numpy code everywhere; (P,), float64."""
    everybody, training = np.arange(len(people)), LocalTraining(mask_last=True, negatives=None, seed=0)
    with PersonGradients(ranker) as gradients, torch.autocast(ranker.device.type, torch.bfloat16, enabled=is_bf16):
        rows = gradients.compute(
            lambda: step_losses(ranker, people, everybody, step=0, training=training).float(), people=len(people)
        )
        return np.asarray(clip_sum(rows, CLIP_NORM, "flat").cpu().numpy())


def measure(size: Size, ways: Sequence[Way], *, steps: int) -> list[Measured]:
    """Time the step in each way, after one that is not timed; the others are held against the first way."""
    rng = np.random.default_rng(1)
    people = Histories.from_lists([rng.integers(0, size.items, size.history + 1).tolist() for _ in range(size.people)])
    ranker = build(size)
    frozen = sum(p.numel() for p in ranker.decoder.parameters() if not p.requires_grad)
    done: list[Measured] = []
    first: tuple[np.ndarray, float] | None = None
    for way in ways:
        try:
            found, speed, busy = _timed(ranker.to(way.device), people, way, steps=steps)
        except Exception as error:  # a way that does not work on this machine is a result too
            reason = (str(error).splitlines() or [""])[0]
            done.append(Measured(size.name, way.name, frozen, failed=f"{type(error).__name__}: {reason}"))
            continue
        reference, its_speed = first = first or (found, speed)
        done.append(
            Measured(
                size.name,
                way.name,
                frozen,
                updates_per_s=speed,
                of_first=speed / its_speed,
                difference=float(np.linalg.norm(found - reference) / np.linalg.norm(reference)),
                busy=busy,
                peak_gib=torch.cuda.max_memory_allocated() / 2**30 if way.device == "cuda" else None,
            )
        )
    return done


def _timed(ranker: Ranker, people: Histories, way: Way, *, steps: int) -> tuple[np.ndarray, float, float | None]:
    """The clipped sum, steps in a second, and the GPU's share of time at work, per cent."""
    if way.is_compiled:
        ranker.decoder.compile()
    if way.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = clipped_sum(ranker, people, is_bf16=way.is_bf16)
    with _watched(way) as looks:
        started = time.perf_counter()
        for _ in range(steps):
            clipped_sum(ranker, people, is_bf16=way.is_bf16)  # ends on the CPU, so nothing is still under way
        speed = steps / (time.perf_counter() - started)
    return found, speed, float(np.mean(looks)) if looks else None


@contextmanager
def _watched(way: Way) -> Iterator[list[float]]:
    """Look from time to time while the block runs how busy the GPU is, per cent."""
    looks: list[float] = []
    ended = threading.Event()

    def look() -> None:
        with suppress(ModuleNotFoundError, RuntimeError):  # torch asks nvidia-ml-py, which may not be there
            while not ended.wait(LOOK_S):
                looks.append(float(torch.cuda.utilization()))

    watcher = threading.Thread(target=look)
    if way.device == "cuda":
        watcher.start()
    try:
        yield looks
    finally:
        ended.set()
        if way.device == "cuda":
            watcher.join()


def table(rows: Sequence[Measured]) -> str:
    """Markdown."""
    lines = ["| decoder | way | updates/s | of the CPU | difference | GPU busy, % | peak GiB |", "|---" * 7 + "|"]
    for row in rows:
        cells = [row.updates_per_s, row.of_first, row.difference, row.busy, row.peak_gib]
        words = [row.failed] + [""] * 4 if row.failed else ["" if c is None else f"{c:.3g}" for c in cells]
        lines.append("| " + " | ".join([f"{row.size} ({row.parameters / 1e6:.0f}M)", row.way, *words]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all sizes in all ways; 0 also where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each way [5]")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of the table")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: skipped")
        return 0
    ways = [Way("cuda", is_bf16=bf16, is_compiled=compiled) for compiled in (False, True) for bf16 in (False, True)]
    rows = [row for size in SIZES for row in measure(size, [Way("cpu"), *ways], steps=options.steps)]
    print("\n".join(json.dumps(asdict(row)) for row in rows) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
