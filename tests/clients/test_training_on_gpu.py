"""Batches go where the ranker is. On a GPU a client's step is then what it is on the CPU, and a base learns there."""

import copy

import numpy as np
import pytest
import torch

import clients.training
import fedrec.model.pretraining
from clients.training import LocalTraining, RankerLearner, private_direction, step_losses
from fedrec.model.adapters import adapter_arrays, schema_of
from fedrec.model.pretraining import pretrain
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from fedrec.schema import flatten
from tests.tiny_ranker import KINDS, adapted, histories, open_plan, private_plan, untrained

PEOPLE = histories(9, 30, 2, 14, 1, 7, 3, 20, 5)
LOSSES = [LocalTraining(mask_last=True, negatives=negatives, seed=0) for negatives in (None, 9)]
ON_LOSSES = pytest.mark.parametrize("training", LOSSES, ids=["full", "negatives"])
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Reached(Exception):  # noqa: N818  # it ends a test early, nothing went wrong
    """The batch has come to the loss."""


@pytest.fixture
def devices(monkeypatch):
    """Where the batch and the negatives were when the loss was asked for."""
    seen = []

    def noting(ranker, windows, *, mask_last, negatives):
        parts = [windows.items, windows.positions, windows.targets, windows.is_target, negatives]
        seen.extend(part.device.type for part in parts if part is not None)
        raise Reached

    for module in (clients.training, fedrec.model.pretraining):
        monkeypatch.setattr(module, "person_losses", noting)
    return seen


def test_batches_of_a_step_and_of_pretraining_go_where_the_ranker_is(devices):
    ranker = untrained().to("meta")  # a device without memory, which every machine has
    for training in LOSSES:
        with pytest.raises(Reached):
            step_losses(ranker, PEOPLE, np.array([0, 1]), step=0, training=training)
    with pytest.raises(Reached):
        pretrain(
            ranker, PEOPLE, epochs=1, learning_rate=0.1, weight_decay=0.0, batch_people=4, mask_last=True, seed=0,
            negatives=9,
        )  # fmt: skip
    assert devices == ["meta"] * (4 + 5 + 5)


def direction(ranker, training, *, plan, random):
    """What a client sends after one step."""
    mechanism = plan.mechanism(random)
    learner = RankerLearner(ranker, PEOPLE, training)
    arrays = private_direction(learner, adapter_arrays(ranker), mechanism=mechanism, steps=1, learning_rate=1.0)
    return flatten(arrays, schema_of(ranker))


@ON_GPU
@ON_LOSSES
@pytest.mark.parametrize("kind", KINDS)
def test_step_on_a_gpu_is_the_step_on_the_cpu(kind, training):
    ranker, plan = adapted(kind=kind, targets="all-linear"), open_plan(rounds=2)
    here = direction(copy.deepcopy(ranker), training, plan=plan, random=SeededRandom(0))
    there = direction(ranker.to("cuda"), training, plan=plan, random=SeededRandom(0))
    assert np.linalg.norm(there - here) <= 1e-4 * np.linalg.norm(here)


@ON_GPU
def test_two_private_rounds_on_a_gpu_release_numbers():
    ranker, plan = adapted().to("cuda"), private_plan()
    for _ in range(2):
        assert np.isfinite(direction(ranker, LOSSES[0], plan=plan, random=SecureRandom())).all()


@ON_GPU
def test_base_learns_on_a_gpu():
    losses = []
    pretrain(
        untrained().to("cuda"), PEOPLE, epochs=8, learning_rate=0.02, weight_decay=0.0, batch_people=4, mask_last=True,
        seed=0, on_epoch=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    assert losses[-1] < losses[0]
