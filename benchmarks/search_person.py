"""How much a person's own score should count in search, in ``docs/search.md``.

python -m benchmarks.search_person RUN [FOLDER OF THE ENCODER]

No public set has queries, judgments and histories. So the query is made of words of the title of what a public person
bought next, and the list is judged by where that product stands. The people are the run's panel, whom no model was
trained on; nobody of the run's clients is looked at.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clients.serving.dense import DenseIndex
from clients.serving.encoding import dense_index
from clients.serving.fulltext import FullTextIndex
from clients.serving.model import ServedModel, load_model
from clients.serving.scoring import score_parts
from clients.serving.search import Searcher
from fedrec.config import load_config
from fedrec.data.histories import Histories
from fedrec.evaluation.protocol import paired_difference
from fedrec.model.base import PANEL

LATEST = 3  # events of a person, each after all that came before it
CUTOFF = 10
LENGTHS = (1, 2, 3)  # words of a query
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
LEAST_LETTERS = 3  # of a word that somebody would type


@dataclass(frozen=True, eq=False)
class Asked:
    """An event as a search: whose, what they did before, what they bought then, and words for it."""

    person: int
    past: np.ndarray
    bought: int
    words: tuple[str, ...]


def asked(panel: Histories, titles: Sequence[str], *, seed: int) -> list[Asked]:
    """The latest events of everybody that have one before them and words to ask for, which come in a random order."""
    rng = np.random.default_rng(seed)
    found = []
    for person in range(len(panel)):
        events = panel.of(person)
        for at in range(max(1, len(events) - LATEST), len(events)):
            words = [word for word in dict.fromkeys(titles[events[at]].split()) if _is_typed(word)]
            if words:
                found.append(Asked(person, events[:at], int(events[at]), tuple(rng.permutation(words).tolist())))
    return found


def _is_typed(word: str) -> bool:
    return word.isalpha() and len(word) >= LEAST_LETTERS


def gains(model: ServedModel, searcher: Searcher, searches: Sequence[Asked], *, words: int) -> np.ndarray:
    """NDCG@10 of one relevant product, the mean over a person's searches, for each person and weight, (N, W)."""
    rows: dict[int, list[list[float]]] = {}
    for one in searches:
        scores = np.sum(list(score_parts(model, one.past).values()), axis=0)
        query = " ".join(one.words[:words])
        lists = (
            [hit.item for hit in searcher.search(query, k=CUTOFF, user_scores=scores, personal=weight)]
            for weight in WEIGHTS
        )
        gained = [1 / np.log2(found.index(one.bought) + 2) if one.bought in found else 0.0 for found in lists]
        rows.setdefault(one.person, []).append(gained)
    return np.array([np.mean(own, axis=0) for own in rows.values()])


def loss_to_best(found: np.ndarray) -> str:
    """What each weight but the best loses to the best, with the standard error of the paired difference."""
    best = found.mean(axis=0).argmax()
    losses = [paired_difference(values, found[:, best]) for values in found.T]
    return " | ".join(f"{loss:.3f} ± {error:.3f}" for loss, error in losses)


def main() -> None:
    """Print a table: a row for each way to search and each length of a query, a column for each weight."""
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    model, config = load_model(run), load_config(run / "config.toml")
    panel = Histories.load(run / "base" / PANEL)
    searches = asked(panel, model.catalogue.titles, seed=0)
    ways: dict[str, DenseIndex | None] = {"words": None}
    if len(sys.argv) > 2:
        cache = Path.home() / ".cache" / "fedrec"
        ways["words and meaning"] = dense_index(model.catalogue, config.items, named=sys.argv[2], cache=cache)
    people = len({one.person for one in searches})
    print(f"| {people} people, {len(searches)} searches | {' | '.join(f'{weight:g}' for weight in WEIGHTS)} |")
    print("| --- " * (len(WEIGHTS) + 1) + "|")
    for name, dense in ways.items():
        searcher = Searcher(FullTextIndex.build(model.catalogue), dense)
        found = [gains(model, searcher, searches, words=words) for words in LENGTHS]
        for words, values in zip(LENGTHS, found, strict=True):
            print(f"| {name}, {words} of the title | {' | '.join(f'{value:.3f}' for value in values.mean(axis=0))} |")
        print(f"| {name}, mean, lost to the best | {loss_to_best(np.mean(found, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
