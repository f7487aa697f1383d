"""Documents that are half written by hand and half measured."""

from pathlib import Path

from fedrec.errors import RunError
from fedrec.runfolder import write_text

Marks = tuple[str, str]


def rewrite(document: Path, measured: str, *, marks: Marks) -> None:
    """Put the measured part between a document's two marks; everything else was written by hand and stays.

    Args:
        document: a Markdown file.
        measured: Markdown.
        marks: the line before the measured part, and the line after it.

    Raises:
        RunError: a mark is missing, or the second comes first.
    """
    begin, end = marks
    before, begun, rest = document.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise RunError(f"{document}: expected the two lines {begin} and {end}")
    write_text(document, f"{before}{begin}\n\n{measured.strip()}\n\n{end}{after}")
