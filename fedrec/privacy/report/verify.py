"""Check a report offline: its signature, its words, its arithmetic, and the ledgers it speaks of."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

from fedrec.errors import DataError, FedrecError, PrivacyError
from fedrec.privacy.ledger import Entry
from fedrec.privacy.report import html, markdown
from fedrec.privacy.report.document import Facts, LedgerFacts, Part, Signed, canonical, render_json
from fedrec.privacy.report.findings import findings_of
from fedrec.privacy.report.tally import ledger_facts, timeline

_LARGEST_BYTES = 256 * 2**20
_IMPOSSIBLE = (ArithmeticError, LookupError, TypeError, ValueError)  # what a stranger's numbers may lead to


class Format(StrEnum):
    """What a report is written as."""

    HTML = "html"
    JSON = "json"
    MD = "md"


class Check(NamedTuple):
    """One check: "ok", "FAILED" or "not checked", and why."""

    name: str
    outcome: Literal["ok", "FAILED", "not checked"]
    detail: str


def render(signed: Signed, form: Format) -> str:
    """Print a signed report in one of the three formats; the same document gives the same text."""
    printers = {Format.HTML: html.render_html, Format.MD: markdown.render_markdown, Format.JSON: render_json}
    return printers[form](signed)


def read_text(path: Path) -> str:
    """Read a report's file.

    Raises:
        DataError: missing, unreadable, too large or no text.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"{path}: larger than {_LARGEST_BYTES} bytes: not a privacy report")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text; expected a privacy report in html, json or markdown") from None


def format_of(text: str, *, path: Path) -> Format:
    """Tell which of the three formats a text is in.

    Raises:
        DataError: none of them.
    """
    if html.BEGIN in text:
        return Format.HTML
    if markdown.BEGIN in text:
        return Format.MD
    if text.startswith("{") and '"signature"' in text:
        return Format.JSON
    raise DataError(f"{path}: no signed report inside; expected what fedrec privacy report writes")


def signed_document(text: str, form: Format) -> Signed:
    """Take the signed document out of a report.

    Raises:
        PrivacyError: it is damaged or fits no schema.
    """
    if form is Format.JSON:
        return Signed.parse(text)
    begin, end = (html.BEGIN, html.END) if form is Format.HTML else (markdown.BEGIN, markdown.END)
    document, found, _ = text.rpartition(begin)[2].partition(end)
    if not found:
        raise PrivacyError("signed report: cut short; expected a whole document")
    return Signed.parse(document)


def check_signature(signed: Signed) -> Check:
    """Whether the named key signed exactly this document."""
    if signed.is_genuine():
        return Check("signature", "ok", f"made by the key {signed.public_key}")
    return Check("signature", "FAILED", "the document is not what the key signed")


def check_signer(signed: Signed, expected: str | None, *, source: str) -> Check:
    """Whether the key is the one the reader trusts; ``source`` says where that one comes from."""
    if expected is None:
        return Check("signer", "not checked", "anyone can make a key; name the operator's with --public-key")
    if expected == signed.public_key:
        return Check("signer", "ok", f"the key is {source}")
    return Check("signer", "FAILED", f"the key {signed.public_key} is not {source}, {expected}")


def check_text(text: str, signed: Signed, form: Format) -> Check:
    """Whether the file is, byte for byte, what the signed document prints as."""
    try:
        rendered = render(signed, form)
    except FedrecError as error:
        return Check("text", "FAILED", str(error))
    except _IMPOSSIBLE as error:
        return Check("text", "FAILED", f"the document contradicts itself: {error!r}")
    if rendered == text:
        return Check("text", "ok", f"every character of the {form} follows from the signed document")
    written = signed.report.facts.versions.get("fedrec", "unknown")
    where = f"line {_first_difference(rendered, text)} differs from the signed document as printed here"
    return Check("text", "FAILED", f"{where}; if nobody changed it, verify with the fedrec that wrote it, {written}")


def check_arithmetic(signed: Signed) -> Check:
    """Whether every number follows from the stated events, computed anew."""
    report = signed.report
    try:
        anew = findings_of(report.facts)
    except FedrecError as error:
        return Check("arithmetic", "FAILED", str(error))
    except _IMPOSSIBLE as error:
        return Check("arithmetic", "FAILED", f"the stated events cannot be added up: {error!r}")
    if anew == report.findings:
        return Check("arithmetic", "ok", "every number follows from the stated events")
    return Check("arithmetic", "FAILED", f"{_difference(report.findings, anew)} does not follow from the stated events")


def check_ledgers(facts: Facts, books: dict[str, tuple[Entry, ...]]) -> Check:
    """Whether the ledgers at hand hold exactly the entries that the report counted; newer ones may follow."""
    if set(books) != {ledger.name for ledger in facts.ledgers}:
        return Check("ledger", "FAILED", f"ledgers {sorted(books)[:3]} and those of the report are not the same")
    newer = others = 0
    for stated in facts.ledgers:
        entries = books[stated.name]
        if problem := _ledger_problem(stated, entries):
            return Check("ledger", "FAILED", f"{stated.name}: {problem}")
        newer += len(entries) - stated.entries
        is_curve = stated.name == facts.timeline_of and facts.private
        if is_curve and timeline(entries[: stated.entries], stated) != facts.timeline:
            return Check("ledger", "FAILED", f"{stated.name}: epsilon by round is not what the entries say")
        now = ledger_facts(entries, name=stated.name)
        others += facts.policy is not None and not now.is_under(facts.policy.digest())
    more = f"; {newer} entries were added since" if newer else ""
    more += f"; the policy stated is not the newest on record in {others} of them" if others else ""
    return Check("ledger", "ok", f"{len(books)} verified, heads and entries are those of the report{more}")


def has_failed(checks: list[Check]) -> bool:
    """Whether any check failed; one that could not be made is no failure."""
    return any(check.outcome == "FAILED" for check in checks)


def _ledger_problem(stated: LedgerFacts, entries: tuple[Entry, ...]) -> str:
    """What is wrong with one ledger, or nothing."""
    if len(entries) < stated.entries:
        return f"{len(entries)} entries, the report counted {stated.entries}: the ledger was rolled back"
    if entries[stated.entries - 1].mac != stated.head:
        return "the head is not in its chain"
    if ledger_facts(entries[: stated.entries], name=stated.name) != stated:
        return "the entries do not add up to the report"
    return ""


def _difference(stated: Part, anew: Part) -> str:
    """Name the first field in which two parts differ, as far down as there are names."""
    for name in type(stated).model_fields:
        before, after = getattr(stated, name), getattr(anew, name)
        if before != after:
            if isinstance(before, Part) and isinstance(after, Part):
                return f"{name}.{_difference(before, after)}"
            return f"{name} = {_short(before)}, computed {_short(after)},"
    return "the document"


def _first_difference(one: str, other: str) -> int:
    """Number of the first line in which two texts differ."""
    lines, others = one.split("\n"), other.split("\n")
    pairs = zip(lines, others, strict=False)
    return next((n for n, pair in enumerate(pairs, 1) if pair[0] != pair[1]), min(len(lines), len(others)) + 1)


def _short(value: object) -> str:
    text = canonical(value).decode() if isinstance(value, Part) else json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
