"""Many shops train one search: what a person's queries move is that person's own, clipped, noised and charged."""

import numpy as np
import pytest
import torch

from clients import query_learner
from clients.query_learner import QueryLearner, put, trained_arrays
from clients.training import private_direction
from fedrec.model.query_adapter import QueryAdapter, QueryExamples, person_losses
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SeededRandom
from fedrec.schema import ArraySpec, flatten, parameters_of
from tests.fedrec.model.test_query_adapter import PEOPLE, SHARPNESS, VECTORS, E, adapter, examples


def learner(*, model: QueryAdapter | None = None, of: QueryExamples | None = None) -> QueryLearner:
    return QueryLearner(model or adapter(trained=True), of or examples(), VECTORS, SHARPNESS)


def plan(*, people: int = PEOPLE, rounds: int = 1, clip_norm: float = 1e6) -> PrivacyPlan:
    return PrivacyPlan.without_privacy(
        sampling_rate=1.0, rounds=rounds, local_steps=1, clip_norm=clip_norm, clipping="flat", expected_people=people
    )


def test_what_is_shared_is_what_is_trained():
    whole = learner().schema
    assert [spec.name for spec in whole] == ["down.weight", "up.weight", "mix.weight"]
    assert parameters_of(whole) == 2 * 3 * E + 2
    alone = adapter()
    alone.down.requires_grad_(False)
    alone.up.requires_grad_(False)
    assert learner(model=alone).schema == (ArraySpec("mix.weight", (2,)),)
    assert trained_arrays(alone)["mix.weight"].tolist() == [0.0, 0.0]


def test_gradients_are_those_of_each_persons_loss_where_the_shared_arrays_are(monkeypatch):
    one, shared = learner(model=adapter()), trained_arrays(adapter(trained=True))
    people = np.array([4, 0, 3])
    rows = torch.cat(list(one.gradients(people, shared, step=0)))
    monkeypatch.setattr(query_learner, "PEOPLE_AT_A_TIME", 2)
    in_pieces = torch.cat(list(one.gradients(people, shared, step=5)))
    assert torch.allclose(rows, in_pieces, atol=1e-6)
    model = adapter()
    put(model, shared)
    for row, person in zip(rows, people.tolist(), strict=True):
        loss = person_losses(model, VECTORS, examples().of(torch.tensor([person])), sharpness=SHARPNESS)
        alone = torch.autograd.grad(loss.sum(), list(model.parameters()))
        assert row.tolist() == pytest.approx(torch.cat([part.flatten() for part in alone]).tolist(), abs=1e-5)


def test_nobody_sampled_is_no_gradient():
    rows = torch.cat(list(learner().gradients(np.zeros(0, np.int64), trained_arrays(adapter()), step=0)))
    assert rows.shape == (0, 2 * 3 * E + 2)


def test_a_private_step_without_noise_is_a_step_down():
    one = learner(model=adapter())
    start = trained_arrays(adapter())
    direction = private_direction(one, start, mechanism=plan().mechanism(SeededRandom(0)), steps=1, learning_rate=1.0)
    moved = {name: values + 0.02 * direction[name] for name, values in start.items()}

    @torch.no_grad()
    def loss(arrays):
        model = adapter()
        put(model, arrays)
        return float(person_losses(model, VECTORS, examples(), sharpness=SHARPNESS).mean())

    assert loss(moved) < loss(start) - 0.01


def test_one_person_moves_a_step_by_no_more_than_the_clip_norm():
    clip = 0.01
    directions = []
    for of in (examples(), examples().of(torch.arange(PEOPLE - 1))):
        mechanism = plan(people=1, clip_norm=clip).mechanism(SeededRandom(0))
        one = learner(of=of)
        found = private_direction(one, trained_arrays(adapter()), mechanism=mechanism, steps=1, learning_rate=1.0)
        directions.append(flatten(found, one.schema))
    assert np.linalg.norm(directions[0] - directions[1]) == pytest.approx(clip, rel=1e-4)
