"""The report as markdown: the same sections in the same words, with the signed document at the end."""

import re
from collections.abc import Iterable

from fedrec.privacy.report import words
from fedrec.privacy.report.blocks import Block, Section
from fedrec.privacy.report.document import Signed
from fedrec.privacy.report.html import embedded
from fedrec.privacy.report.page import sections
from fedrec.privacy.report.tiles import tiles

BEGIN, END = "```json signed-report\n", "\n```\n"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#&])")


def render_markdown(signed: Signed) -> str:
    """The report as text; the same document gives the same bytes."""
    report = signed.report
    verdict = report.findings.verdict
    lines = [f"# {_plain(verdict.headline)}", "", f"fedrec privacy report: {_plain(report.facts.name)}", ""]
    if not report.facts.private:
        lines += [f"**{words.STAMP}**", ""]
    for sentence in verdict.sentences:
        lines += [_plain(sentence), ""]
    for tile in tiles(report):
        lines.append(f"- **{_plain(tile.question)}** {_plain(tile.answer)}: {_plain(tile.detail)}")
    for section in sections(signed):
        lines += ["", *_section(section)]
    lines += ["", "## The signed document", ""]
    return "\n".join(lines) + "\n" + BEGIN + embedded(signed) + END


def _section(section: Section) -> list[str]:
    mark = " (operator only)" if section.is_operator_only else ""
    lines = [f"## {_plain(section.title)}{mark}"]
    for block in section.blocks:
        lines += ["", *_block(block)]
    return lines


def _block(block: Block) -> list[str]:
    match block.kind:
        case "facts":
            return [f"- {_plain(name)}: {_plain(value)}" for name, value in block.rows]
        case "bullets":
            return [f"- {_plain(row[0])}" for row in block.rows]
        case "table":
            return _table(block)
        case "curve":
            return [_plain(block.text), "", *_table(block)]
        case "code":
            return ["```", block.text, "```"]
        case _:
            return [_plain(block.text)]


def _table(block: Block) -> list[str]:
    head = [_row(block.columns), _row("---" for _ in block.columns)]
    return [*head, *(_row(map(_plain, row)) for row in block.rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text that markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
