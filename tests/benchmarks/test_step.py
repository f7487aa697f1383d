"""The steps that are timed against each other do the same work, and the private one's gradients are exact."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import step
from benchmarks.step import ADAPTERS, measure_steps, plain_step, private_step


@pytest.fixture(scope="module")
def rows():
    return measure_steps(people=5, runs=2, items=50)


def test_every_adapter_has_a_row_with_exact_gradients(rows):
    assert tuple(row.adapter for row in rows) == ADAPTERS
    assert [row.parameters for row in rows] == [640, 4_096, 22_528]
    assert all(row.difference < 1e-5 for row in rows)
    assert all(row.plain_ms > 0 and row.private_ms > 0 and row.ratio > 0 for row in rows)


def test_a_row_is_json(rows):
    assert json.loads(json.dumps([vars(row) for row in rows]))[1]["adapter"] == "lora-q-v"


def test_a_wrong_gradient_shows_in_the_difference(monkeypatch):
    honest = step.PersonGradients.compute
    monkeypatch.setattr(step.PersonGradients, "compute", lambda *args, **how: 1.001 * honest(*args, **how))
    assert all(row.difference == pytest.approx(1e-3, rel=0.1) for row in measure_steps(people=3, runs=1, items=50))


def test_without_noise_and_with_short_gradients_both_steps_move_the_adapter_alike(monkeypatch):
    monkeypatch.setattr(step.SecureRandom, "normal", lambda self, size: np.zeros(size))
    monkeypatch.setattr(step, "clip_sum", lambda rows, norm, kind: rows.double().sum(dim=0))
    monkeypatch.setattr(step, "LEARNING_RATE", 1.0)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    moved = []
    for private in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        parameters = list(model.parameters())
        losses = lambda model=model: model(x).square().sum(dim=1)  # noqa: E731
        if private:
            private_step(model, parameters, losses, people=4)
        else:
            plain_step(parameters, losses)
        moved.append(torch.cat([p.detach().flatten() for p in parameters]))
    assert torch.allclose(*moved, atol=1e-5)
