"""A privacy plan as one picture in a file: epsilon by round, and beside it what one can choose or must know."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from fedrec.errors import ConfigError
from fedrec.privacy.accounting import round_up
from fedrec.report import charts

INK, MUTED, LINE, ACCENT, WARN = "#1b1d22", "#5c616b", "#e3e0d8", "#1f6f5c", "#b3261e"
FORMATS = (".svg", ".png")

_COLOURS = {charts.INK: INK, charts.MUTED: MUTED, charts.LINE: LINE}
FILE_STYLE: dict[Any, Any] = {name: _COLOURS.get(value, value) for name, value in charts.STYLE.items()} | {
    "svg.fonttype": "path",  # a file of its own cannot count on the page's fonts
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def check_plot_path(path: Path) -> None:
    """Refuse before any work is done what could not be drawn after it.

    Raises:
        ConfigError: an ending that is neither .svg nor .png, or a folder that is not there.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--plot={path}: expected a file ending in .svg or .png")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot={path}: no folder {path.parent}; make it first")


def draw_plan(found: dict[str, Any], path: Path) -> None:
    """Draw what ``fedrec.privacy.forecast.forecast`` found; the statement stands below.

    Args:
        path: ending in .svg or .png; written over.

    Raises:
        ConfigError: the file cannot be written.
    """
    check_plot_path(path)
    with mpl.rc_context(FILE_STYLE):
        figure = Figure(figsize=(10.2, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_rounds(left, found)
        if found["sampling_rates"] is not None:
            _draw_rates(right, found)
        else:
            _draw_clients(right, found)
        figure.supxlabel(textwrap.fill(found["statement"], 135), fontsize=9.5, color=MUTED, x=0.01, ha="left")
        metadata = {"Date": None, "Creator": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=150, metadata=metadata)
        except OSError as error:
            raise ConfigError(f"--plot={path}: cannot be written: {error.strerror}") from None


def _draw_rounds(axes: Axes, found: dict[str, Any]) -> None:
    at = [0, *(point["round"] for point in found["epsilon_by_round"])]
    spent = [0.0, *(point["epsilon"] for point in found["epsilon_by_round"])]
    axes.axhline(found["epsilon"], color=WARN, linewidth=1.4, dashes=(4, 3))
    axes.annotate(f"promised: {round_up(found['epsilon']):.10g}", (0, found["epsilon"]), xytext=(4, 5), color=WARN,
                  textcoords="offset points")  # fmt: skip
    every_round = len(at) == max(at) + 1
    axes.step(at, spent, where="post" if every_round else "pre", color=ACCENT)  # between known rounds: the higher
    axes.set_ylim(0, 1.18 * found["epsilon"])
    axes.set_xlim(0, max(at))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel(f"epsilon at delta = {found['delta']:g}")
    axes.set_title("Spent by round")


def _draw_clients(axes: Axes, found: dict[str, Any]) -> None:
    clients = list(found["epsilon_for_person_at"])
    spent = list(found["epsilon_for_person_at"].values())
    bars = axes.bar(clients, spent, color=ACCENT, width=0.6)
    axes.bar_label(bars, [f"{round_up(epsilon, 2):.2f}" for epsilon in spent], color=INK, padding=2)
    axes.margins(y=0.12)
    axes.set_xlabel("clients that one person is at")
    axes.set_ylabel(f"epsilon at delta = {found['delta']:g}")
    axes.set_title("Of one person at several clients")


def _draw_rates(axes: Axes, found: dict[str, Any]) -> None:
    lines = [line for line in found["sampling_rates"] if line["relative_noise"] is not None]
    rates, noise = [line["sampling_rate"] for line in lines], [line["relative_noise"] for line in lines]
    axes.plot(rates, noise, color=ACCENT, marker="o", markersize=5)
    for line in lines:
        if line["is_best"]:
            axes.plot([line["sampling_rate"]], [line["relative_noise"]], "o", color=ACCENT, markersize=13, alpha=0.25)
            axes.annotate("least", (line["sampling_rate"], line["relative_noise"]), xytext=(0, 11), color=ACCENT,
                          textcoords="offset points", ha="center")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(found["sampling_rate"], color=MUTED, linewidth=1.2, dashes=(2, 3), zorder=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sampling rate; dotted: this plan")
    axes.set_ylabel("noise on the mean update / clip norm")
    axes.set_title("Noise for the same promise")
