"""Where a plan covers sums alone, the sum is attacked: right shares pass, thin and thick ones are caught."""

import math

import pytest

from fedrec.privacy.audit.suite import run_audit
from fedrec.privacy.plan import PrivacyPlan
from tests.fedrec.privacy.audit import mutants

SHARERS = {"distributed": 9, "central": 1}
SCALE = {"noise of steps without contributions", "noise of steps with people and canaries"}
SHARES = {
    "no share but all": lambda plan: plan.noise_multiplier,
    "1/m for 1/sqrt(m)": lambda plan: plan.noise_multiplier / plan.noise_sharers,
    "none": lambda plan: 0.0,
    "of one sharer more": lambda plan: plan.noise_multiplier / math.sqrt(plan.noise_sharers + 1),
}


@pytest.fixture
def engine_under(engine_of, plan_at):
    return lambda trust: engine_of(plan_at(trust=trust, noise_sharers=SHARERS[trust]))


def failed(engine) -> set[str]:
    return {check.name for check in run_audit(engine, canaries=500).checks if not check.passed}


@pytest.mark.parametrize("trust", SHARERS)
def test_honest_engine_fails_no_check(engine_under, trust):
    assert failed(engine_under(trust)) == set()


@pytest.mark.parametrize("share", SHARES)
def test_clients_who_get_their_share_wrong_are_caught(engine_under, monkeypatch, share):
    engine = engine_under("distributed")
    monkeypatch.setattr(PrivacyPlan, "client_noise_multiplier", property(SHARES[share]))
    found = failed(engine)
    assert found >= SCALE
    assert ("Gaussian estimate" in found) == (share in {"1/m for 1/sqrt(m)", "none"})


@pytest.mark.parametrize(("trust", "times"), [("distributed", 1.5), ("central", 0.5), ("central", 1.5)])
def test_noise_that_is_too_thin_or_too_thick_is_caught(engine_under, monkeypatch, trust, times):
    engine = engine_under(trust)
    mutants.noise_times(times)(monkeypatch)
    assert failed(engine) >= SCALE


def test_missing_clipping_shows_in_the_sum(engine_under, monkeypatch):
    engine = engine_under("distributed")
    mutants.no_clipping(monkeypatch)
    assert {"a gradient of any length is clipped", "Gaussian estimate"} <= failed(engine)
