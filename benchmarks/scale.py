"""``docs/scale.md``: how time and memory grow with clients, people, items and parameters, and what does not grow.

    OMP_NUM_THREADS=1 python -m benchmarks.scale runs/scale
    OMP_NUM_THREADS=1 python -m benchmarks.scale runs/scale --part sampled registered
    python -m benchmarks.scale runs/scale --render-only

Every point is a process of its own and a small file below the folder. Points that are there are not measured again, so
the command can be stopped at any time and given again. Remove a file to measure it anew.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import scale_tables
from benchmarks.pages import rewrite
from benchmarks.scale_run import Case, machine, measure_ranking, measure_rounds, prepare
from fedrec.quiet import silence
from fedrec.runfolder import write_json

DOCS = Path(__file__).parent.parent / "docs"
PICTURE = "images/scale.svg"
DEVICES = 100_000

PARTS: dict[str, dict[str, Case]] = {
    "sampled": {f"{asked}": Case(DEVICES, asked) for asked in (50, 100, 200, 500, 1_000, 2_000, 5_000)},
    "registered": {f"{clients}": Case(clients, 100, rounds=7) for clients in (1_000, 10_000, 100_000)},
    "people": {f"{people}": Case(1, 1, people=people) for people in (1_000, 10_000, 100_000, 1_000_000)},
    "parameters": {f"rank-{rank}": Case(1_000, 50, rank=rank) for rank in (1, 4, 16, 32)},
    "items": {f"{items}": Case(100, 20, items=items, dimensions=256) for items in (10_000, 100_000, 1_000_000)},
    "ranking": {
        f"{people}x{items}": Case(1, 0, people=people, items=items, dimensions=256)
        for people, items in ((256, 10_000), (256, 100_000), (256, 1_000_000), (1_024, 1_000_000), (4_096, 100_000))
    },
    "memory": {"200x1000": Case(DEVICES, 1_000, rounds=200)},
    "all": {"100000x1000000": Case(1, 0, people=100_000, items=1_000_000, dimensions=256)},
}


def main() -> None:
    """Measure what is missing, then write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the points lie")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="all, when absent")
    parser.add_argument("--render-only", action="store_true", help="write the document from the points that are there")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of scale.md")
    asked = parser.parse_args()
    if not asked.render_only:
        for part in asked.part:
            for name, case in PARTS[part].items():
                measure(case, asked.folder / part / f"{name}.json")
    render(asked.folder, asked.docs)


def measure(case: Case, point: Path) -> None:
    """Write one point, unless it is there."""
    if point.exists():
        return
    point.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=point.parent) as place:
        run = Path(place) / "run"
        _apart(prepare, case, run)
        prepared_bytes = _size(run)
        found = _apart(measure_rounds if case.sampled else measure_ranking, case, run)
        found |= {"prepared_bytes": prepared_bytes, "bytes": _size(run)}
        shutil.rmtree(run)
    write_json(point, {"case": asdict(case), "machine": machine(), **found})


def read_points(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Part -> the points that are there, in the order of the plan."""
    return {
        part: [json.loads(path.read_text()) for name in cases if (path := folder / part / f"{name}.json").exists()]
        for part, cases in PARTS.items()
    }


def render(folder: Path, docs: Path) -> None:
    """Write the measured part of ``scale.md``, and the picture.

    Raises:
        RunError: the document has no place for the tables.
    """
    points = read_points(folder)
    text = scale_tables.sections(points)
    if scale_tables.draw(points, docs / PICTURE):
        text = f"![Seconds a round and memory, against what they should and should not depend on]({PICTURE})\n\n{text}"
    rewrite(docs / "scale.md", text, marks=scale_tables.MARKS)


def _apart(work: Callable[[Case, Path], Any], case: Case, run: Path) -> Any:
    """In a process of its own: what one point held in memory is not counted at the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=silence) as pool:
        return pool.submit(work, case, run).result()


def _size(folder: Path) -> int:
    """Bytes that the files of a folder take up on disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
