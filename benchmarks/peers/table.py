"""The measurements as Markdown, written between two marks of ``docs/benchmarks.md``."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.peers.ratios import BARS, ratio
from benchmarks.peers.turns import Result
from benchmarks.peers.work import REGIMES, Regime, adapted_ranker
from fedrec.model.adapters import schema_of
from fedrec.schema import parameters_of

MARKS = ("<!-- written by make bench, from here -->", "<!-- to here -->")
TITLES = {
    "loop": "bare loop",
    "fedrec-1": "fedrec, 1 process",
    "fedrec-2": "fedrec, 2 processes",
    "fedrec-noise": "fedrec, 1 process, with noise and policies",
    "fedrec-ray": "fedrec on Ray, 2 actors",
    "flower": "Flower, Ray, Opacus, 2 actors",
    "pfl": "pfl, 1 process",
}
HEADINGS = ("contender", "updates/s", "of the loop", "CPU s", "start s", "peak MB", "bytes", "checksum")


def section(measured: Mapping[str, Sequence[Result]], *, machine: str, steps: str = "") -> str:
    """All that goes between the marks.

    Args:
        measured: results by regime.
        machine: what it was measured on.
        steps: a table of single steps, in Markdown; left out when empty.
    """
    parts = [f"Measured on {machine}."]
    parts += [f"### {name}\n\n{describe(REGIMES[name])}\n\n{table(REGIMES[name], r)}" for name, r in measured.items()]
    bars = verdicts(measured)
    return "\n\n".join([*parts, *([f"### What was asked\n\n{bars}"] if bars else []), *([steps] if steps else [])])


def describe(regime: Regime) -> str:
    """The regime in one line."""
    parameters = parameters_of(schema_of(adapted_ranker(regime)))
    return (
        f"Clients: {regime.clients:,}, people at each: {regime.people}, local steps: {regime.local_steps}, "
        f"rounds in a run: {regime.rounds}; {regime.items:,} items, width {regime.width}, {regime.layers} layers, "
        f"{parameters:,} values learn."
    )


def table(regime: Regime, results: Sequence[Result]) -> str:
    """One row a contender: medians over its runs."""
    rows = [HEADINGS, ("---",) + ("---:",) * (len(HEADINGS) - 1)]
    for result in results:
        title = TITLES[result.name]
        if result.failure or not result.seconds:
            rows.append((title, f"did not run: {result.failure}", *[""] * (len(HEADINGS) - 2)))
            continue
        share = ratio(results, result.name, "loop")
        rows.append(
            (
                title,
                f"{regime.updates / statistics.median(result.seconds):,.1f}",
                f"{share:.2f}" if share else "",
                f"{statistics.median(result.cpu_s):.2f}",
                f"{result.start_s:.1f}",
                f"{result.peak_mb:,.0f}",
                f"{result.bytes:,}",
                f"{result.checksum:.6g}" if result.checksum is not None else "noise",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def verdicts(measured: Mapping[str, Sequence[Result]]) -> str:
    """A line for each bar: the ratio, what was asked, met or not met."""
    lines = []
    for bar in BARS:
        if bar.regime not in measured:
            continue
        found = ratio(measured[bar.regime], bar.ours, bar.theirs)
        said = "not measured" if found is None else f"{found:.2f}: {'met' if found >= bar.least else 'not met'}"
        lines.append(f"- {bar.regime}: {TITLES[bar.ours]} over {TITLES[bar.theirs]}, at least {bar.least:.2f}: {said}")
    return "\n".join(lines)
