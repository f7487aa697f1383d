"""fedrec beside its peers on the same work.

python -m benchmarks.peers.run            every regime and contender; rewrites the table of docs/benchmarks.md
python -m benchmarks.peers.run --quick    less of it; fails when a ratio has fallen below what was recorded
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pages import rewrite
from benchmarks.peers.contender import CONTENDERS
from benchmarks.peers.machine import machine
from benchmarks.peers.pfl_environment import pfl_folder, pfl_python
from benchmarks.peers.ratios import disagreements, falls, guarded_ratios, read_recorded, record
from benchmarks.peers.table import MARKS, section, table, verdicts
from benchmarks.peers.turns import ROOT, Result, measure
from benchmarks.peers.work import REGIMES

PAGE = ROOT / "docs" / "benchmarks.md"
FULL = ("compute", "overhead", "communication")
QUICK = ("compute-quick", "overhead-quick")
QUICK_CONTENDERS = ("loop", "fedrec-1", "fedrec-2", "flower", "pfl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write or check; returns the exit code."""
    asked = _parse(arguments)
    began = time.perf_counter()
    pythons = _pythons(asked.contenders, asked.pfl)
    measured: dict[str, list[Result]] = {}
    for regime in asked.regimes:
        measured[regime] = measure(asked.contenders, regime, runs=asked.runs, pythons=pythons, tell=_tell)
        print(f"{regime}\n{table(REGIMES[regime], measured[regime])}\n", flush=True)
    print(verdicts(measured))
    _tell(f"took {time.perf_counter() - began:.0f} s")
    wrong = [f"{regime}: {line}" for regime in measured for line in disagreements(measured[regime])]
    wrong += [f"{regime}: {line}" for regime in measured for line in _failures(measured[regime])]
    ratios = {regime: guarded_ratios(results) for regime, results in measured.items()}
    if asked.record:
        record(ratios)
    elif asked.quick:
        wrong += falls(ratios, read_recorded())
    if asked.table:
        rewrite(asked.table, section(measured, machine=machine(), steps=_steps()), marks=MARKS)
    _tell("\n".join(wrong) or "all that ran agree")
    return 1 if wrong else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small regimes, three turns, held against recorded.json")
    parser.add_argument("--record", action="store_true", help="write the ratios into recorded.json")
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES))
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS))
    parser.add_argument("--runs", type=int, help="timed runs of each contender [5; 3 with --quick]")
    parser.add_argument("--pfl", type=Path, default=pfl_folder(), help="environment of pfl, made when absent")
    parser.add_argument("--table", type=Path, help="page whose table is rewritten [docs/benchmarks.md when full]")
    asked = parser.parse_args(arguments)
    is_whole = not (asked.quick or asked.regimes or asked.contenders)
    asked.table = asked.table or (PAGE if is_whole else None)
    asked.regimes = asked.regimes or (QUICK if asked.quick else FULL)
    asked.contenders = asked.contenders or (QUICK_CONTENDERS if asked.quick else tuple(CONTENDERS))
    asked.runs = asked.runs or (3 if asked.quick else 5)
    return asked


def _pythons(contenders: Sequence[str], folder: Path) -> dict[str, str]:
    """Interpreters of contenders with an environment of their own; pfl without one fails and says so."""
    if "pfl" not in contenders:
        return {}
    try:
        return {"pfl": str(pfl_python(folder))}
    except (OSError, subprocess.SubprocessError) as error:
        _tell(f"pfl: its environment cannot be made in {folder}: {error}")
        return {}


def _failures(results: Sequence[Result]) -> list[str]:
    """Contenders of ours that failed; one of the others leaves its column empty and says why."""
    return [f"{result.name}: {result.failure}" for result in results if result.failure and "fedrec" in result.name]


def _steps() -> str:
    """The table of single steps in Markdown, where that benchmark is there."""
    if importlib.util.find_spec("benchmarks.step") is None:
        return ""
    command = [sys.executable, "-m", "benchmarks.step"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    about = "CPU time of one step, everybody clipped and with noise, beside an ordinary one: `benchmarks/step.py`."
    return f"### One step\n\n{about}\n\n{done.stdout.strip()}" if done.returncode == 0 else ""


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
