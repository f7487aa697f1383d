"""A privacy plan as text on stdout: the promise first, then what it costs and what others would."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

_ROWS = 8  # rounds shown; all of them are in --json


def print_forecast(found: dict[str, Any], *, console: Console | None = None) -> None:
    """Print what ``fedrec.privacy.forecast.forecast`` found.

    Args:
        console: where to print; stdout when absent.
    """
    out = console or Console(highlight=False)
    _print_promise(found, out)
    if found["split"] is not None:
        _print_split(found["split"], out)
    _print_rounds(found, out)
    _print_people(found, out)
    _print_more_rounds(found, out)
    if found["sampling_rates"] is not None:
        _print_rates(found, out)
    scope = f"delta = {found['delta']:g}, per {found['unit']}, neighbours {found['relation']}, {found['accountant']}"
    out.print(Padding(escape(f"* Every epsilon above: {scope}, unless the line says otherwise."), (1, 0, 0, 0)))


def _print_promise(found: dict[str, Any], out: Console) -> None:
    out.print("\n[bold]The promise[/]")
    out.print(Padding(escape(found["statement"]), (0, 0, 1, 2)))
    people = found["sampling_rate"] * found["expected_people"]
    numbers = {
        "noise multiplier": f"{found['noise_multiplier']:.4f} x clip norm {found['clip_norm']:g} ({found['clipping']})",
        "steps": f"{found['steps']}: {found['rounds']} rounds of {found['local_steps']}",
        "sampling rate": f"{found['sampling_rate']:g}: about {people:,.0f} of {found['expected_people']:,} people",
        "noise on the mean": _noise_on_the_mean(found, people=people),
        "delta": f"{found['delta']:g}, {'below' if found['delta_is_below_one_over_n'] else 'NOT below'} "
        f"1/n = {1 / found['expected_people']:.1g}",
    }
    if found["batch_cap"] is not None:
        numbers["batch cap"] = f"{found['batch_cap']:,} people, at clients of at most {found['max_people']:,}"
    if found["metric_releases"]:
        noise = found["metric_noise_multiplier"]
        numbers["metric releases"] = f"{found['metric_releases']}, each with noise multiplier {noise:g}"
    if (noise := found["statistics_noise_multiplier"]) is not None:
        numbers["release of counts"] = f"one, with noise multiplier {noise:.4f}"
    table = Table.grid(padding=(0, 2))
    for label, value in numbers.items():
        table.add_row(Padding(label, (0, 0, 0, 2)), escape(value))
    out.print(table)


def _print_split(split: dict[str, Any], out: Console) -> None:
    rows = [
        [
            part["part"],
            f"{part['share']:.0%}",
            f"{part['noise_multiplier']:.4f}",
            *(f"{part[name]:.3g}" for name in ("signal", "noise", "snr")),
        ]
        for part in split["parts"]
    ]
    header = ["part", "share of the budget", "noise multiplier", "signal", "noise", "signal / noise"]
    _print_table("What each part can expect, by public figures", header, rows, out)
    for part in split["parts"]:
        gets = "pairs get" if part["part"] == "pairs" else "the adapter gets"
        out.print(Padding(escape(f"{gets} {part['verdict']}"), (0, 0, 0, 2)))
    note = "pairs: people in the counts that stand out; adapter: clip norms of the mean update, a step of the run"
    out.print(Padding(note, (0, 0, 0, 2)), style="dim")


def _print_rounds(found: dict[str, Any], out: Console) -> None:
    curve = found["epsilon_by_round"]
    places = sorted({round(part * (len(curve) - 1) / (_ROWS - 1)) for part in range(_ROWS)})
    rows = [[str(curve[place]["round"]), _number(curve[place]["epsilon"])] for place in places]
    _print_table("Epsilon* spent by round", ["after round", "epsilon"], rows, out)


def _print_people(found: dict[str, Any], out: Console) -> None:
    rows = [[k, _number(epsilon)] for k, epsilon in found["epsilon_for_person_at"].items()]
    _print_table("Epsilon* of one person who is at several clients", ["clients", "epsilon"], rows, out)
    others = [
        ["replace one person", _number(found["epsilon_replace_one"])],
        ["zero out one person", _number(found["epsilon_zero_out"])],
        ["cross-check, never lower", _number(found["rdp_epsilon"])],
    ]
    _print_table("Epsilon* otherwise", ["neighbours or accountant", "epsilon"], others, out)
    out.print(Padding(f"cross-check: {escape(found['rdp_accountant'])}; add or remove", (0, 0, 0, 2)), style="dim")


def _print_more_rounds(found: dict[str, Any], out: Console) -> None:
    rows = [
        [str(line["rounds"]), _number(line["noise_multiplier"]), _number(line["epsilon_at_same_noise"])]
        for line in found["more_rounds"]
    ]
    header = ["rounds", "noise for the same promise", "epsilon* at the same noise"]
    _print_table("More rounds", header, rows, out)


def _print_rates(found: dict[str, Any], out: Console) -> None:
    rows = []
    for line in found["sampling_rates"]:
        relative = line["relative_noise"]
        shown = "none reaches it" if relative is None else f"{relative:.3g}"
        mark = f"[bold]{shown}[/] best" if line["is_best"] else f"{shown}     "
        people = f"{line['people_per_step']:,.0f}"
        rows.append([f"{line['sampling_rate']:g}", people, _number(line["noise_multiplier"]), mark])
    header = ["rate", "people a step", "noise multiplier", "noise on the mean / clip norm     "]
    _print_table("Other sampling rates, for the same promise", header, rows, out)
    out.print(Padding("a step's work grows with its people; take the smallest rate that is nearly best", (0, 0, 0, 2)),
              style="dim")  # fmt: skip


def _print_table(title: str, header: list[str], rows: list[list[str]], out: Console) -> None:
    out.print(f"\n[bold]{title}[/]")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, label in enumerate(header):
        table.add_column(
            Padding(label, (0, 0, 0, 2)) if place == 0 else label, justify="left" if place == 0 else "right"
        )
    for first, *others in rows:
        table.add_row(Padding(first, (0, 0, 0, 2)), *others)
    out.print(table)


def _number(value: float | None) -> str:
    return "none reaches it" if value is None else f"{value:.4f}"


def _noise_on_the_mean(found: dict[str, Any], *, people: float) -> str:
    """What the noise comes to: of a client's update, or of the round's where it is shared or added once."""
    noise, sharers = found["noise_multiplier"] / people, found["noise_sharers"]
    if found["trust"] == "central":
        return f"{noise:.2g} of the clip norm in each coordinate, over the clients of the round"
    of_what = f"of {sharers} clients' updates together" if sharers > 1 else "of a client's update"
    return f"{noise / sharers:.2g} of the clip norm in each coordinate, {of_what}"
