"""Each person is scored by their own merchant, and nobody else's data reaches them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients.memory import LocalMemory, MemorySpec
from clients.personal import FineTuning
from clients.training import LocalTraining
from fedrec.data.histories import Histories
from fedrec.data.splits import Split
from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays
from simulations.rows import MerchantScorer, Table, fine_tuned, ranker_scorer
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import ITEMS, adapted, histories, nudge

CLIENTS = (np.array([0, 3]), np.array([1, 4]), np.array([2]))
PEOPLE = np.array([4, 0, 2, 1, 3])
MEMORY = MemorySpec(
    weight=1.5,
    sharpness=30.0,
    window=3,
    recent=3,
    decay=0.4,
    shrinkage=0.2,
    repeat_weight=2.0,
    repeat_decay=0.9,
    basket_weight=1.0,
    popular_weight=0.5,
    popular_half_life_days=None,
    popular_shrinkage=5.0,
)
NO_MEMORY = replace(MEMORY, weight=0.0, repeat_weight=0.0, basket_weight=0.0, popular_weight=0.0)
TUNING = FineTuning(steps=2, learning_rate=0.01)
TRAINING = LocalTraining(mask_last=True, negatives=None, seed=0)


@pytest.fixture
def everyone():
    people = histories(5, 9, 3, 7, 4)
    return Histories(people.offsets, people.items, people.timestamps // 3)  # up to three items a visit


@pytest.fixture
def ranker():
    return adapted()


def three_adapters(ranker):
    """Different adapters, one a merchant; the ranker's own is put back."""
    own = adapter_arrays(ranker)
    made = []
    for seed in range(3):
        load_adapter_arrays(ranker, own)
        made.append(adapter_arrays(nudge(ranker, size=0.3, seed=10 + seed)))
    load_adapter_arrays(ranker, own)
    return made


def one_by_one(ranker, everyone, person):
    """Scores of one person from the plain model, without padding."""
    ranker.eval()
    items = torch.from_numpy(everyone.of(person)[-ranker.spec.history :].astype(np.int64))[None]
    with torch.no_grad():
        return ranker(items, torch.tensor([[items.shape[1] - 1]]))[0, 0].numpy()


def test_ranker_scores_each_person_from_their_own_history(ranker, everyone):
    scores = ranker_scorer(ranker, everyone)(PEOPLE)
    assert scores.shape == (5, ITEMS)
    for row, person in enumerate(PEOPLE):
        np.testing.assert_allclose(scores[row], one_by_one(ranker, everyone, person), atol=1e-5)


def test_each_person_is_scored_by_their_own_merchant(ranker, everyone):
    adapters = three_adapters(ranker)
    scores = MerchantScorer(ranker, everyone, CLIENTS, adapters=adapters, memory=MEMORY)(PEOPLE)
    for number, group in enumerate(CLIENTS):
        load_adapter_arrays(ranker, adapters[number])
        memory = LocalMemory.of(everyone.subset(group), MEMORY, items=ITEMS)
        for person in group:
            expected = one_by_one(ranker, everyone, person) + memory.scores(everyone.of(person), everyone.times(person))
            np.testing.assert_allclose(scores[PEOPLE.tolist().index(person)], expected, atol=1e-5)


def test_public_pairs_are_added_at_every_merchant_alike(ranker, everyone):
    same, part = [adapter_arrays(ranker)] * 3, some_pairs().part()
    with_pairs, without = (
        MerchantScorer(ranker, everyone, CLIENTS, adapters=same, memory=MEMORY, parts=parts)(PEOPLE)
        for parts in ([part], [])
    )
    for row, person in enumerate(PEOPLE):
        np.testing.assert_allclose(with_pairs[row] - without[row], part.scores(everyone.of(person)), atol=1e-4)


def test_without_memory_and_with_one_adapter_merchants_score_as_the_ranker_does(ranker, everyone):
    same = [adapter_arrays(ranker)] * 3
    scores = MerchantScorer(ranker, everyone, CLIENTS, adapters=same, memory=NO_MEMORY)(PEOPLE)
    np.testing.assert_allclose(scores, ranker_scorer(ranker, everyone)(PEOPLE), atol=1e-5)


def test_public_popularity_reaches_every_merchant(ranker, everyone):
    same, prior = [adapter_arrays(ranker)] * 3, np.eye(ITEMS)[0]  # all of it is the first item's
    plain, informed = (
        MerchantScorer(ranker, everyone, CLIENTS, adapters=same, memory=MEMORY, prior=shares)(PEOPLE)
        for shares in (None, prior)
    )
    assert (informed[:, 0] > plain[:, 0] + 0.1).all()
    np.testing.assert_array_equal(informed[:, 1:], plain[:, 1:])


def test_memory_holds_nothing_of_other_merchants(ranker, everyone):
    same = [adapter_arrays(ranker)] * 3
    rows = [everyone.of(person).tolist() for person in range(5)]
    others = Histories.from_lists([rows[0], [7] * 9, [9, 8, 7], rows[3], [1, 2, 1, 2]])
    others = Histories(others.offsets, others.items, everyone.timestamps)
    mine = np.array([0, 3])
    first, second = (
        MerchantScorer(ranker, people, CLIENTS, adapters=same, memory=MEMORY)(mine) for people in (everyone, others)
    )
    np.testing.assert_array_equal(first, second)


def test_fine_tuning_gives_each_merchant_its_own_adapter_from_its_own_people(ranker, everyone):
    start = adapter_arrays(ranker)
    before = {name: values.copy() for name, values in start.items()}
    told = []
    made = fine_tuned(
        ranker, start, everyone, CLIENTS, tuning=TUNING, training=TRAINING, on_client=lambda: told.append(1)
    )
    assert len(made) == len(told) == 3
    alone = fine_tuned(ranker, start, everyone, CLIENTS[1:2], tuning=TUNING, training=TRAINING)[0]
    for name in start:
        np.testing.assert_array_equal(start[name], before[name])
        np.testing.assert_array_equal(made[1][name], alone[name])
    assert any(np.abs(made[0][name] - made[1][name]).max() > 1e-4 for name in start)
    assert any(np.abs(made[0][name] - start[name]).max() > 1e-4 for name in start)


def test_no_steps_of_fine_tuning_change_nothing(ranker, everyone):
    start = adapter_arrays(ranker)
    made = fine_tuned(ranker, start, everyone, CLIENTS, tuning=FineTuning(0, 0.01), training=TRAINING)
    for arrays in made:
        for name in start:
            np.testing.assert_array_equal(arrays[name], start[name])


def table_of(everyone, *, masking):
    """A table in which everybody's next item is the one they saw last."""
    targets = Histories.from_lists([[int(everyone.of(person)[-1])] for person in range(5)])
    people = SimpleNamespace(split=Split(everyone, targets), catalogue=range(ITEMS))
    return Table(people, masking=masking, clients=CLIENTS)


def last_item_first(everyone):
    def score(people):
        scores = np.zeros((len(people), ITEMS), np.float32)
        for row, person in enumerate(people):
            scores[row, everyone.of(int(person))[-1]] = 1.0
        return scores

    return score


def test_table_judges_everyone_at_a_client_once_and_knows_whose_they_are(everyone):
    evaluation = table_of(everyone, masking=Masking.NONE).judge(last_item_first(everyone))
    assert evaluation.people.tolist() == [0, 3, 1, 4, 2]
    assert evaluation.means()["ndcg@10"] == 1.0
    assert evaluation.client_means("ndcg@10").tolist() == [1.0, 1.0, 1.0]


def test_table_masks_the_last_item_only_when_told(everyone):
    evaluation = table_of(everyone, masking=Masking.LAST).judge(last_item_first(everyone))
    assert evaluation.means()["ndcg@10"] == 0.0
