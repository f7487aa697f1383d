"""The tables of ``docs/search.md``: 90 queries of a shop, each with products that people judged (Chorus, Apache-2.0).

python -m benchmarks.search [FOLDER FOR VECTORS]

Files in ``chorus_search`` in the folder that ``benchmarks.data_sets`` names. Encoding the 19,406 products with MiniLM
takes about five minutes of one core; the vectors are kept in the folder, ``~/.cache/fedrec`` when none is named.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.data_sets import DATA, minilm
from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Searcher
from fedrec.data.catalogue import Catalogue, read_catalogue
from fedrec.errors import ConfigError
from fedrec.model.encoder import HashingEncoder, Progress, TextEncoder, resolve_encoder
from fedrec.model.items import Whitening, item_vectors

FOLDER = "chorus_search"
COLUMNS = ("NDCG@10", "Recall@50", "NDCG@10 of the judged")
Judgments = Mapping[int, int]  # item -> 0 (not what was meant) to 3 (exactly that)
Finder = Callable[[str, int, np.ndarray | None], Sequence[int]]  # query, k, allowed -> items


def read_chorus(folder: Path) -> tuple[Catalogue, dict[str, Judgments]]:
    """The products, and the judgments of each query that has a product rated above 0 (74 of 90), by name.

    Raises:
        ConfigError: the files are not there.
    """
    catalogue_file, judgments_file = folder / "catalogue.parquet", folder / "judgments.csv"
    if not (catalogue_file.exists() and judgments_file.exists()):
        raise ConfigError(f"{folder}: no catalogue.parquet and judgments.csv there; set FEDREC_TEST_DATA")
    catalogue = read_catalogue(catalogue_file, columns={})
    judged: dict[str, dict[int, int]] = {}
    for query, item, rating in pl.read_csv(judgments_file, schema_overrides={"docid": pl.String}).iter_rows():
        judged.setdefault(query, {})[catalogue.index[item]] = rating
    return catalogue, {query: judged[query] for query in sorted(judged) if max(judged[query].values()) > 0}


def graded_ndcg(found: Sequence[int], judgments: Judgments, *, cutoff: int) -> float:
    """Gain 2^rating - 1 over that of the ideal list, in [0, 1]; what nobody judged gains nothing.

    Source: Burges et al. 2005, Learning to rank using gradient descent, section 6,
    https://doi.org/10.1145/1102351.1102363
    """
    gains = [2.0 ** judgments.get(item, 0) - 1 for item in found[:cutoff]]
    ideal = sorted((2.0**rating - 1 for rating in judgments.values()), reverse=True)[:cutoff]
    return discounted(gains) / discounted(ideal)


def discounted(gains: Sequence[float]) -> float:
    """Sum of gain / log2(1 + rank)."""
    return float((np.asarray(gains) / np.log2(np.arange(len(gains)) + 2.0)).sum())


def recall(found: Sequence[int], judgments: Judgments, *, cutoff: int) -> float:
    """Share of the products rated above 0 that are in the list, of at most ``cutoff``."""
    wanted = {item for item, rating in judgments.items() if rating > 0}
    return len(wanted & set(found[:cutoff])) / min(len(wanted), cutoff)


def measure(find: Finder, judged: Mapping[str, Judgments], *, asked: Callable[[str], str], items: int) -> list[float]:
    """Means over queries of ``COLUMNS``: the first two search the whole catalogue, the last ranks the judged products.

    Args:
        asked: what is typed instead of a query.
    """
    rows = []
    for query, judgments in judged.items():
        allowed = np.zeros(items, dtype=bool)
        allowed[list(judgments)] = True
        found, ranked = find(asked(query), 50, None), find(asked(query), 10, allowed)
        at_fifty = recall(found, judgments, cutoff=50)
        rows.append((graded_ndcg(found, judgments, cutoff=10), at_fifty, graded_ndcg(ranked, judgments, cutoff=10)))
    return np.mean(rows, axis=0).tolist()


def empty_lists(find: Finder, queries: Sequence[str], *, asked: Callable[[str], str]) -> int:
    """For how many queries nothing at all is found."""
    return sum(not find(asked(query), 1, None) for query in queries)


def misspelt(query: str) -> str:
    """Two neighbouring letters of the longest word swapped, the first that differ after its first letter."""
    longest = max(query.split(), key=len)
    pairs = [at for at in range(1, len(longest) - 1) if longest[at] != longest[at + 1]]
    if len(longest) < 4 or not pairs:
        return query
    at = pairs[0]
    return query.replace(longest, longest[:at] + longest[at + 1] + longest[at] + longest[at + 2 :], 1)


def by_score(score: Callable[[str], np.ndarray | None]) -> Finder:
    """Rank by one number an item."""

    def find(query: str, k: int, allowed: np.ndarray | None) -> Sequence[int]:
        scores = score(query)
        assert scores is not None
        shown = scores if allowed is None else np.where(allowed, scores, -np.inf)
        return np.argsort(-shown, kind="stable")[: k if allowed is None else min(k, int(allowed.sum()))].tolist()

    return find


def by_search(searcher: Searcher) -> Finder:
    """Rank as the product does."""
    return lambda query, k, allowed: [hit.item for hit in searcher.search(query, k=k, allowed=allowed)]


class WhitenedEncoder:
    """An encoder with whitening behind it, as the ranker's item table has."""

    def __init__(self, encoder: TextEncoder, whitening: Whitening) -> None:
        self._encoder, self._whitening = encoder, whitening
        self.name, self.digest, self.dimension = encoder.name, encoder.digest, whitening.projection.shape[1]

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """See ``TextEncoder``."""
        return self._whitening.apply(self._encoder.encode(texts, progress=progress))


def finders(catalogue: Catalogue, *, cache: Path) -> dict[str, Finder]:
    """Every row of the table by name; MiniLM where it is installed."""
    words = FullTextIndex.build(catalogue)
    rows = {"words (BM25)": by_search(Searcher(words, None))}
    encoders: dict[str, TextEncoder] = {"hashing": HashingEncoder()}
    try:
        encoders["MiniLM"] = resolve_encoder(minilm(), local_files_only=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
    for name, encoder in encoders.items():
        vectors = item_vectors(catalogue, encoder, cache_dir=cache)
        whitening = Whitening.fit(vectors, dimensions=256, damping=0.1)
        white = DenseIndex(whitening.apply(vectors), WhitenedEncoder(encoder, whitening))
        dense = DenseIndex(vectors, encoder)
        rows[f"{name}, whitened as for the ranker"] = by_score(white.scores)
        rows[name] = by_score(dense.scores)
        rows[f"words and {name}"] = by_search(Searcher(words, dense))
    return rows


def main() -> None:
    """Print three tables: the halves of the queries, all of them misspelt, and how many find nothing."""
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home() / ".cache" / "fedrec"
    catalogue, judged = read_chorus(DATA / FOLDER)
    queries = list(judged)
    chosen_on, held_out = ({query: judged[query] for query in half} for half in (queries[::2], queries[1::2]))
    print(f"| {len(held_out)} queries held out / {len(chosen_on)} chosen on | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    rows = finders(catalogue, cache=cache)
    for name, find in rows.items():
        halves = [measure(find, half, asked=str, items=len(catalogue)) for half in (held_out, chosen_on)]
        print(f"| {name} | " + " | ".join(f"{a:.3f} / {b:.3f}" for a, b in zip(*halves, strict=True)) + " |")
    print(f"\n| all {len(judged)}, one slip each | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for name, find in rows.items():
        values = measure(find, judged, asked=misspelt, items=len(catalogue))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    every = sorted(set(pl.read_csv(DATA / FOLDER / "judgments.csv")["query"]))  # also those without a good product
    print(f"\n| nothing found, of {len(every)} | as typed | one slip |\n| --- | --- | --- |")
    for name, find in rows.items():
        print(f"| {name} | {empty_lists(find, every, asked=str)} | {empty_lists(find, every, asked=misspelt)} |")


if __name__ == "__main__":
    main()
