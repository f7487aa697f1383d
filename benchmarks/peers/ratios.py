"""How many times as fast one contender is as another, what is asked of fedrec, and what was recorded."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.turns import Result

Ratios = Mapping[str, Mapping[str, float]]  # by regime, by name

RECORDED = Path(__file__).with_name("recorded.json")
LARGEST_FALL = 0.2  # of a recorded ratio
AGREEMENT = 1e-4  # largest relative difference of checksums; float32 arrives at them by different roads


@dataclass(frozen=True)
class Bar:
    """What is asked: ``ours`` is ``least`` times as fast as ``theirs``, with equally many processes."""

    regime: str
    ours: str
    theirs: str
    least: float

    @property
    def name(self) -> str:
        return f"{self.ours}/{self.theirs}"


FLOOR = 1 / 1.15
BARS = (
    Bar("compute", "fedrec-2", "flower", 1.5),
    Bar("compute", "fedrec-1", "pfl", 1.1),
    Bar("compute", "fedrec-1", "loop", FLOOR),
    Bar("overhead", "fedrec-2", "flower", 8.0),
    Bar("overhead", "fedrec-1", "pfl", 1.5),
    Bar("overhead", "fedrec-1", "loop", FLOOR),
)
# What must not fall, and by which clock. A busy machine hardly moves the processor time of single processes.
GUARDED = (("fedrec-2", "flower", "seconds"), ("fedrec-1", "pfl", "cpu_s"), ("fedrec-1", "loop", "cpu_s"))


def ratio(results: Sequence[Result], ours: str, theirs: str, *, clock: str = "seconds") -> float | None:
    """Median over the turns of how many times as fast ``ours`` was as ``theirs``; None where one did not run.

    Args:
        clock: "seconds", or "cpu_s" for how many times the processor time ``theirs`` took.
    """
    by_name = {result.name: getattr(result, clock) for result in results if not result.failure}
    if not by_name.get(ours) or not by_name.get(theirs):
        return None
    return statistics.median(their_s / our_s for our_s, their_s in zip(by_name[ours], by_name[theirs], strict=True))


def guarded_ratios(results: Sequence[Result]) -> dict[str, float]:
    """The ratios that must not fall, by name; without those that a missing contender leaves out."""
    found = {f"{ours}/{theirs}": ratio(results, ours, theirs, clock=clock) for ours, theirs, clock in GUARDED}
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def falls(now: Ratios, recorded: Ratios) -> list[str]:
    """One line for each ratio that has fallen by more than ``LARGEST_FALL`` of what was recorded, by regime.

    A contender that did not run is not missed, a regime that was never recorded is.
    """
    lines = [f"{regime}: nothing recorded; run with --quick --record" for regime in now if regime not in recorded]
    for regime, ratios in now.items():
        for name, before in recorded.get(regime, {}).items():
            if name in ratios and ratios[name] < (1 - LARGEST_FALL) * before:
                less = 1 - ratios[name] / before
                lines.append(f"{regime}: {name}: {ratios[name]:.3g}, recorded {before:.3g}: {less:.0%} less")
    return lines


def disagreements(results: Sequence[Result]) -> list[str]:
    """One line for each contender that ended elsewhere than the first one that tells where it ended."""
    told = [result for result in results if not result.failure and result.checksum is not None]
    return [
        f"{result.name}: checksum {result.checksum:.6g}, {told[0].name} has {told[0].checksum:.6g}"
        for result in told[1:]
        if abs(result.checksum - told[0].checksum) > AGREEMENT * abs(told[0].checksum)
    ]


def read_recorded(path: Path = RECORDED) -> dict[str, dict[str, float]]:
    """Recorded ratios by regime; none where nothing was recorded."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(ratios: Ratios, path: Path = RECORDED) -> None:
    """Keep ratios by regime; those of other regimes, and of contenders that did not run, stay."""
    before = read_recorded(path)
    joined = {regime: before.get(regime, {}) | dict(found) for regime, found in ratios.items()}
    path.write_text(json.dumps(before | joined, indent=1, sort_keys=True) + "\n", encoding="utf-8")
