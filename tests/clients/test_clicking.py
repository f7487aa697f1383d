"""What one person can move of a click head, through the round that a real client runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import clients.clicking
from clients.clicking import ClickLearner
from clients.training import private_direction
from fedrec.errors import PrivacyError
from fedrec.model.clicks import click_schema, person_gradients
from fedrec.model.impressions import Impressions
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from fedrec.schema import flatten
from tests.tiny_clicks import SPEC, impressions, moved
from tests.tiny_ranker import open_plan, private_plan

PEOPLE = impressions(4, 1, 0, 9, 2, 30)
CLIP = 0.1


def _sum(people: Impressions, *, plan: PrivacyPlan, steps: int = 1, rate: float = 1.0) -> np.ndarray:
    """Direction times normaliser, (P,): the sum of what people contributed, its sign turned."""
    random = SecureRandom() if plan.private else SeededRandom(0)
    arrays = private_direction(
        ClickLearner(SPEC, people), moved(), mechanism=plan.mechanism(random), steps=steps, learning_rate=rate
    )
    return flatten(arrays, click_schema(SPEC)) * plan.normaliser


@pytest.mark.parametrize("clipping", ["flat", "auto-s"])
@pytest.mark.parametrize("person", [0, 3, 5])
def test_one_person_moves_the_sum_by_at_most_the_clip_norm(person, clipping):
    plan = open_plan(clip_norm=CLIP, clipping=clipping)
    without = PEOPLE.subset(np.delete(np.arange(len(PEOPLE)), person))
    moved_by = np.linalg.norm(_sum(PEOPLE, plan=plan) - _sum(without, plan=plan)) / CLIP
    assert 0.5 < moved_by <= 1 + 1e-6


def test_step_is_minus_the_sum_of_clipped_gradients():
    rows = person_gradients(moved(), PEOPLE).double().numpy()
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    expected = -(rows * np.minimum(1.0, CLIP / np.maximum(lengths, 1e-12))).sum(axis=0)
    assert _sum(PEOPLE, plan=open_plan(clip_norm=CLIP)) == pytest.approx(expected, abs=1e-6)


def test_second_step_starts_where_the_first_one_led():
    plan = open_plan(clip_norm=1.0, local_steps=2)
    first = _sum(PEOPLE, plan=plan)
    both = _sum(PEOPLE, plan=plan, steps=2, rate=0.5)
    start = flatten(moved(), click_schema(SPEC)) + 0.5 * first
    there = {"clicks.bias": start[:1].astype("f4"), "clicks.weights": start[1:].astype("f4")}
    assert both - first == pytest.approx(-person_gradients(there, PEOPLE).sum(dim=0).numpy(), abs=1e-5)


def test_split_into_chunks_does_not_change_the_step(monkeypatch):
    whole = _sum(PEOPLE, plan=open_plan(clip_norm=CLIP))
    monkeypatch.setattr(clients.clicking, "PEOPLE_AT_A_TIME", 2)
    assert _sum(PEOPLE, plan=open_plan(clip_norm=CLIP)) == pytest.approx(whole, abs=1e-6)


def test_noise_is_that_of_the_plan():
    """Nobody is there, so what leaves is noise alone: two thirds or three halves of it would be seen."""
    plan = replace(private_plan(), trust="local")
    drawn = np.concatenate([_sum(impressions(), plan=plan) for _ in range(200)])
    assert len(drawn) > 4_000
    assert drawn.std() == pytest.approx(plan.noise_multiplier * plan.clip_norm, rel=0.1)


def test_who_is_sampled_is_all_that_is_looked_at():
    chunks = list(ClickLearner(SPEC, PEOPLE).gradients(np.array([3, 0]), moved(), step=5))
    assert torch.equal(torch.cat(chunks), person_gradients(moved(), PEOPLE)[[3, 0]])
    assert sum(len(chunk) for chunk in ClickLearner(SPEC, PEOPLE).gradients(np.zeros(0, int), moved(), step=0)) == 0


def test_nothing_else_is_measured_or_counted():
    learner = ClickLearner(SPEC, PEOPLE)
    with pytest.raises(PrivacyError, match=r"ClickLearner: measures no ndcg@10 on people; agree on no metrics"):
        learner.metrics(moved(), ["ndcg@10"])
    with pytest.raises(PrivacyError, match="ClickLearner: counts nothing of people; agree on no statistics"):
        learner.statistics(None)
