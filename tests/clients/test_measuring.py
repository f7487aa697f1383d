"""Everyone's newest event is ranked from their own earlier ones, and nobody else's presence moves it by a bit."""

import numpy as np
import pytest
import torch

from clients.measuring import person_metrics
from fedrec.data.histories import Histories
from fedrec.evaluation.metrics import METRICS
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, trainable_parameters
from tests.tiny_ranker import HISTORY, ITEMS, adapted, histories

NAMES = ("ndcg@10", "hr@10")
PEOPLE = histories(5, 9, 3, 14, 2, 7)


def _measured(people: Histories = PEOPLE, *, metrics=NAMES, mask_last: bool = True) -> np.ndarray:
    ranker = adapted()
    return person_metrics(ranker, people, adapter_arrays(ranker), metrics=metrics, mask_last=mask_last)


@pytest.mark.parametrize("mask_last", [True, False])
def test_metrics_are_those_of_the_newest_event_by_a_second_implementation(mask_last):
    """A full sort of the catalogue, person by person, on the plain ranker."""
    ranker = adapted().eval()
    expected = []
    for person in range(len(PEOPLE)):
        sequence = torch.from_numpy(PEOPLE.of(person).astype(np.int64))
        seen = sequence[:-1][-HISTORY:]
        with torch.no_grad():
            scores = ranker(seen[None], torch.tensor([[len(seen) - 1]]))[0, 0]
        if mask_last:
            scores[seen[-1]] = -torch.inf
        place = scores.argsort(descending=True).tolist().index(int(sequence[-1])) + 1
        expected.append([1 / np.log2(1 + place) if place <= 10 else 0.0, float(place <= 10)])
    measured = _measured(mask_last=mask_last)
    np.testing.assert_allclose(measured, expected, rtol=1e-12)
    assert 0 < measured[:, 1].mean() < 1  # some are in the list and some are not


def test_columns_are_the_metrics_asked_for_in_that_order():
    both, turned = _measured(), _measured(metrics=NAMES[::-1])
    assert np.array_equal(both, turned[:, ::-1])
    assert np.array_equal(both[:, :1], _measured(metrics=NAMES[:1]))
    assert _measured(metrics=METRICS).shape == (6, len(METRICS))


def test_nobody_elses_presence_moves_a_persons_numbers_by_a_bit():
    people = histories(*range(2, 42), seed=1)
    together = _measured(people)
    for person in range(len(people)):
        assert np.array_equal(_measured(people.subset(np.array([person])))[0], together[person])


def test_people_with_fewer_than_two_events_are_left_out():
    short = Histories.from_lists([[3], [1, 2, 3], [], [4, 5]])
    assert _measured(short).shape == (2, 2)
    assert _measured(Histories.from_lists([[3], []])).shape == (0, 2)


def test_the_adapter_that_is_measured_is_the_one_that_was_sent():
    ranker = adapted()
    sent = adapter_arrays(ranker)
    other = {name: values + np.float32(0.3) for name, values in sent.items()}
    load_adapter_arrays(ranker, other)
    assert np.array_equal(person_metrics(ranker, PEOPLE, sent, metrics=NAMES, mask_last=True), _measured())
    assert all(np.array_equal(values, sent[name]) for name, values in adapter_arrays(ranker).items())


def test_measuring_leaves_no_gradient_and_the_ranker_in_training_mode():
    ranker = adapted()
    person_metrics(ranker, PEOPLE, adapter_arrays(ranker), metrics=NAMES, mask_last=True)
    assert ranker.training
    assert all(parameter.grad is None for parameter in trainable_parameters(ranker).values())


def test_a_ranker_that_diverged_hits_nothing():
    ranker = adapted()
    huge = {name: np.full_like(values, 3e38) for name, values in adapter_arrays(ranker).items()}
    assert not person_metrics(ranker, PEOPLE, huge, metrics=METRICS, mask_last=True).any()


def test_an_item_that_was_just_bought_is_worth_nothing_where_it_is_masked():
    """Its score is minus infinity, which is no broken ranker."""
    repeated = Histories.from_lists([[1, 2, 2]])
    assert _measured(repeated).tolist() == [[0.0, 0.0]]
    assert ITEMS > 20  # so that half of the tied last places is no place in the list
