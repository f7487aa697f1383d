"""Two pictures of the results: quality against epsilon, and what federating adds by number and size of merchants."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.cells import Cell, difference
from benchmarks.rows import EPSILONS, NO_NOISE, TRUSTS
from benchmarks.tables import TITLES, Seeds
from fedrec.report.plan_chart import ACCENT, FILE_STYLE, INK, MUTED, WARN

BLUE, OCHRE = "#3a6ea5", "#a8895a"
COLOURS = {"distributed": ACCENT, "central": OCHRE, "local": BLUE}
REFERENCES = {"local_only": "alone", "base": "base"}
PANEL = (5.1, 3.5)  # inches


def draw_epsilon(sets: dict[str, Seeds], path: Path) -> bool:
    """NDCG@10 of the deployed ranker against epsilon, a panel a data set, a line a trust model; False if there is none.

    Args:
        sets: cells by data set.
        path: an .svg, written over.
    """
    drawn = {name: found for name, found in sets.items() if any(_epsilon_line(found, trust) for trust in TRUSTS)}
    return _save(path, [(TITLES[name], _epsilon_panel(found)) for name, found in drawn.items()])


def draw_scale(sizes: dict[tuple[int, int], Seeds], path: Path) -> bool:
    """What federating adds against the number of merchants, a panel a trust model, a line a size; False if none."""
    names = [name for name in ("local-8", "distributed-8") if any(_scale_gain(found, name) for found in sizes.values())]
    return _save(
        path, [(f"{name.partition('-')[0]} noise, ε 8", _scale_panel(sizes, name)) for name in names], is_one_scale=True
    )


def _epsilon_panel(found: Seeds) -> Callable[[Axes], None]:
    places = [*reversed(EPSILONS), math.inf]  # from most private to none

    def draw(axes: Axes) -> None:
        free = _values(found, f"federated-{NO_NOISE}")
        for shift, trust in zip((-0.05, 0.0, 0.05), ("local", "central", "distributed"), strict=True):
            line = _epsilon_line(found, trust) | ({math.inf: free} if free else {})
            if len(line) == (1 if free else 0):
                continue
            at = [place for place in places if place in line]
            _line(
                axes,
                [places.index(place) + shift for place in at],
                [line[place] for place in at],
                trust,
                COLOURS[trust],
            )
        for row, label in REFERENCES.items():
            if values := _values(found, row):
                level = statistics.mean(values)
                axes.axhline(level, color=MUTED, linewidth=1.2, dashes=(2, 3) if row == "base" else (6, 3), zorder=0)
                axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), xytext=(0, 3), color=MUTED,
                              textcoords="offset points", ha="right")  # fmt: skip
        axes.set_xticks(range(len(places)), [*(f"{e:g}" for e in places[:-1]), "no noise"])
        axes.set_xlim(-0.3, len(places) - 0.7)
        axes.set_xlabel("epsilon of a person at a merchant")
        axes.set_ylabel("NDCG@10")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.0), fontsize=9.5)
        axes.margins(y=0.25)

    return draw


def _scale_panel(sizes: dict[tuple[int, int], Seeds], federation: str) -> Callable[[Axes], None]:
    each = sorted({people for _, people in sizes})
    colours = dict(zip(each, (BLUE, ACCENT, OCHRE, INK, WARN), strict=False))

    def draw(axes: Axes) -> None:
        for people in each:
            points = {
                m: gains for (m, p), found in sizes.items() if p == people and (gains := _scale_gain(found, federation))
            }
            if points:
                at = sorted(points)
                _line(axes, at, [points[merchants] for merchants in at], f"{people} people each", colours[people])
        axes.axhline(0, color=MUTED, linewidth=1.2, zorder=0)
        axes.set_xscale("log")
        merchants = sorted({m for m, _ in sizes})
        axes.set_xticks(merchants, [str(m) for m in merchants])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("merchants")
        axes.set_ylabel("gain over alone, NDCG@10")
        axes.legend(frameon=False, loc="best", fontsize=9.5)

    return draw


def _line(axes: Axes, at: Sequence[float], values: Sequence[list[float]], label: str, colour: str) -> None:
    """Means over seeds, with their standard deviation where there is one."""
    means = [statistics.mean(each) for each in values]
    errors = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
    axes.errorbar(at, means, yerr=errors if any(errors) else None, color=colour, marker="o", markersize=5, label=label,
                  elinewidth=1.2, capsize=2)  # fmt: skip


def _epsilon_line(found: Seeds, trust: str) -> dict[float, list[float]]:
    """Epsilon -> a value a seed, where measured."""
    line = {float(e): _values(found, f"federated-{trust}-{e}") for e in EPSILONS}
    return {epsilon: values for epsilon, values in line.items() if values}


def _scale_gain(found: Seeds, federation: str) -> list[float]:
    return [
        difference(cells["local_only"], cells[name])[0]
        for cells in found.values()
        if (name := f"federated-{federation}") in cells and _has(cells, name) and _has(cells, "local_only")
    ]


def _values(found: Seeds, name: str) -> list[float]:
    return [cells[name].means["ndcg@10"] for cells in found.values() if _has(cells, name)]


def _has(cells: dict[str, Cell], name: str) -> bool:
    return name in cells and cells[name].refused is None


def _save(path: Path, panels: list[tuple[str, Callable[[Axes], None]]], *, is_one_scale: bool = False) -> bool:
    """Draw the panels two abreast; nothing, and False, where there is none."""
    if not panels:
        return False
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(FILE_STYLE):
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        first: Axes | None = None
        for place, (title, draw) in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, place, sharey=first if is_one_scale else None)
            first = first or axes
            draw(axes)
            axes.set_title(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return True
