"""The points of ``benchmarks.scale`` as tables, a picture and the lines through them."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fedrec.report.plan_chart import ACCENT, FILE_STYLE, MUTED

Point = dict[str, Any]
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


def cpu_s(point: Point) -> float:
    """CPU seconds of a round: the median of those that were timed, without the first, which opens the model."""
    return statistics.median(each["cpu_s"] for each in point["rounds"][1:])


def line_through(at: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and R squared of the least-squares line."""
    slope, start = np.polyfit(at, values, 1)
    rest = np.asarray(values) - (slope * np.asarray(at) + start)
    return float(slope), float(start), float(1 - rest.var() / np.var(values))


def spread(values: Sequence[float]) -> float:
    """How far the values lie apart, as a share of the smallest."""
    return max(values) / min(values) - 1


def drift(point: Point) -> tuple[float, float]:
    """Smallest and largest memory after the first tenth of the rounds, as shares of their median less 1."""
    memory = [each["anonymous_mb"] for each in point["rounds"]]
    settled = memory[len(memory) // 10 :]
    middle = statistics.median(settled)
    return min(settled) / middle - 1, max(settled) / middle - 1


def sections(points: dict[str, list[Point]]) -> str:
    """All that was measured, in words and tables."""
    written = {
        "sampled": _sampled,
        "registered": _registered,
        "memory": _memory,
        "people": _people,
        "parameters": _parameters,
        "items": _items,
        "ranking": _ranking,
    }
    ranked = points.get("ranking", []) + points.get("all", [])
    found = points | {"ranking": ranked}
    return "\n\n".join(write(found[part]) for part, write in written.items() if found.get(part)) or "Not measured yet."


def draw(points: dict[str, list[Point]], path: Path) -> bool:
    """Four panels: seconds against sampled and registered clients, memory by round, ranking; False without points."""
    panels = [(part, _PANELS[part]) for part in _PANELS if points.get(part)]
    if not panels:
        return False
    with mpl.rc_context(FILE_STYLE):
        figure = Figure(figsize=(10.2, 3.5 * -(-len(panels) // 2)), layout="constrained")
        for place, (part, (title, across, up, values)) in enumerate(panels, start=1):
            axes = figure.add_subplot(-(-len(panels) // 2), 2, place)
            _panel(axes, *values(points[part]), is_log=part != "memory")
            axes.set(title=title, xlabel=across, ylabel=up)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return True


def _sampled(points: list[Point]) -> str:
    asked, seconds = [point["case"]["sampled"] for point in points], [cpu_s(point) for point in points]
    told = ""
    if len(points) > 2:
        slope, start, fit = line_through(asked, seconds)
        told = f" A line through them: {slope * 1e3:.1f} ms a client and {start:z.2f} s a round, R² {fit:.4f}."
    rows = [[f"{a:,}", f"{s:.2f}", f"{s / a * 1e3:.1f}"] for a, s in zip(asked, seconds, strict=True)]
    return _section(
        "Clients asked in a round",
        f"{points[0]['case']['clients']:,} devices registered.{told}",
        ["asked", "CPU s a round", "ms a client"],
        rows,
    )


def _registered(points: list[Point]) -> str:
    seconds = [cpu_s(point) for point in points]
    rows = [
        [f"{point['case']['clients']:,}", f"{each:.2f}", f"{point['prepared_bytes'] / 1e6:.1f}"]
        for point, each in zip(points, seconds, strict=True)
    ]
    told = (
        f"{points[0]['case']['sampled']} asked in each round. The slowest is {spread(seconds):.1%} above the fastest."
    )
    return _section("Registered clients", told, ["registered", "CPU s a round", "MB on disk when prepared"], rows)


def _memory(points: list[Point]) -> str:
    point = points[0]
    low, high = drift(point)
    case, rounds = point["case"], point["rounds"]
    cpu = [each["cpu_s"] for each in rounds[1:]]
    tenth = max(1, len(cpu) // 10)
    first, last = (statistics.median(part) for part in (cpu[:tenth], cpu[-tenth:]))
    return (
        f"### Memory over {len(rounds) - 1} rounds\n\n"
        f"{case['sampled']:,} of {case['clients']:,} devices in each round. "
        f"Own memory after round {len(rounds) // 10}: {low:+.1%} to {high:+.1%} around its median of "
        f"{statistics.median(each['anonymous_mb'] for each in rounds):.0f} MB. A round took {first:.1f} CPU s at the "
        f"beginning and {last:.1f} at the end. On disk {point['prepared_bytes'] / 1e6:.0f} MB before the first round "
        f"and {point['bytes'] / 1e6:,.0f} MB after the last."
    )


def _people(points: list[Point]) -> str:
    rows = [[f"{p['case']['people']:,}", f"{cpu_s(p):.2f}", f"{p['rounds'][-1]['anonymous_mb']:.0f}"] for p in points]
    told = "One merchant; about 256 of its people take part in a step, whatever their number."
    return _section("People at a client", told, ["people", "CPU s a round", "own memory, MB"], rows)


def _parameters(points: list[Point]) -> str:
    rows = []
    for p in points:
        asked = p["case"]["sampled"]
        up = p["rounds"][-1]["bytes_up"] / asked
        rows.append([f"{p['parameters']:,}", f"{cpu_s(p) / asked * 1e3:.1f}", f"{up / 1e3:.1f}"])
    return _section("Parameters", "Of the adapter.", ["parameters", "ms a client", "kB up, a client"], rows)


def _items(points: list[Point]) -> str:
    rows = [
        [
            f"{p['case']['items']:,}",
            f"{cpu_s(p) / p['case']['sampled'] * 1e3:.1f}",
            f"{p['case']['items'] * p['case']['dimensions'] * 4 / 1e6:,.0f}",
            f"{p['rounds'][-1]['anonymous_mb']:.0f}",
            f"{p['rounds'][-1]['mapped_mb']:,.0f}",
        ]
        for p in points
    ]
    told = (
        f"{points[0]['case']['dimensions']} numbers an item, 1,024 negatives. Vectors are mapped: their pages lie in "
        "memory as long as there is room and are no process's own."
    )
    head = ["items", "ms a client", "MB of vectors", "own memory, MB", "mapped, MB"]
    return _section("Items, with sampled softmax", told, head, rows)


def _ranking(points: list[Point]) -> str:
    rows = [
        [
            f"{p['case']['people']:,}",
            f"{p['case']['items']:,}",
            f"{p['cpu_s']:.1f}",
            f"{p['cpu_s'] / p['case']['people'] * 1e3:.2f}",
            f"{p['highest_mb'] - p['before_mb']:.0f}",
        ]
        for p in points
    ]
    told = f"{points[0]['case']['dimensions']} numbers an item; exact, by the protocol of every table."
    return _section(
        "Ranking people against items", told, ["people", "items", "CPU s", "ms a person", "memory it took, MB"], rows
    )


def _section(title: str, told: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return f"### {title}\n\n{told}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _panel(axes: Axes, at: list[float], values: list[float], *, is_log: bool) -> None:
    axes.plot(at, values, color=ACCENT, marker="o" if is_log else "", markersize=5)
    if is_log:
        axes.set_xscale("log")
        axes.set_xticks(at, [f"{value:,.0f}" for value in at])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.2 * max(values))
    if not is_log:
        axes.axhline(statistics.median(values), color=MUTED, linewidth=1.0, zorder=0)


_PANELS = {
    "sampled": ("Clients asked", "clients asked in a round", "CPU ms a client", lambda points: (
        [p["case"]["sampled"] for p in points], [1e3 * cpu_s(p) / p["case"]["sampled"] for p in points])),
    "registered": ("Clients registered", "registered", "CPU s a round", lambda points: (
        [p["case"]["clients"] for p in points], [cpu_s(p) for p in points])),
    "memory": ("Memory", "round", "own memory, MB", lambda points: (
        list(range(len(points[0]["rounds"]))), [each["anonymous_mb"] for each in points[0]["rounds"]])),
    "items": ("Items", "items in the catalogue", "CPU s a round", lambda points: (
        [p["case"]["items"] for p in points], [cpu_s(p) for p in points])),
}  # fmt: skip
