from dataclasses import replace

import numpy as np
import pytest
import torch

import clients.personal
from clients.personal import FineTuning, fine_tune
from clients.training import LocalTraining, step_losses
from fedrec.data.histories import Histories
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, schema_of
from fedrec.model.ranker import Ranker
from fedrec.schema import Arrays
from tests.tiny_ranker import KINDS, adapted, histories

PEOPLE = histories(5, 7, 2, 1, 4, 6)
FULL = LocalTraining(mask_last=True, negatives=None, seed=0)
TUNING = FineTuning(steps=5, learning_rate=5e-3)


def _loss(ranker: Ranker, arrays: Arrays, people: Histories = PEOPLE) -> float:
    load_adapter_arrays(ranker, arrays)
    has_target = np.flatnonzero(people.lengths > 1)
    with torch.no_grad():
        return float(step_losses(ranker, people, has_target, step=0, training=FULL).mean())


def _tune(ranker: Ranker, start: Arrays, people: Histories = PEOPLE, **changes) -> Arrays:
    training = changes.pop("training", FULL)
    return fine_tune(ranker, start, people, tuning=replace(TUNING, **changes), training=training)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negatives", [None, 15])
def test_fine_tuning_lowers_the_merchants_own_loss(kind, negatives):
    ranker = adapted(kind=kind)
    start = adapter_arrays(ranker)
    tuned = _tune(ranker, start, training=replace(FULL, negatives=negatives))
    assert {name: values.shape for name, values in tuned.items()} == dict(schema_of(ranker))
    assert _loss(ranker, tuned) < _loss(ranker, start) - 0.05


def test_base_stays_frozen_and_the_start_untouched():
    ranker = adapted()
    start = adapter_arrays(ranker)
    kept = {name: values.copy() for name, values in start.items()}
    frozen = {name: p.detach().clone() for name, p in ranker.named_parameters() if not p.requires_grad}
    tuned = _tune(ranker, start)
    parameters = dict(ranker.named_parameters())
    assert all(torch.equal(values, parameters[name]) for name, values in frozen.items())
    assert all(np.array_equal(values, kept[name]) for name, values in start.items())
    assert all(not np.array_equal(values, kept[name]) for name, values in tuned.items())


def test_merchants_of_one_process_do_not_see_each_other():
    others = histories(8, 8, 8, seed=9)
    ranker = adapted()
    start = adapter_arrays(ranker)
    alone = _tune(ranker, start)
    _tune(ranker, start, others)
    again = _tune(ranker, start)
    assert all(np.array_equal(values, again[name]) for name, values in alone.items())
    assert not np.array_equal(alone["head.lora_B.weight"], _tune(ranker, start, others)["head.lora_B.weight"])


def test_split_into_chunks_does_not_change_the_result(monkeypatch):
    ranker = adapted()
    start = adapter_arrays(ranker)
    whole = _tune(ranker, start, steps=1)
    monkeypatch.setattr(clients.personal, "PEOPLE_AT_A_TIME", 2)
    chunked = _tune(ranker, start, steps=1)
    # Adam's first step is the sign of the gradient: rounding shows only where a gradient is almost zero.
    assert all(np.abs(values - chunked[name]).max() < 1e-4 for name, values in whole.items())


@pytest.mark.parametrize("people", [[], [[3], [], [7]]])
def test_nobody_to_learn_from_gives_the_start_back(people):
    ranker = adapted()
    start = adapter_arrays(ranker)
    tuned = _tune(ranker, start, Histories.from_lists(people))
    assert all(np.array_equal(values, start[name]) for name, values in tuned.items())


def test_no_steps_give_the_start_back():
    ranker = adapted()
    start = adapter_arrays(ranker)
    assert all(np.array_equal(values, start[name]) for name, values in _tune(ranker, start, steps=0).items())
