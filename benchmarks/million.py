"""A catalogue of a million items, grown out of a run: how fast it is answered, and how many of the best are found.

OMP_NUM_THREADS=1 python -m benchmarks.million RUN [ITEMS [shop | noise]]

Item n is like item n modulo I of the run, with half as much of another item and half as much noise in its vector; it
is bought by those who bought that one, and pairs lead to items like those they led to. ``noise`` in place of a shop is
vectors without any order. Prints; asserts nothing.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.serving import tell
from clients.memory import LocalMemory
from clients.remembering import memory_spec
from clients.serving.approximate import ApproximateIndex, Lists
from clients.serving.model import ServedModel, load_model
from clients.serving.ranking import Filters
from clients.serving.recommending import Wishes, recommend
from clients.serving.scoring import shared_parts
from fedrec.config import load_config
from fedrec.config_serving import RecallConfig
from fedrec.data.bundled import load_bundled
from fedrec.data.catalogue import catalogue_of
from fedrec.data.histories import Histories
from fedrec.model.pairs import PairPart
from fedrec.model.transitions import Transitions

PEOPLE, K = 200, 100
_BLOCK = 50_000
_HALF = 0.5


def main() -> None:
    """Grow, index, answer."""
    run, items = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    torch.set_num_threads(1)
    small, config = load_model(run), load_config(run / "config.toml")
    pasts = list(grown_pasts(small, items=items))
    for name in sys.argv[3:] or ["shop", "noise"]:
        model = grown(small, items=items, is_shop=name == "shop")
        popular = config.local.model_copy(update={"popular_weight": 10.0})
        for local in (config.local, popular) if name == "shop" else (config.local,):
            memory = LocalMemory.of(Histories.from_lists(pasts), memory_spec(local), items=items)
            print(f"{items} items, {name}, popularity weighs {local.popular_weight:g}")
            measure(model, memory, pasts)


def measure(model: ServedModel, memory: LocalMemory, pasts: list[list[int]]) -> None:
    """Print what the index costs, and what it saves."""
    shared = np.sum(list(shared_parts(model, memory).values()), axis=0)
    with tempfile.TemporaryDirectory() as folder:
        before, began = memory_now(), time.perf_counter()
        lists = Lists.cached(model.vectors, Path(folder))
        middle = time.perf_counter()
        Lists.cached(model.vectors, Path(folder))
        read = time.perf_counter()
        index = ApproximateIndex.of(model.vectors, shared, lists=lists)
        filled, after = time.perf_counter(), memory_now()
        index.sharing(shared + 1)
        print(
            f"lists made in {middle - began:.1f} s, read in {read - middle:.1f} s, filled in {filled - read:.1f} s, "
            f"another memory in {time.perf_counter() - filled:.2f} s; {after - before:.0f} MB, in all {after:.0f} MB"
        )
    exact, _ = answered("every item compared", model, memory, pasts, None)
    for compared in (100_000, 200_000, 300_000, 400_000):
        some = replace(index, config=RecallConfig(compared=compared))
        found, _ = answered(f"at least {compared} compared", model, memory, pasts, some)
        shares = [len(set(one) & set(other)) / len(other) for one, other in zip(found, exact, strict=True)]
        print(f"  recall@{K} {np.mean(shares):.4f}, of the worst 5 % at most {np.percentile(shares, 5):.2f}")


def answered(
    what: str, model: ServedModel, memory: LocalMemory, pasts: list[list[int]], index: ApproximateIndex | None
) -> tuple[list[list[int]], list[float]]:
    """The list of each past, and how long it took."""
    wishes, lists, taken = Wishes(K, Filters(), diversity=0.0, pool=100), [], []
    began_cpu, began = time.process_time(), time.perf_counter()
    for past in pasts[:PEOPLE]:
        start = time.perf_counter()
        found = recommend(model, np.array(past), wishes, memory=memory, index=index)
        taken.append(time.perf_counter() - start)
        lists.append([one.item for one in found])
    tell(what, taken, wall=time.perf_counter() - began, cpu_s=time.process_time() - began_cpu)
    return lists, taken


def grown_pasts(small: ServedModel, *, items: int) -> Iterator[list[int]]:
    """The bundled people, each event at an item like the one that was bought; some of those sell far better."""
    rng, known = np.random.default_rng(0), len(small.catalogue)
    bought: dict[str, list[int]] = {}
    for user, item in load_bundled()[0].sort("timestamp").select("user_id", "item_id").iter_rows():
        bought.setdefault(user, []).append(small.catalogue.index[item])
    for person in rng.permutation(sorted(bought)).tolist():
        past = np.array(bought[person][-200:])
        copies = (items // known * rng.random(len(past)) ** 4).astype(int)
        yield (past + known * copies).tolist()


def grown(small: ServedModel, *, items: int, is_shop: bool) -> ServedModel:
    """The model with as many items."""
    rng, known = np.random.default_rng(1), len(small.catalogue)
    like = np.arange(items) % known
    vectors = np.empty((items, small.vectors.shape[1]), np.float32)
    for start in range(0, items, _BLOCK):
        rows = slice(start, min(start + _BLOCK, items))
        own, other = small.vectors[like[rows]], small.vectors[rng.integers(known, size=len(like[rows]))]
        noise = rng.standard_normal(own.shape, dtype=np.float32) / np.float32(own.shape[1] ** 0.5)
        mixed = own + _HALF * other + _HALF * noise if is_shop else noise
        vectors[rows] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    ranker, bias = deepcopy(small.ranker), small.bias[like] + 0.3 * rng.standard_normal(items, dtype=np.float32)
    ranker.vectors, ranker.bias = torch.from_numpy(vectors), torch.nn.Parameter(torch.from_numpy(bias), False)
    parts = {name: grown_pairs(part, like, rng) for name, part in small.parts.items()}
    frame = pl.DataFrame({"item_id": np.arange(items).astype(str)}).with_columns(title=pl.lit("an item"))
    return replace(small, ranker=ranker, parts=parts, catalogue=catalogue_of(frame))


def grown_pairs(part: PairPart, like: np.ndarray, rng: np.random.Generator) -> PairPart:
    """Each item's row is that of the item it is like, and leads to items like those."""
    table = part.transitions
    lengths = np.diff(table.offsets)[like]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    cells = np.repeat(table.offsets[like] - offsets[:-1], lengths) + np.arange(offsets[-1])
    copies = rng.integers(len(like) // table.items, size=len(cells), dtype=np.int32)
    columns = table.columns[cells] + table.items * copies
    order = np.lexsort((columns, np.repeat(np.arange(len(like)), lengths)))
    return replace(part, transitions=Transitions(offsets, columns[order].astype(np.int32), table.values[cells[order]]))


def memory_now() -> float:
    """Megabytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
