"""The outcome of a run as text on stdout: verdict, table, guarantee, and where to go next."""

import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from fedrec.errors import RunError
from fedrec.report import words
from fedrec.report.inputs import Context, Summary, check_inputs
from fedrec.report.page import HTML_NAME, JSON_NAME

GROUPS = {
    "deployable": "What a merchant could deploy",
    "references": "For reference: sees everyone's data or adds no noise, NOT PRIVATE",
}
COLORS = {"better": "green", "worse": "red", "unclear": "yellow"}


def print_summary(summary: dict, *, folder: Path, console: Console | None = None) -> None:
    """Print what the run showed, and what it guarantees, whole.

    Args:
        summary: the content of ``summary.json``.
        folder: the run folder; its ``report.json`` holds the statement and the comparisons.
        console: where to print; stdout when absent.

    Raises:
        RunError: ``report.json`` is missing or damaged, or belongs to another run.
    """
    checked, context = _read(summary, folder)
    out = console or Console(highlight=False)
    _print_verdict(checked, context, out)
    _print_table(checked, out)
    _print_guarantee(checked, context, out)
    _print_next(folder, out)


def _read(summary: dict, folder: Path) -> tuple[Summary, Context]:
    """Take the context from the report beside the summary; the words are made from both."""
    path = folder / JSON_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        stored, context = report["summary"], report["context"]
    except FileNotFoundError:
        raise RunError(f"{path}: not there; the run writes it last, so finish the run with --resume") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise RunError(f"{path}: damaged; write it again with: fedrec simulate --out {folder} --resume") from None
    checked, _, context = check_inputs(summary, [], context)
    if stored != checked.model_dump(mode="json"):
        raise RunError(f"{path}: tells of another run than the summary; give the folder that the summary came from")
    return checked, context


def _print_verdict(summary: Summary, context: Context, out: Console) -> None:
    """The conclusion comes first, and the stamp before it."""
    if summary.privacy is None:
        out.print(f"\n[bold white on red] {words.STAMP} [/]")
    found = words.verdict(summary, context)
    out.print(f"\n[bold {COLORS[found.outcome]}]{escape(found.headline)}[/]")
    for sentence in found.sentences:
        out.print(Padding(escape(sentence), (0, 0, 0, 2)))


def _print_table(summary: Summary, out: Console) -> None:
    """Two tables with the same columns; the best of each column is bold and starred, for readers without colour."""
    for group, rows in words.table(summary).items():
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", overflow="fold", width=25)
        for label, _ in words.COLUMNS.values():
            table.add_column(label.replace("@", "\n@").replace(" ", "\n"), justify="right", width=8)
        for row in rows:
            cells = (
                f"[bold]{cell}*[/]" if best else f"{cell} " for cell, best in zip(row.cells, row.best, strict=True)
            )
            table.add_row(Padding(escape(row.label), (0, 0, 0, 2)), *cells)
        out.print(f"\n[bold]{escape(GROUPS[group])}[/]")
        out.print(table)
    out.print("\n  * best in its group and column", style="dim")
    for sentence in filter(None, (words.new_products(summary), words.new_merchants(summary))):
        out.print(Padding(escape(sentence), (1, 0, 0, 2)))


def _print_guarantee(summary: Summary, context: Context, out: Console) -> None:
    """Never a bare epsilon: the whole sentence, or the stamp."""
    title = "Privacy" if summary.privacy is not None else f"Privacy: {words.STAMP}"
    out.print(f"\n[bold]{title}[/]")
    out.print(Padding(escape(context.statement), (0, 0, 0, 2)))
    if summary.privacy is not None:
        composed = context.epsilon_for_person_at.items()
        if several := ", ".join(f"{k} clients {words.ceiling(epsilon)}" for k, epsilon in composed if k > 1):
            out.print(
                Padding(
                    escape(f"Epsilon of someone who is at several clients, at the same delta: {several}."), (0, 0, 0, 2)
                )
            )
    if context.limits:
        out.print(Padding(escape(context.limits[0]), (0, 0, 0, 2)))


def _print_next(folder: Path, out: Console) -> None:
    """Paths and commands on lines of their own, never wrapped, so that they can be copied."""
    quoted = shlex.quote(str(folder))
    lines = {
        "Report": str(folder / HTML_NAME),
        "Figures": str(folder / "summary.json"),
        "Adapter": str(folder / "adapter.safetensors"),
        "Try it": f"fedrec serve {quoted} --open",
        "Measure again": f"fedrec simulate --out {quoted} --resume",
        "Run again": f"fedrec simulate --config {shlex.quote(str(folder / 'config.toml'))} --out NEW_FOLDER",
    }
    out.print()
    for label, value in lines.items():
        out.print(f"[bold]{label:<14}[/]{escape(value)}", soft_wrap=True)
