"""What search learns from choices, in ``docs/search.md``: Chorus, half of the queries to learn from, half to judge.

python -m benchmarks.query_adapter hashing|MiniLM [FOLDER FOR VECTORS]

Nobody's clicks are in Chorus: a product rated 2 or 3 for a query stands for a choice. A person is whoever asked one
query; in the federation, whoever asked one query at one brand, and each brand is a merchant.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.data_sets import DATA, minilm
from benchmarks.search import COLUMNS, FOLDER, Judgments, by_search, measure, read_chorus
from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from clients.serving.query_examples import query_examples
from clients.serving.query_training import new_adapter, train
from clients.serving.search import Searcher
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.data.catalogue import Catalogue
from fedrec.data.query_events import FIELDS, QueryEvents, query_events
from fedrec.model.encoder import HashingEncoder, TextEncoder, resolve_encoder
from fedrec.model.items import item_vectors
from fedrec.model.learned_query import LearnedQuery
from fedrec.model.query_adapter import QueryExamples
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.trust import DISTRIBUTED
from simulations.heads import Course, new_server
from simulations.search_head import federate_search

SPLITS = range(10, 15)  # 0 to 2 were looked at when the settings were chosen
TITLES = 1_500  # public titles, of which one to three words stand for a query
LEAST_RATING = 2
ROUNDS, DELTA = 20, 1e-3  # of the federation; there are some 150 people


@dataclass(frozen=True, eq=False)
class Bench:
    """Chorus, and search over it by words and one encoder."""

    catalogue: Catalogue
    judged: Mapping[str, Judgments]
    words: FullTextIndex
    dense: DenseIndex
    search: SearchConfig
    training: QueryTrainingConfig

    def examples(self, events: QueryEvents) -> QueryExamples:
        """What training sees of events."""
        return query_examples(events, self.words, self.dense, search=self.search, training=self.training)

    def quality(self, learned: LearnedQuery | None, queries: Sequence[str]) -> np.ndarray:
        """Means over queries of ``benchmarks.search.COLUMNS``, of search as it is when nothing was learned."""
        searcher = Searcher(self.words, DenseIndex(self.dense.vectors, self.dense.encoder, learned), self.search)
        asked = {query: self.judged[query] for query in queries}
        return np.array(measure(by_search(searcher), asked, asked=str, items=len(self.catalogue)))

    def halves(self, split: int) -> tuple[list[str], list[str]]:
        """Queries to learn from, and queries to judge by."""
        order = np.random.default_rng(split).permutation(queries := list(self.judged))
        return order[: len(queries) // 2].tolist(), order[len(queries) // 2 :].tolist()


def open_bench(encoder: TextEncoder, *, cache: Path) -> Bench:
    """Read Chorus.

    Raises:
        ConfigError: its files are not there.
    """
    catalogue, judged = read_chorus(DATA / FOLDER)
    dense = DenseIndex(item_vectors(catalogue, encoder, cache_dir=cache), encoder)
    return Bench(catalogue, judged, FullTextIndex.build(catalogue), dense, SearchConfig(), QueryTrainingConfig())


def clicks(bench: Bench, queries: Sequence[str]) -> QueryEvents:
    """Products that were rated well for a query; one person a query."""
    rows = [(query, query, item) for query in queries for item in _chosen(bench, query)]
    return _events(bench, rows)


def clicks_by_brand(bench: Bench, queries: Sequence[str]) -> list[QueryEvents]:
    """The same at each brand that has any; one person a query at a brand."""
    brands = bench.catalogue.text_column("brand")
    rows: dict[str, list[tuple[str, str, int]]] = {}
    for query in queries:
        for item in _chosen(bench, query):
            rows.setdefault(brands[item], []).append((query, query, item))
    return [_events(bench, rows[brand]) for brand in sorted(rows)]


def titles(bench: Bench) -> QueryEvents:
    """One to three words of a public title, in their order, for the item that has it; one person a title."""
    rng = np.random.default_rng(0)
    rows = []
    for item in rng.choice(len(bench.catalogue), TITLES, replace=False).tolist():
        words = bench.catalogue.titles[item].split()
        if words:
            kept = np.sort(rng.choice(len(words), min(len(words), int(rng.integers(1, 4))), replace=False))
            rows.append((str(item), " ".join(words[at] for at in kept), item))
    return _events(bench, rows)


def _chosen(bench: Bench, query: str) -> list[int]:
    return [item for item, rating in bench.judged[query].items() if rating >= LEAST_RATING]


def _events(bench: Bench, rows: Sequence[tuple[str, str, int]]) -> QueryEvents:
    named = [(person, query, bench.catalogue.item_ids[item]) for person, query, item in rows]
    return query_events(pl.DataFrame(named, list(FIELDS), orient="row"), bench.catalogue)


def locally(bench: Bench, examples: QueryExamples, *, turns: bool) -> LearnedQuery:
    """By ``fedrec tune-search``'s training, whether or not it would have written the result."""
    adapter = new_adapter(bench.dense, bench.search, bench.training, turns=turns)
    return train(adapter, examples, bench.dense.vectors, training=bench.training).learned


def federated(bench: Bench, queries: Sequence[str], *, turns: bool, epsilon: float | None) -> LearnedQuery:
    """By one merchant a brand; noise, where there is any, is shared by all of them."""
    shops = [bench.examples(events) for events in clicks_by_brand(bench, queries)]
    shape: dict = {"sampling_rate": 1.0, "rounds": ROUNDS, "local_steps": 1, "clip_norm": 1.0, "clipping": "flat"}
    shape["expected_people"] = math.ceil(sum(map(len, shops)) / len(shops))
    plan = (
        PrivacyPlan.without_privacy(**shape)
        if epsilon is None
        else PrivacyPlan.calibrate(epsilon, DELTA, **shape, trust=DISTRIBUTED, noise_sharers=len(shops))
    )
    adapter = new_adapter(bench.dense, bench.search, bench.training, turns=turns)
    course = Course("search", server_learning_rate=0.01 if turns else 0.1, warmup_rounds=0, ema=0.0, seed=0)
    with tempfile.TemporaryDirectory() as made:
        new_server(folder := Path(made) / "server")
        vectors, sharpness = bench.dense.vectors, bench.training.sharpness
        return federate_search(adapter, shops, vectors, sharpness=sharpness, plan=plan, course=course, folder=folder)


def ways(bench: Bench) -> Iterator[tuple[str, Callable[[Sequence[str]], LearnedQuery | None]]]:
    """Names, and what each learns from the queries of one half."""
    yield "as it is", lambda queries: None
    of_titles = bench.examples(titles(bench))
    for turns, name in ((False, "mix"), (True, "mix and turn")):
        yield (
            f"{name}, from choices",
            lambda queries, turns=turns: locally(bench, bench.examples(clicks(bench, queries)), turns=turns),
        )
        learned = locally(bench, of_titles, turns=turns)
        yield f"{name}, from titles", lambda queries, learned=learned: learned
        for epsilon in (None, 8.0) if turns else (None, 8.0, 1.0):
            noise = "without noise" if epsilon is None else f"epsilon {epsilon:g}"
            yield (
                f"{name}, federated {noise}",
                lambda queries, turns=turns, epsilon=epsilon: federated(bench, queries, turns=turns, epsilon=epsilon),
            )


def main() -> None:
    """Print a table: means over the splits, and in brackets what that is more than search as it is."""
    torch.set_num_threads(1)
    encoder = HashingEncoder() if sys.argv[1] == "hashing" else resolve_encoder(minilm(), local_files_only=True)
    cache = Path(sys.argv[2]) if len(sys.argv) > 2 else Path.home() / ".cache" / "fedrec"
    bench = open_bench(encoder, cache=cache)
    print(f"| {sys.argv[1]}, {len(SPLITS)} splits | words to meaning | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 2) + "|")
    by_brand = [
        [len(set(brand.queries)) for brand in clicks_by_brand(bench, bench.halves(split)[0])] for split in SPLITS
    ]
    print(
        f"{[len(people) for people in by_brand]} brands, {[sum(people) for people in by_brand]} people", file=sys.stderr
    )
    before: np.ndarray | None = None
    for name, learn in ways(bench):
        learned, found = [], []
        for split in SPLITS:
            to_learn, to_judge = bench.halves(split)
            learned.append(learn(to_learn))
            found.append(bench.quality(learned[-1], to_judge))
        values = np.array(found)  # (splits, columns)
        before = values if before is None else before
        print(f"| {name} | {_ratio(bench, learned)} | {' | '.join(_cells(values, before))} |", flush=True)


def _ratio(bench: Bench, learned: Sequence[LearnedQuery | None]) -> str:
    start = new_adapter(bench.dense, bench.search, bench.training).learned()
    ratios = [one.words / one.meaning for one in (start if one is None else one for one in learned)]
    return f"{np.mean(ratios):.2f}"


def _cells(values: np.ndarray, before: np.ndarray) -> list[str]:
    """Each column's mean and the mean difference to search as it is, over splits."""
    change = values - before
    return [f"{mean:.3f} ({by:+.3f})" for mean, by in zip(values.mean(axis=0), change.mean(axis=0), strict=True)]


if __name__ == "__main__":
    main()
