"""Full-text search of a catalogue: SQLite FTS5 and BM25, in memory or in a file. Catalogue text only.

Source of the score: Robertson and Zaragoza 2009, The probabilistic relevance framework: BM25 and beyond, section 3,
https://doi.org/10.1561/1500000019, with k1 = 1.2 and b = .75 (https://sqlite.org/fts5.html, the bm25 function).
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from clients.serving.queries import folded_words, singular, words_of
from clients.serving.spelling import Vocabulary
from fedrec.config_search import SearchConfig
from fedrec.data.catalogue import Catalogue
from fedrec.data.tables import write_atomically
from fedrec.errors import DataError

FIELDS = ("title", "brand", "category", "description")
_FORMAT = "fedrec full text 1"  # of the tables, and of ``words_of``
_SHORTEST_PREFIX = 2
_SCHEMA = f"""
CREATE VIRTUAL TABLE items USING fts5({", ".join(FIELDS)}, content='', prefix='2 3',
    tokenize='unicode61 remove_diacritics 0');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab('items', 'row');
CREATE TABLE made_from (format TEXT NOT NULL, catalogue TEXT NOT NULL, items INTEGER NOT NULL);
"""
_RANKED = "SELECT rowid, bm25(items, ?, ?, ?, ?) AS score FROM items WHERE items MATCH ? ORDER BY score, rowid"


class FullTextIndex:
    """Finds items by their words. Threads may share one; an item's index is its position in the catalogue."""

    def __init__(self, connection: sqlite3.Connection, config: SearchConfig, *, name: str) -> None:
        """Use ``build`` or ``open``."""
        self._connection, self._config, self._name = connection, config, name
        self._lock = threading.Lock()
        with _sqlite_errors(name):
            self._vocabulary = Vocabulary(dict(connection.execute("SELECT term, doc FROM vocabulary")))

    @classmethod
    def build(cls, catalogue: Catalogue, config: SearchConfig | None = None) -> "FullTextIndex":
        """Index I items in memory."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        _fill(connection, catalogue)
        return cls(connection, config or SearchConfig(), name="full-text index")

    @classmethod
    def open(cls, path: Path, catalogue: Catalogue, config: SearchConfig | None = None) -> "FullTextIndex":
        """Open a file of ``write_index``, which must be of this very catalogue.

        Raises:
            DataError: absent, no such file, damaged, or made from other items or by another version.
        """
        if not path.is_file():
            raise DataError(f"{path}: no full-text index there; make one with write_index")
        with _sqlite_errors(str(path)):
            address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            try:
                connection.execute("PRAGMA trusted_schema = OFF")
                made_from = connection.execute("SELECT format, catalogue, items FROM made_from").fetchone()
                if made_from != (_FORMAT, catalogue.digest(), len(catalogue)):
                    raise DataError(f"{path}: made from another catalogue or by another version; make it again")
                return cls(connection, config or SearchConfig(), name=str(path))
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def search(self, query: str, *, most: int, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """Items that have the query's words.

        Items with all words come first. Where they are fewer than ``enough``, the last word may also be the beginning
        of a longer one, and after those come items with some of the words. A word that no item has stands for the known
        words nearest to it, the last one for those that begin with it.

        Args:
            query: anything a person can type.
            most: items, at most, >= 1.
            allowed: (I,) bool; other items are not found. All when absent.

        Returns:
            Items and their BM25 scores, > 0, best first; equal scores by item within a reading. Empty when no word is
            known.

        Raises:
            DataError: the index file is damaged.
        """
        found: list[tuple[int, float]] = []
        for expression in self._expressions(query):
            more = self._matches(expression, most=most - len(found), allowed=allowed, but={item for item, _ in found})
            # A looser reading may count rarer words; its best hit still stands no higher than the last one before it.
            ceiling = min(1.0, found[-1][1] / more[0][1]) if found and more else 1.0
            found += [(item, score * ceiling) for item, score in more]
            if len(found) >= min(most, self._config.enough):
                break
        return found

    def spelled(self, query: str) -> str:
        """The query in words of the catalogue, for readers that know no spelling but the right one.

        Returns:
            ``query`` itself when every word is known or has nothing near. Else its words, folded, each unknown one as
            the likeliest known word near it, or, for the last word, that it begins.
        """
        words = self._read(query)
        meant = [self._meant(word, is_last=at == len(words) - 1) for at, word in enumerate(words)]
        return query if meant == words else " ".join(meant)

    def _meant(self, word: str, *, is_last: bool) -> str:
        indexed = singular(word)
        if indexed in self._vocabulary:
            return word
        whole = self._vocabulary.completed(indexed) if is_last and len(indexed) >= _SHORTEST_PREFIX else None
        return whole or next(iter(self._near(word)), word)

    def _read(self, query: str) -> list[str]:
        """The words of a query, as many as are read."""
        return folded_words(query[: self._config.longest_query])[: self._config.most_words]

    def _expressions(self, query: str) -> Iterator[str]:
        """FTS5 expressions, the strictest first. Each word is letters and digits within quotes: none is an operator."""
        words = self._read(query)
        if not words:
            return
        *earlier, last = words
        groups = [self._spellings(word) for word in earlier]
        if singular(last) in self._vocabulary:
            yield _all_of([*groups, self._spellings(last)])
        groups.append(self._beginnings(last) or self._spellings(last))
        yield _all_of(groups)
        yield _any_of(groups)

    def _spellings(self, word: str) -> list[str]:
        """A known word itself, or what may be meant by an unknown one."""
        indexed = singular(word)
        return [f'"{one}"' for one in ([indexed] if indexed in self._vocabulary else self._near(word))]

    def _near(self, word: str) -> list[str]:
        """Known words near an unknown one; "wireles" has lost a letter and no plural's ending."""
        known, most = self._vocabulary, self._config.spellings
        return known.nearest(singular(word), most=most) or known.nearest(word, most=most)

    def _beginnings(self, word: str) -> list[str]:
        """Words that go on where this one ends, and itself."""
        indexed = singular(word)
        goes_on = len(indexed) >= _SHORTEST_PREFIX and self._vocabulary.completed(indexed) is not None
        return [f'"{indexed}" *'] if goes_on else []

    def _matches(
        self, expression: str, *, most: int, allowed: np.ndarray | None, but: set[int]
    ) -> list[tuple[int, float]]:
        """Items of an expression and their scores, best first."""
        if not expression:
            return []
        config, found = self._config, []
        weights = (config.title_weight, config.brand_weight, config.category_weight, config.description_weight)
        with self._lock, _sqlite_errors(self._name):
            for item, score in self._connection.execute(_RANKED, (*weights, expression)):
                if item not in but and (allowed is None or allowed[item]):
                    found.append((item, -score))
                if len(found) == most:
                    break
        return found


def cached_index(catalogue: Catalogue, folder: Path, config: SearchConfig | None = None) -> FullTextIndex:
    """The index of a catalogue from a folder of such files; made there when it is not there or cannot be used.

    Raises:
        DataError: the folder cannot be written.
    """
    path = folder / f"words-{catalogue.digest()[:32]}.sqlite"
    try:
        return FullTextIndex.open(path, catalogue, config)
    except DataError:
        write_index(catalogue, path)
        return FullTextIndex.open(path, catalogue, config)


def write_index(catalogue: Catalogue, path: Path) -> None:
    """Index I items in a file, whole or not at all; it says which catalogue it is of.

    Raises:
        DataError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # a file that is not finished is never read
            _fill(connection, catalogue)

    try:
        write_atomically(path, write)
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be written: {error}") from None


def _fill(connection: sqlite3.Connection, catalogue: Catalogue) -> None:
    connection.executescript(_SCHEMA)
    columns = [catalogue.titles, *(catalogue.text_column(name) for name in FIELDS[1:])]
    rows = (
        (item, *(" ".join(words_of(text)) for text in texts)) for item, texts in enumerate(zip(*columns, strict=True))
    )
    with connection:
        connection.executemany(
            "INSERT INTO items (rowid, title, brand, category, description) VALUES (?, ?, ?, ?, ?)", rows
        )
        connection.execute("INSERT INTO items (items) VALUES ('optimize')")
        connection.execute("INSERT INTO made_from VALUES (?, ?, ?)", (_FORMAT, catalogue.digest(), len(catalogue)))


def _all_of(groups: list[list[str]]) -> str:
    """Every word that anything is known for."""
    return " AND ".join(f"({' OR '.join(group)})" for group in groups if group)


def _any_of(groups: list[list[str]]) -> str:
    return " OR ".join(word for group in groups for word in group)


@contextmanager
def _sqlite_errors(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(f"{name}: not a usable full-text index: {error}; make it again") from None
