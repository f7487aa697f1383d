"""``make results``: measure every ranker on every data set, and write the tables and pictures of ``docs/results.md``.

    python -m benchmarks.results runs/results --jobs 2
    python -m benchmarks.results runs/results --sets beauty --seeds 0 --rows base local_only distributed-8
    python -m benchmarks.results runs/results --study scale --seeds 0
    python -m benchmarks.results runs/results --render-only

Every figure is a cell, a small file below the folder. Cells that are there are read and not measured again, so the
command can be stopped at any time and given again. Remove a cell to measure it anew.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.data_sets import FOLDERS, config_of
from benchmarks.measuring import Case, changed, measure_case
from benchmarks.pages import rewrite
from benchmarks.pictures import draw_epsilon, draw_scale
from benchmarks.rows import ROWS, SCALE_ROWS, default_rows
from benchmarks.tables import MARKS, Seeds, read_seeds, scale_section, set_section
from fedrec.config import Config, load_config
from fedrec.errors import FedrecError
from fedrec.quiet import silence
from fedrec.report.progress import Progress

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
NEXT_BASKET = "next_basket"  # another question about the bundled set
SETS = ("online_retail", NEXT_BASKET, *(name for name in FOLDERS if name != "online_retail"))
SIZES = ((5, 18), (5, 74), (5, 186), (5, 745), (20, 18), (20, 74), (20, 186), (50, 18), (50, 74), (200, 18))
EPSILON_PICTURE, SCALE_PICTURE = "images/quality-against-epsilon.svg", "images/scaling.svg"


def main() -> None:
    """Measure what is missing, then write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where cells, bases and runs lie")
    parser.add_argument("--study", nargs="+", choices=["tables", "scale"], default=["tables"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="all that the set gets, when absent")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each takes one data set and seed at a time")
    parser.add_argument("--render-only", action="store_true", help="write the document from the cells that are there")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of results.md")
    asked = parser.parse_args()
    failed = 0
    if not asked.render_only:
        planned = [case for study in asked.study for case in plan(study, asked.sets, asked.seeds, asked.rows)]
        failed = measure(planned, asked.folder, jobs=asked.jobs)
    try:
        render(asked.folder, asked.docs, seeds=asked.seeds)
    except FedrecError as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if failed else 0)


def plan(
    study: str, sets: Sequence[str], seeds: Sequence[int], rows: Sequence[str] | None
) -> list[tuple[str, str, int, tuple[str, ...], tuple[int, int] | None]]:
    """What to measure: name, data set, seed, rows, and merchants by people in the scaling study; seeds last to vary.

    Settings are not read here, so that a data set that is not at hand stops no other.
    """
    if study == "scale":
        chosen = tuple(rows or SCALE_ROWS)
        return [(size_name(size), "online_retail", seed, chosen, size) for seed in seeds for size in SIZES]
    return [(name, name, seed, tuple(rows or default_rows(name)), None) for seed in seeds for name in sets]


def measure(
    planned: list[tuple[str, str, int, tuple[str, ...], tuple[int, int] | None]], folder: Path, *, jobs: int
) -> int:
    """Fill the cells; what fails is told and stops nothing else. Returns how many cases failed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes below; threads of one would fight with those of another
    failed = 0
    # A process a case: what a case held in memory goes with it.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(measure_one, *case, folder): case for case in planned}
        for future in as_completed(waiting):
            try:
                told = future.result()
            except BrokenExecutor as error:  # killed, perhaps for want of memory
                told = str(error)
            if told:
                failed += 1
                sys.stderr.write(f"failed={waiting[future][0]!r} seed={waiting[future][2]}: {told}\n")
    return failed


def measure_one(
    name: str, data_set: str, seed: int, rows: tuple[str, ...], size: tuple[int, int] | None, folder: Path
) -> str:
    """One case, in a process of its own. Returns what went wrong, "" when nothing did."""
    silence()
    try:
        changes = {} if size is None else {"partition.clients": size[0], "partition.people_per_client": size[1]}
        config = changed(settings_of(data_set), changes | {"seed": seed})
        with Progress() as progress:
            measure_case(Case(f"{name}/seed-{seed}", data_set, config), rows, folder, progress=progress)
    except FedrecError as error:
        return str(error)
    except Exception:  # a bug in one case: the others are worth hours
        return traceback.format_exc()
    return ""


def settings_of(data_set: str) -> Config:
    """Settings of a data set, or of the other question about the bundled one.

    Raises:
        ConfigError: its files are not at hand.
    """
    return load_config(HERE / "next_basket.toml") if data_set == NEXT_BASKET else config_of(data_set)


def size_name(size: tuple[int, int]) -> str:
    """Folder of one size of the scaling study."""
    return f"scale/{size[0]}x{size[1]}"


def render(folder: Path, docs: Path, *, seeds: Sequence[int]) -> None:
    """Write the measured part of ``results.md`` and the pictures from the cells that are there.

    Raises:
        RunError: a cell is damaged, or the document has no place for the tables.
    """
    sets: dict[str, Seeds] = {name: read_seeds(folder, name, default_rows(name), seeds) for name in SETS}
    sizes: dict[tuple[int, int], Seeds] = {
        size: read_seeds(folder, size_name(size), SCALE_ROWS, seeds) for size in SIZES
    }
    parts = []
    if draw_epsilon(sets, docs / EPSILON_PICTURE):
        parts.append(f"![NDCG@10 against epsilon, a line a trust model]({EPSILON_PICTURE})")
    parts += [set_section(name, found) for name, found in sets.items()]
    measured = {size: found for size, found in sizes.items() if any(found.values())}
    if measured:
        parts.append(scale_section(measured))
    if draw_scale(sizes, docs / SCALE_PICTURE):
        parts.append(f"![Gain against the number of merchants]({SCALE_PICTURE})")
    rewrite(docs / "results.md", "\n\n".join(parts), marks=MARKS)


if __name__ == "__main__":
    main()
