"""What a page of the report is made of, whatever format prints it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A piece of a section. ``kind`` says which of the other fields count.

    text: a paragraph; note: a quiet one; facts: pairs in ``rows``; table: ``columns`` and ``rows``, of prose if
    ``is_words``; bullets: the first of each row; curve: a table, drawn as well from (charges, epsilon) in
    ``points`` below ``limit``, with ``text`` for those who do not see it; code: ``text`` as it is.
    """

    kind: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    points: tuple[tuple[int, float], ...] = ()
    limit: float = 0.0
    is_words: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    is_operator_only: bool = False


@dataclass(frozen=True)
class Tile:
    """One of the four questions of the first screen."""

    question: str
    answer: str
    detail: str
    is_warning: bool = False
