import math

import numpy as np
import pytest
import torch
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.mechanism import Mechanism
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from tests.fedrec.privacy.noises import is_noise_of


class CountedRandom(SecureRandom):
    """Counts how often noise is drawn, and how much."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def normal(self, size: int) -> np.ndarray:
        self.sizes.append(size)
        return super().normal(size)


@pytest.mark.parametrize("clip_norm", [0.5, 3.0])
def test_released_noise_has_exactly_the_planned_scale(make_plan, clip_norm):
    plan = make_plan(clip_norm=clip_norm)
    mechanism = plan.mechanism(SecureRandom())
    mechanism.sample(0)
    sample = mechanism.release([], 20_000)
    scale = plan.noise_multiplier * clip_norm / (0.25 * 80)
    assert is_noise_of(sample, scale)
    assert not is_noise_of(sample * 2 / 3, scale)
    assert not is_noise_of(sample * 3 / 2, scale)


def test_noise_of_steps_and_clients_is_independent(make_plan):
    plan, draws = make_plan(), []
    for mechanism in (plan.mechanism(SecureRandom()), plan.mechanism(SecureRandom())):
        for _ in range(2):
            mechanism.sample(0)
            draws.append(mechanism.release([], 10_000))
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 5 / math.sqrt(10_000)


def test_an_empty_batch_still_adds_noise_and_is_charged(make_plan):
    random = CountedRandom()
    mechanism = make_plan().mechanism(random)
    assert len(mechanism.sample(0)) == 0
    update = mechanism.release([], 7)
    assert (update != 0).all()
    assert random.sizes == [7]
    assert mechanism.steps_taken == 1


def test_noise_is_drawn_once_a_step_however_the_batch_is_split(make_plan):
    random = CountedRandom()
    mechanism = make_plan(sampling_rate=1.0, rounds=2).mechanism(random)
    mechanism.sample(6)
    mechanism.release(torch.ones(6, 5).split(1), 5)
    assert random.sizes == [5]


@pytest.mark.parametrize("clipping", ["flat", "auto-s"])
def test_the_split_into_micro_batches_does_not_matter(make_open_plan, clipping):
    gradients = 3 * torch.randn(11, 5, generator=torch.Generator().manual_seed(0))
    results = []
    for size in (1, 4, 11):
        mechanism = make_open_plan(sampling_rate=1.0, clipping=clipping).mechanism(SeededRandom(0))
        mechanism.sample(11)
        results.append(mechanism.release(iter(gradients.split(size)), 5))
    assert np.allclose(results[0], results[1], rtol=0, atol=1e-14)
    assert np.allclose(results[0], results[2], rtol=0, atol=1e-14)


@pytest.mark.parametrize("clipping", ["flat", "auto-s"])
@pytest.mark.parametrize(
    "row", [[1e30, 1.0, 0.0], [math.nan, 1.0, 2.0], [math.inf, 0.0, 0.0], [0.1, 0.2, 0.2], [0.0] * 3]
)
def test_one_person_moves_the_release_by_at_most_clip_norm_over_the_normaliser(make_open_plan, clipping, row):
    others = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    plan = make_open_plan(sampling_rate=1.0, clipping=clipping, clip_norm=2.0)

    def release(gradients: torch.Tensor) -> np.ndarray:
        mechanism = plan.mechanism(SeededRandom(0))
        mechanism.sample(len(gradients))
        return mechanism.release([gradients], 3)

    moved = release(torch.cat([others, torch.tensor([row])])) - release(others)
    assert np.linalg.norm(moved) * plan.normaliser <= 2.0 * (1 + 1e-9)
    replaced = release(torch.cat([others[1:], torch.tensor([row])])) - release(others)
    assert np.linalg.norm(replaced) * plan.normaliser <= 4.0 * (1 + 1e-9)


def test_the_divisor_is_public_and_not_the_batch(make_open_plan):
    mechanism = make_open_plan(sampling_rate=1.0, expected_people=80).mechanism(SeededRandom(0))
    mechanism.sample(2)
    assert mechanism.release([torch.full((2, 1), 0.5)], 1)[0] == pytest.approx(1.0 / 80)


def test_sampling_uses_the_planned_rate(make_open_plan):
    mechanism = make_open_plan(sampling_rate=0.1, rounds=1).mechanism(SecureRandom())
    heads = len(mechanism.sample(20_000))
    assert stats.binomtest(heads, 20_000, 0.1).pvalue > 1e-6


def test_steps_beyond_the_plan_are_refused(make_open_plan):
    mechanism = make_open_plan(rounds=2).mechanism(SeededRandom(0))
    for _ in range(2):
        mechanism.sample(0)
        mechanism.release([], 1)
    with pytest.raises(PrivacyError, match="all 2 steps of the plan are taken; make a plan with more rounds"):
        mechanism.sample(0)


def test_a_resumed_mechanism_goes_on_counting(make_open_plan):
    mechanism = make_open_plan(rounds=2).mechanism(SeededRandom(0), steps_taken=1)
    mechanism.sample(0)
    mechanism.release([], 1)
    assert mechanism.steps_taken == 2
    with pytest.raises(PrivacyError, match="all 2 steps of the plan are taken"):
        mechanism.sample(0)


def test_drawing_again_until_the_batch_pleases_is_refused(make_open_plan):
    mechanism = make_open_plan().mechanism(SeededRandom(0))
    mechanism.sample(10)
    with pytest.raises(PrivacyError, match="the last sample was not released: expected release before another sample"):
        mechanism.sample(10)


def test_a_release_without_its_own_sample_is_refused(make_open_plan):
    mechanism = make_open_plan().mechanism(SeededRandom(0))
    with pytest.raises(PrivacyError, match="release without a sample: expected sample before each release"):
        mechanism.release([], 1)
    mechanism.sample(0)
    mechanism.release([], 1)
    with pytest.raises(PrivacyError, match="release without a sample"):
        mechanism.release([], 1)


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_rows_that_are_not_the_sampled_people_are_refused_and_the_step_stays_charged(make_open_plan, rows):
    mechanism = make_open_plan(sampling_rate=1.0).mechanism(SeededRandom(0))
    mechanism.sample(3)
    with pytest.raises(PrivacyError, match="rows of gradients and sampled people differ: expected one row"):
        mechanism.release([torch.zeros(rows, 2)], 2)
    assert mechanism.steps_taken == 1


@pytest.mark.parametrize("chunk", [torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, 2, 1)])
def test_gradients_of_another_width_are_refused(make_open_plan, chunk):
    mechanism = make_open_plan(sampling_rate=1.0).mechanism(SeededRandom(0))
    mechanism.sample(3)
    with pytest.raises(PrivacyError, match=r"gradients of shape .*: expected \(B, 2\)"):
        mechanism.release([chunk], 2)


def test_a_forged_plan_or_count_is_refused(make_open_plan):
    with pytest.raises(PrivacyError, match="plan of type dict: expected a PrivacyPlan"):
        Mechanism(make_open_plan().to_dict(), SeededRandom(0))
    with pytest.raises(PrivacyError, match="steps_taken=-1: expected a whole number >= 0"):
        make_open_plan().mechanism(SeededRandom(0), steps_taken=-1)


def test_a_source_that_does_not_swear_it_is_private_is_refused(make_plan):
    class Vague(SecureRandom):
        is_private = 1  # truthy, yet not the word

    with pytest.raises(PrivacyError, match="Vague can be predicted: a private plan expects SecureRandom"):
        make_plan().mechanism(Vague())


def test_a_capped_plan_never_takes_more_people_and_normalises_as_before(make_open_plan):
    plan = make_open_plan(sampling_rate=1.0, batch_cap=3, max_people=9)
    mechanism = plan.mechanism(SeededRandom(0))
    for _ in range(5):
        assert len(mechanism.sample(9)) == 3
        assert mechanism.release([torch.full((3, 1), 0.5)], 1)[0] == pytest.approx(1.5 / 80)
    mechanism.sample(9)
    with pytest.raises(PrivacyError, match="rows of gradients and sampled people differ"):
        mechanism.release([torch.zeros(9, 1)], 1)


def test_more_people_than_the_public_bound_are_refused_without_saying_how_many(make_open_plan):
    mechanism = make_open_plan(batch_cap=3, max_people=9).mechanism(SeededRandom(0))
    with pytest.raises(PrivacyError, match="more people than max_people=9: make a plan with a higher bound") as refusal:
        mechanism.sample(1234)
    assert "1234" not in str(refusal.value)
    assert mechanism.steps_taken == 0
    assert len(mechanism.sample(9)) <= 3
