"""A quality report as ``check.json``, as a page that needs nothing but a browser, and as text for a terminal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedrec.data.quality import Bar, Finding, QualityReport
from fedrec.data.tables import write_atomically

_HERE = Path(__file__).resolve().parent
_TEMPLATES = (_HERE / "templates", _HERE.parent / "report" / "templates")  # the second holds the look of every page
HTML_NAME, JSON_NAME = "check.html", "check.json"

_BADGES = {"problem": "Problem", "look": "Worth a look", "note": "Good to know", "ok": "Nothing found"}
_COLOURS = {"problem": "bold red", "look": "yellow", "note": "cyan", "ok": "green"}


@dataclass(frozen=True)
class _Column:
    """One bar of a picture, in its units: x to the right, y down."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


def write_report(report: QualityReport, folder: Path) -> tuple[Path, Path]:
    """Write ``check.html`` and ``check.json``, each whole or not at all.

    Returns:
        Their paths.

    Raises:
        DataError: the folder cannot be written.
    """
    html, text = render_html(report), render_json(report)
    html_path, json_path = folder / HTML_NAME, folder / JSON_NAME
    write_atomically(html_path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    write_atomically(json_path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return html_path, json_path


def render_json(report: QualityReport) -> str:
    """One JSON document; equal reports give equal text."""
    return json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False)


def render_html(report: QualityReport) -> str:
    """One self-contained page: no script, no request, light and dark."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "day": _day,
        "number": lambda value: f"{value:,}",
        "sentence": lambda text: text[:1].upper() + text[1:],
    }
    return environment.get_template("check.html.j2").render(
        report=report,
        name=Path(report.source).name,
        headline=headline(report),
        kept_share=kept_share(report),
        findings=_worst_first(report.findings),
        badges=_BADGES,
        timeline=_columns(report.timeline, width=640, height=170, gap=2),
        lengths=_columns(report.history_lengths, width=640, height=170, gap=8),
        most_dropped=max([rule.dropped for rule in report.rules], default=0) or 1,
        most_events=max(report.event_types.values(), default=1),
    )


def headline(report: QualityReport) -> str:
    """The verdict in one sentence."""
    if any(finding.severity == "problem" for finding in report.findings):
        return "Mend this data before you train on it."
    kept = "Every row is" if report.rows_kept == report.rows_read else f"{kept_share(report)} of the rows are"
    looks = sum(finding.severity == "look" for finding in report.findings)
    if not looks:
        return f"{kept} fit to train on."
    things = "1\N{NO-BREAK SPACE}thing is" if looks == 1 else f"{looks}\N{NO-BREAK SPACE}things are"
    return f"{kept} fit to train on; {things} worth a look."


def kept_share(report: QualityReport) -> str:
    """``72.2%``; 100.0% means every row."""
    percent = round(100 * report.rows_kept / report.rows_read, 1)
    return f"{percent if report.rows_kept == report.rows_read else min(percent, 99.9)}%"


def print_report(report: QualityReport, console: Console) -> None:
    """The same for a terminal, without the pictures."""
    console.print(f"[bold]{escape(headline(report))}[/bold]")
    console.print(f"[dim]{escape(report.source)}[/dim]\n")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in fact_rows(report):
        facts.add_row(f"[dim]{name}[/dim]", escape(value))
    console.print(facts, "")
    console.print(_rule_table(report), "")
    console.print(_finding_table(report.findings))


def fact_rows(report: QualityReport) -> list[tuple[str, str]]:
    """Name and value of what a reader asks first."""
    spread = report.events_per_person
    span = f"{_day(report.first)} to {_day(report.last)}" if report.first and report.last else "positions, no clock"
    catalogue = "none" if report.catalogue_items is None else f"{report.catalogue_items:,} items"
    rows = [
        ("rows", f"{report.rows_kept:,} of {report.rows_read:,}"),
        ("people", f"{report.people:,}; {report.people_with_four:,} with four events or more once repeats are merged"),
        ("items", f"{report.items:,}; catalogue: {catalogue}"),
        ("span", span),
        ("events a person", f"median {spread['median']:,g}, mean {spread['mean']:,g}, most {spread['max']:,g}"),
        ("repeats", f"{report.repeat_share:.0%} of events are of an item that the person had before"),
    ]
    if report.event_types:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in list(report.event_types.items())[:8])
        rows.append(("event types", kinds))
    return rows


def _rule_table(report: QualityReport) -> Table:
    """What cleaning dropped, rule by rule."""
    table = Table(box=box.SIMPLE_HEAD, title="Cleaning, rule by rule", title_justify="left")
    table.add_column("rule")
    table.add_column("drops", style="dim")
    table.add_column("dropped", justify="right")
    table.add_column("kept", justify="right")
    table.add_row("rows read", "", "", f"{report.rows_read:,}")
    for rule in report.rules:
        table.add_row(rule.rule, escape(rule.description), f"{rule.dropped:,}", f"{rule.kept:,}")
    for rule in report.catalogue_rules:
        table.add_row(f"catalogue: {rule.rule}", escape(rule.description), f"{rule.dropped:,}", f"{rule.kept:,}")
    return table


def _finding_table(findings: Sequence[Finding]) -> Table:
    """What looks wrong in the rest."""
    table = Table(box=box.SIMPLE_HEAD, title="What the rules do not see", title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    table.add_column("finding")
    for finding in _worst_first(findings):
        badge = f"[{_COLOURS[finding.severity]}]{_BADGES[finding.severity]}[/]"
        count = finding.quantity if finding.count and finding.severity != "ok" else ""
        table.add_row(badge, count, f"{escape(finding.title)}\n[dim]{escape(finding.summary)}[/dim]")
    return table


def _worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """By severity, then as they came."""
    return sorted(findings, key=lambda finding: list(_BADGES).index(finding.severity))


def _columns(bars: Sequence[Bar], *, width: float, height: float, gap: float) -> list[_Column]:
    """Geometry of a bar chart; nothing is drawn shorter than a hair's breadth unless it is zero."""
    if not bars:
        return []
    step = width / len(bars)
    tallest = max(bar.count for bar in bars) or 1
    columns = []
    for number, bar in enumerate(bars):
        tall = max(height * bar.count / tallest, 1.0 if bar.count else 0.0)
        columns.append(
            _Column(round(number * step + gap / 2, 2), round(height - tall, 2), round(step - gap, 2), round(tall, 2),
                    bar.label, bar.count)
        )  # fmt: skip
    return columns


def _day(iso: str | None) -> str:
    """``2010-12-01T08:26:00+00:00`` -> ``1 December 2010``; other text as it is."""
    try:
        day = date.fromisoformat((iso or "")[:10])
    except ValueError:
        return iso or ""
    return f"{day.day} {day:%B %Y}"
