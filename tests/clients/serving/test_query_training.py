"""Search learns what people choose, and stays as it is where there is nothing to learn."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from clients.serving.dense import DenseIndex
from clients.serving.fulltext import FullTextIndex
from clients.serving.query_training import new_adapter, train
from clients.serving.search import Searcher
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.errors import DataError
from fedrec.model.encoder import HashingEncoder
from fedrec.model.items import item_vectors
from fedrec.model.learned_query import LearnedQuery
from fedrec.model.query_adapter import QueryExamples
from tests.clients.serving.tiny_shop import ITEM, ids, shop

PEOPLE, ITEMS, CANDIDATES = 120, 60, 12
VECTORS = item_vectors(shop(), HashingEncoder(), cache_dir=None)
DENSE = DenseIndex(VECTORS, HashingEncoder())
WORDS = FullTextIndex.build(shop())
TRAINING = QueryTrainingConfig(turn_learning_rate=0.02)


def catalogue_vectors() -> torch.Tensor:
    return functional.normalize(torch.randn(ITEMS, 384, generator=torch.Generator().manual_seed(5)), dim=-1)


def examples(*, words_tell: bool = False, queries_tell: bool = False) -> QueryExamples:
    """One event a person: five queries and five items, which words or queries tell of, or nothing does."""
    rng = torch.Generator().manual_seed(7)
    words = torch.rand(PEOPLE, 1, CANDIDATES, generator=rng)
    if words_tell:
        words[..., 0] = 1.0
    items = torch.stack([torch.randperm(ITEMS, generator=rng)[:CANDIDATES] for _ in range(PEOPLE)])[:, None]
    queries = functional.normalize(torch.randn(5, 384, generator=rng), dim=-1)
    asked = torch.arange(PEOPLE) % 5
    if queries_tell:  # no other candidate is one of the five
        items = torch.where(items < 5, items + 5, items)
        items[:, 0, 0] = asked
    return QueryExamples(
        readings=queries[asked][:, None, None].expand(-1, 1, 2, -1).clone(),
        items=items,
        words=words,
        is_candidate=torch.ones(PEOPLE, 1, CANDIDATES, dtype=torch.bool),
        is_event=torch.ones(PEOPLE, 1, dtype=torch.bool),
    )


def trained(of: QueryExamples, *, turns: bool):
    adapter = new_adapter(DENSE, SearchConfig(), TRAINING, turns=turns)
    return train(adapter, of, catalogue_vectors().numpy(), training=TRAINING)


def test_words_count_more_where_they_tell_what_is_chosen():
    found = trained(examples(words_tell=True), turns=False)
    start = SearchConfig()
    assert found.is_better
    assert found.gain > 0.2
    assert found.learned.words / found.learned.meaning > 1.5 * start.words_beside_hashing / start.meaning
    assert found.learned.words + found.learned.meaning == pytest.approx(start.words_beside_hashing + start.meaning)
    assert not found.learned.up.any()


def test_a_turn_learns_what_words_cannot_say():
    mix, turn = (trained(examples(queries_tell=True), turns=turns) for turns in (False, True))
    assert turn.is_better
    assert turn.gain > mix.gain + 0.2
    assert turn.learned.up.any()


def test_where_nothing_tells_nothing_is_learned():
    assert not trained(examples(), turns=True).is_better


def test_the_best_epoch_is_kept_and_it_is_never_worse_than_none():
    for seed in range(5):
        training = TRAINING.model_copy(update={"seed": seed, "epochs": 4})
        adapter = new_adapter(DENSE, SearchConfig(), training)
        found = train(adapter, examples(), catalogue_vectors().numpy(), training=training)
        assert found.gain >= 0
        assert (found.gain == 0) == (found.epoch == 0) == (not found.learned.up.any())


def test_training_is_repeatable():
    first, second = (trained(examples(queries_tell=True), turns=True) for _ in range(2))
    assert (first.epoch, first.gain) == (second.epoch, second.gain)
    assert (first.learned.up == second.learned.up).all()


def test_one_person_cannot_train_and_judge():
    with pytest.raises(DataError, match=r"queries of one person alone: expected two people at least, one of them to"):
        trained(examples().of(torch.tensor([0])), turns=False)


def test_search_with_an_untrained_adapter_is_search():
    learned = new_adapter(DENSE, SearchConfig(), TRAINING).learned()
    plain, with_it = Searcher(WORDS, DENSE), Searcher(WORDS, DenseIndex(VECTORS, HashingEncoder(), learned))
    for query in ("red mug", "rde mug", "lamp", "cupmugglike", "café"):
        assert with_it.search(query, k=10) == plain.search(query, k=10)


def test_search_does_as_was_learned():
    down, up = np.zeros((1, 384), np.float32), np.zeros((384, 1), np.float32)
    down[0], up[:, 0] = HashingEncoder().encode(["beverage"])[0], 9 * VECTORS[ITEM["m2"]]
    learned = LearnedQuery(down, up, words=0.1, meaning=0.9)
    searcher = Searcher(WORDS, DenseIndex(VECTORS, HashingEncoder(), learned))
    hits = searcher.search("beverage", k=1)
    assert ids([hit.item for hit in hits]) == ["m2"]
    assert hits[0].parts == {"meaning": 0.9}
    assert searcher.search("toner", k=1)[0].parts["words"] == 0.1
    assert Searcher(WORDS, DENSE).search("beverage", k=1)[0].item != ITEM["m2"]
    assert np.isfinite(Searcher(WORDS, DENSE).search("beverage", k=1)[0].score)
