"""Every sabotage of the engine makes the audit fail, and by the check that was made for it."""

import pytest
import torch

from fedrec.privacy.audit.suite import Audit, run_audit
from tests.fedrec.privacy.audit import mutants
from tests.tiny_ranker import adapted

SCALE = {"noise of steps without contributions", "noise of steps with people and canaries"}
SAMPLED = "people are sampled at the planned rate"
ONE_PERSON = "a client of one person samples at the planned rate"
FRESH = "noise is never used twice"
EMPTY = "an empty batch is noised and charged"
SIZES = "batch sizes vary as independent coins make them"
TURNS = "people's turns vary as independent coins make them"
OVERLAP = "batches are independent of each other"
SENSITIVITY = "one person moves the sum by at most the clip norm"
OWN = "a person's gradient in a batch is their own"
START = "the client's start-up check holds"
ANY_LENGTH = "a gradient of any length is clipped"
UNDEFINED = "a gradient that is not finite counts for nothing"
NORMALISER = "the normaliser is the plan's, whatever the number of people"
LEAVES = "only the adapter's released numbers leave"
FROZEN = "frozen weights and buffers stay as they were"
ESTIMATE = "Gaussian estimate"

CAUGHT_BY = {
    "half noise": (mutants.noise_times(0.5), {*SCALE, ESTIMATE}),
    "two thirds of the noise": (mutants.noise_times(2 / 3), SCALE),
    "three halves of the noise": (mutants.noise_times(1.5), SCALE),
    "no noise": (mutants.noise_times(0.0), {*SCALE, FRESH, EMPTY, ESTIMATE}),
    "no clipping": (mutants.no_clipping, {ANY_LENGTH, ESTIMATE}),
    "batch clipped, not people": (mutants.clipped_after_summing, {ANY_LENGTH, NORMALISER}),
    "shuffled instead of Poisson": (mutants.shuffled, {SIZES, TURNS, OVERLAP}),
    "batches of fixed size": (mutants.fixed_size, {SIZES}),
    "empty batches without noise": (mutants.empty_batch_without_noise, {EMPTY}),
    "empty batches drawn again": (mutants.empty_batch_drawn_again, {ONE_PERSON}),
    "one key for all noise": (mutants.one_key_for_all, {FRESH}),
    "one key for all steps of a round": (mutants.one_key_for_each_source, {FRESH}),
    "normaliser from private N": (mutants.normaliser_from_private_size, {NORMALISER}),
    "in-batch negatives": (mutants.in_batch_negatives, {START, OWN, SENSITIVITY}),
    "a NaN person": (mutants.nan_person_let_in, {UNDEFINED}),
    "two people in one row": (mutants.two_people_in_one_row, {START, OWN, SENSITIVITY}),
    "steps that are not booked": (mutants.steps_not_booked, {EMPTY}),
    "an extra number in the reply": (mutants.loss_hidden_in_the_reply, {LEAVES}),
    "a base that learns": (mutants.base_that_learns, {FROZEN}),
}


def _failed(audit: Audit) -> set[str]:
    return {check.name for check in audit.checks if not check.passed}


@pytest.mark.parametrize("mutant", CAUGHT_BY)
def test_audit_catches_the_mutant_by_name(mutant, engine_of, monkeypatch):
    sabotage, expected = CAUGHT_BY[mutant]
    engine = engine_of()
    sabotage(monkeypatch)
    audit = run_audit(engine)
    assert not audit.passed
    assert expected <= _failed(audit), mutant


def test_tied_embedding_is_caught_by_the_gradient_checks(engine_of, monkeypatch):
    ranker = mutants.TiedRanker(adapted()).train()
    mutants.refusal_of_ties_removed(monkeypatch)
    audit = run_audit(engine_of(ranker=ranker))
    assert {START, OWN} <= _failed(audit)


def test_tied_embedding_is_refused_before_any_audit(engine_of):
    ranker = mutants.TiedRanker(adapted()).train()
    with pytest.raises(Exception, match="must not be trained"):
        run_audit(engine_of(ranker=ranker))


def test_honest_engine_fails_no_check(engine_of):
    engine = engine_of()
    for _ in range(10):
        assert _failed(run_audit(engine, canaries=500)) == set()


@pytest.mark.slow
def test_honest_engine_passes_200_times_in_a_row(engine_of):
    engine = engine_of()
    assert [_failed(run_audit(engine)) for _ in range(200)] == [set()] * 200


def test_audit_leaves_torch_and_numpy_generators_alone(engine_of):
    state = torch.random.get_rng_state()
    run_audit(engine_of(), canaries=100)
    assert torch.equal(state, torch.random.get_rng_state())
