"""The report's pictures: SVG text that takes its colours and fonts from the page around it.

Only words of ours are drawn, never a name from the data, so the markup is ours alone.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from fedrec.report.inputs import Client, Round

# Drawn in stand-in colours that the page's own replace, so that one picture serves light and dark.
INK, MUTED, LINE, ACCENT, ALONE, WARN = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", ALONE: "alone", WARN: "warn"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "fedrec",  # the same run draws the same bytes
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
NARROW, WIDE = (4.9, 3.0), (10.2, 3.3)


def quality_curve(rounds: Sequence[Round], *, published_round: int | None) -> str:
    """NDCG@10 on the public panel after each round; void and unmeasured rounds leave a gap."""

    def draw(axes: Axes) -> None:
        at = [line.round for line in rounds]
        values = [float("nan") if line.panel_ndcg is None else line.panel_ndcg for line in rounds]
        axes.plot(at, values, color=ACCENT, marker="o", markersize=3 if len(at) > 15 else 5)
        kept = next((line for line in rounds if line.round == published_round and line.panel_ndcg is not None), None)
        if kept is not None:
            axes.axvline(kept.round, color=MUTED, linewidth=1.2, dashes=(2, 3), zorder=0)
            axes.plot([kept.round], [values[at.index(kept.round)]], "o", color=ACCENT, markersize=13, alpha=0.25)
            _label(axes, "published", at=kept.round, last=max(at))
        axes.set_ylabel("NDCG@10 on the panel")
        axes.margins(y=0.18)
        _rounds_axis(axes)

    return _svg("quality", draw, size=NARROW)


def epsilon_curve(rounds: Sequence[Round], *, budget: float) -> str:
    """Epsilon spent after each round, below the line of the budget."""

    def draw(axes: Axes) -> None:
        spent = [(line.round, line.epsilon_spent) for line in rounds if line.epsilon_spent is not None]
        at = [pair[0] for pair in spent]
        axes.axhline(budget, color=WARN, linewidth=1.4, dashes=(4, 3))
        axes.annotate("budget", (0.01, budget), xycoords=("axes fraction", "data"), xytext=(0, 5), color=WARN,
                      textcoords="offset points")  # fmt: skip
        axes.plot(at, [pair[1] for pair in spent], color=INK, drawstyle="steps-post", marker="o", markersize=3)
        axes.set_ylim(0, max([budget, *(pair[1] for pair in spent)]) * 1.15)
        axes.set_ylabel("epsilon spent, per person")
        _rounds_axis(axes)

    return _svg("epsilon", draw, size=NARROW)


def merchants_plot(clients: Sequence[Client], *, name: str, is_wide: bool) -> str:
    """One thin bar per merchant from its NDCG@10 alone to its NDCG@10 federated, sorted by what it gained."""
    measured = [(client.local_only, client.federated) for client in clients
                if client.local_only is not None and client.federated is not None]  # fmt: skip
    ordered = sorted(measured, key=lambda pair: pair[1] - pair[0], reverse=True)

    def draw(axes: Axes) -> None:
        size = max(2.0, min(7.0 if is_wide else 4.5, (600 if is_wide else 220) / max(1, len(ordered))))
        for place, (alone, together) in enumerate(ordered):
            axes.plot([place, place], [alone, together], color=ACCENT if together >= alone else WARN, alpha=0.45,
                      linewidth=size / 2.5, solid_capstyle="butt", zorder=2)  # fmt: skip
        places = range(len(ordered))
        axes.plot(places, [pair[0] for pair in ordered], "o", color=ALONE, markersize=size, label="alone", zorder=3)
        axes.plot(
            places, [pair[1] for pair in ordered], "o", color=ACCENT, markersize=size, label="federated", zorder=4
        )
        axes.set_xticks([])
        axes.set_xlabel("merchants, most helped on the left")
        axes.set_ylabel("NDCG@10 of its people")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, handletextpad=0.1, borderaxespad=0)

    return _svg(name, draw, size=WIDE if is_wide else NARROW)


def gains_plot(clients: Sequence[Client], *, name: str, is_wide: bool) -> str:
    """What each merchant gains over being alone, against its number of people."""
    measured = [(client.people, client.federated - client.local_only) for client in clients
                if client.local_only is not None and client.federated is not None]  # fmt: skip

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=1.2)
        for sign, colour, label in ((1, ACCENT, "gains"), (0, ALONE, "the same"), (-1, WARN, "loses")):
            if points := [(people, gain) for people, gain in measured if (gain > 0) - (gain < 0) == sign]:
                axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5, alpha=0.7, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("people at the merchant")
        axes.set_ylabel("change of NDCG@10")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, handletextpad=0.1, borderaxespad=0)

    return _svg(name, draw, size=WIDE if is_wide else NARROW)


def _rounds_axis(axes: Axes) -> None:
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def _label(axes: Axes, text: str, *, at: float, last: float) -> None:
    """Write at the foot of a vertical line, on the side that has room."""
    is_right = at > last / 2
    axes.annotate(text, (at, 0), xycoords=("data", "axes fraction"), xytext=(-6 if is_right else 6, 6), color=MUTED,
                  textcoords="offset points", ha="right" if is_right else "left")  # fmt: skip


def _svg(name: str, draw: Callable[[Axes], None], *, size: tuple[float, float]) -> str:
    """Draw on a figure of ``size`` inches and return the bare ``<svg>`` element, ids prefixed with ``name``."""
    with mpl.rc_context(STYLE), io.StringIO() as buffer:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
        text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    referenced = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referenced else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1).strip()
