"""The report for people: one page without script or outside request, with the signed document inside."""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec.privacy.report import words
from fedrec.privacy.report.curve import epsilon_curve
from fedrec.privacy.report.document import Signed
from fedrec.privacy.report.page import sections
from fedrec.privacy.report.tiles import tiles

TEMPLATES = Path(__file__).resolve().parent / "templates"
SHARED_TEMPLATES = Path(__file__).resolve().parents[2] / "report" / "templates"
BEGIN, END = '<script type="application/json" id="signed-report">', "</script>"


def render_html(signed: Signed) -> str:
    """The page; the same document gives the same bytes, and everything from outside is escaped."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, SHARED_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    report = signed.report
    return environment.get_template("privacy.html.j2").render(
        facts=report.facts,
        verdict=report.findings.verdict,
        stamp="" if report.facts.private else words.STAMP,
        tiles=tiles(report),
        sections=sections(signed),
        curve=epsilon_curve,
        begin=BEGIN,
        end=END,
        document=embedded(signed),
    )


def embedded(signed: Signed) -> str:
    """The signed document as one line that no markup can end: ``<`` only as its JSON escape."""
    values = signed.model_dump(mode="json")
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")
