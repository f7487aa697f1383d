"""The audit as a whole: what it says, what it refuses, and that the tap changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.merchant import Merchant
from fedrec.errors import PrivacyError
from fedrec.privacy import mechanism
from fedrec.privacy.audit import suite
from fedrec.privacy.audit.suite import made_up_people, run_audit
from fedrec.privacy.audit.tap import Tap, clipped, tapped
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SeededRandom
from tests.fedrec.privacy.audit.conftest import DEFAULT

KEYS = {
    "plan", "base", "code", "canaries", "strict_epsilon", "gdp_epsilon", "gdp_mu", "claimed_epsilon", "delta",
    "passed", "checks", "seconds", "versions",
}  # fmt: skip


def open_plan(**changes) -> PrivacyPlan:
    return PrivacyPlan.without_privacy(**(DEFAULT | changes))


def capped_plan(**changes) -> PrivacyPlan:
    """Noise to spare instead of a calibration, which takes long for a cap."""
    promise = {"epsilon": 8.0, "delta": 1e-5, "noise_multiplier": 4.0, "private": True}
    return replace(open_plan(**({"rounds": 2} | changes)), **promise)


def test_document_has_the_agreed_keys_and_is_plain_json(engine_of, plan_at):
    audit = run_audit(engine_of(), canaries=200)
    document = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert set(document) == KEYS
    assert document["plan"] == plan_at().digest()
    assert (document["canaries"], document["claimed_epsilon"], document["delta"]) == (200, 8.0, 1e-5)
    assert document["passed"] is True
    assert all(set(check) == {"name", "passed", "detail"} for check in document["checks"])
    assert len({check["name"] for check in document["checks"]}) == len(document["checks"]) == 20


def test_no_epsilon_is_stated_alone(engine_of, plan_at):
    plan = plan_at()
    for check in run_audit(engine_of(), canaries=200).checks:
        if "epsilon" in check.detail:
            for word in (f"delta = {plan.delta:g}", plan.unit, plan.relation, plan.accountant):
                assert word in check.detail


def test_plan_without_noise_is_refused(engine_of):
    with pytest.raises(PrivacyError, match="nothing to audit: no noise; the plan is stamped NOT PRIVATE"):
        run_audit(engine_of(open_plan()))


def test_too_few_canaries_are_refused(engine_of):
    with pytest.raises(PrivacyError, match="canaries=19: expected at least 20; raise --canaries or max_people"):
        run_audit(engine_of(), canaries=19)
    with pytest.raises(PrivacyError, match="canaries=6: expected at least 20"):
        run_audit(engine_of(capped_plan(batch_cap=20, max_people=30)))


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_rate": 1.0, "rounds": 1},
        {"sampling_rate": 0.6, "rounds": 7},
        {"sampling_rate": 0.02, "rounds": 6, "local_steps": 5},
        {"clipping": "flat", "clip_norm": 0.01},
        {"metric_releases": 3, "metric_noise_multiplier": 20.0},
    ],
)
def test_sound_engine_passes_under_other_plans(engine_of, plan_at, changes):
    audit = run_audit(engine_of(plan_at(**changes)), canaries=400)
    assert [check for check in audit.checks if not check.passed] == []


CAP = {"batch_cap": 60, "max_people": 500}


def test_plan_with_a_cap_passes_and_its_cap_is_checked(engine_of):
    audit = run_audit(engine_of(capped_plan(**CAP)), canaries=400)
    assert [check for check in audit.checks if not check.passed] == []
    assert "no batch exceeds its cap" in {check.name for check in audit.checks}


def test_batches_above_their_cap_are_caught(engine_of, monkeypatch):
    honest = mechanism.poisson_sample
    monkeypatch.setattr(mechanism, "poisson_sample", lambda people, rate, random, **cap: honest(people, rate, random))
    audit = run_audit(engine_of(capped_plan(**CAP)), canaries=400)
    assert "no batch exceeds its cap" in {check.name for check in audit.checks if not check.passed}


def test_one_strict_bound_above_the_claim_is_chance_and_five_are_not(engine_of, monkeypatch):
    """The mildest of five independent attacks counts."""
    bounds: list[float] = []
    honest = suite.attack

    def told(*arguments, **how):
        return replace(honest(*arguments, **how), strict_epsilon=bounds.pop(0))

    monkeypatch.setattr(suite, "attack", told)
    for told_bounds, counted, passes in (([9.0, 2.0, 9.0], 2.0, True), ([9.0, 9.5, 8.5, 8.9, 9.0], 8.5, False)):
        bounds[:] = told_bounds
        audit = run_audit(engine_of(), canaries=100)
        assert (audit.attack.strict_epsilon, audit.passed) == (counted, passes)
    assert bounds == []


def test_client_that_refuses_its_people_fails_by_name(engine_of, monkeypatch):
    engine, honest = engine_of(), Merchant.train_round

    def refuse(self, instruction):
        if not self._agreement.plan.private:
            raise PrivacyError("not today")
        return honest(self, instruction)

    monkeypatch.setattr(Merchant, "train_round", refuse)
    failed = {check.name: check.detail for check in run_audit(engine, canaries=100).checks if not check.passed}
    assert failed["sensitivity"] == "the client refused: not today"


def test_made_up_people_never_repeat_an_item_at_once():
    people = made_up_people(7, 50, rng=np.random.default_rng(0))
    assert len(people) == 50
    assert people.lengths.min() >= 2
    assert all((np.diff(people.of(person)) != 0).all() for person in range(50))


def test_tapped_plan_is_the_same_promise_and_its_mechanism_gives_the_same_numbers():
    plan, tap = open_plan(), Tap()
    watched = tapped(plan, tap)
    assert watched.digest() == plan.digest()
    rows, released = torch.randn(40, 6), []
    for one in (plan, watched):
        engine = one.mechanism(SeededRandom(1), steps_taken=3)
        chosen = engine.sample(40)
        released.append(engine.release([rows[chosen]], 6))
        assert engine.steps_taken == 4
    assert np.array_equal(released[0], released[1])
    assert np.array_equal(tap.steps[0].released, released[0])
    assert tap.steps[0].known / plan.normaliser == pytest.approx(released[0], abs=1e-7)


def test_added_rows_are_sampled_like_people_and_stay_out_of_the_clients_sight():
    tap = Tap(added=3, make=lambda rows, width: torch.eye(width)[rows], width=9)
    engine = tapped(open_plan(sampling_rate=1.0), tap).mechanism(SeededRandom(1))
    assert engine.sample(2).tolist() == [0, 1]
    released = engine.release([torch.zeros(2, 4)], 4)
    assert released.shape == (4,)
    step = tap.steps[0]
    assert step.added.tolist() == [0, 1, 2]
    assert step.released * 80 == pytest.approx(np.r_[1, 1, 1, np.zeros(6)], abs=0.02)


@pytest.mark.parametrize("kind", ["flat", "auto-s"])
def test_auditors_clipping_agrees_with_the_engines(kind):
    rows = torch.randn(30, 5) * torch.logspace(-4, 4, 30)[:, None]
    rows[3, 2], rows[7, 0], rows[9] = torch.nan, torch.inf, 0.0
    ours = clipped(rows.double().numpy(), open_plan(clipping=kind, clip_norm=0.3)).sum(axis=0)
    assert ours == pytest.approx(clip_sum(rows, 0.3, kind).numpy(), rel=1e-6)
