"""The release of counts survives its audit as it is, and each small fault in it is caught."""

from collections.abc import Callable

import numpy as np
import pytest

import clients.merchant
import clients.training
from fedrec.model.counting import person_statistics
from fedrec.model.pairs import PublicPairs
from fedrec.model.statistics import Counting, StatisticsSpec
from fedrec.privacy import statistics
from fedrec.privacy.audit.counts import count_checks
from fedrec.privacy.audit.suite import made_up_people, run_audit
from fedrec.privacy.plan import PrivacyPlan
from tests.fedrec.privacy.audit import mutants
from tests.tiny_ranker import ITEMS, public_pairs

BOUND, SCALE, SHAPE, ESTIMATE = (
    "one person moves the counts by at most 1",
    "noise of the counts",
    "noise of the counts is normal",
    "Gaussian estimate of the counts",
)
TRUSTS = {"local": 1, "distributed": 9, "central": 1}
SIGMA = 0.8


def every_pair() -> PublicPairs:
    """All ordered pairs of different items, so that there are canaries enough."""
    first, then = np.divmod(np.arange(ITEMS**2), ITEMS)
    is_pair = first != then
    return PublicPairs(
        ITEMS,
        first[is_pair].astype(np.int32),
        then[is_pair].astype(np.int32),
        np.zeros(int(is_pair.sum()), np.float32),
        public_pairs().spec,
    )


SPEC = StatisticsSpec(window=3, popularity_share=0.0)
COUNTING = Counting(every_pair(), SPEC)


@pytest.fixture
def engine_under(engine_of, plan_at) -> Callable:
    def make(trust: str = "local"):
        plan = plan_at(statistics_noise_multiplier=SIGMA, trust=trust, noise_sharers=TRUSTS[trust])
        return engine_of(plan, counting=COUNTING, statistics=SPEC)

    return make


def found_by(engine) -> dict[str, str]:
    """The failed checks of the counts, with what they say."""
    rng = np.random.default_rng()
    people = made_up_people(ITEMS, 12, rng=rng)
    return {
        check.name: check.detail
        for check in count_checks(engine, COUNTING, people, canaries=1500, rng=rng)
        if not check.passed
    }


@pytest.mark.parametrize("trust", TRUSTS)
def test_an_honest_engine_fails_no_check_of_its_counts(engine_under, trust):
    assert found_by(engine_under(trust)) == {}


def test_the_estimate_comes_close_to_the_truth_so_that_it_can_refute(engine_under):
    rng = np.random.default_rng()
    checks = count_checks(engine_under(), COUNTING, made_up_people(ITEMS, 12, rng=rng), canaries=1500, rng=rng)
    estimate = next(check.detail for check in checks if check.name == ESTIMATE)
    found = float(estimate.split("estimated ")[1].split(")")[0])
    assert -0.4 < found - 1 / SIGMA < 0.7  # the largest of nine: .10 above, deviation .07


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("times", [0.5, 1.5])
def test_noise_that_is_too_thin_or_too_thick_is_caught(engine_under, monkeypatch, trust, times):
    engine = engine_under(trust)
    mutants.noise_times(times)(monkeypatch)
    assert SCALE in found_by(engine)


@pytest.mark.parametrize(
    "share",
    [lambda plan, sigma: sigma, lambda plan, sigma: sigma / plan.noise_sharers, lambda plan, sigma: 0.0],
    ids=["no share but all", "1/m for 1/sqrt(m)", "none"],
)
def test_clients_who_get_their_share_of_the_noise_wrong_are_caught(engine_under, monkeypatch, share):
    engine = engine_under("distributed")
    monkeypatch.setattr(PrivacyPlan, "client_share", share)
    assert SCALE in found_by(engine)


def test_noise_of_another_shape_is_caught(engine_under, monkeypatch):
    engine = engine_under()
    coins = lambda self, size: np.random.default_rng().choice([-1.0, 1.0], size)  # noqa: E731
    monkeypatch.setattr(clients.merchant.SecureRandom, "normal", coins)
    assert SHAPE in found_by(engine)


def test_a_third_of_the_noise_shows_what_can_be_told_from_the_counts(engine_under, monkeypatch):
    engine = engine_under()
    mutants.noise_times(1 / 3)(monkeypatch)
    assert {SCALE, ESTIMATE} <= found_by(engine).keys()


def test_rows_that_grow_with_a_history_are_caught(engine_under, monkeypatch):
    """Neither scaled by the client nor shortened by the release."""

    def unscaled(histories, counting):
        for places, values in person_statistics(histories, counting):
            yield places, values / values.min(initial=1.0)

    engine = engine_under()
    monkeypatch.setattr(clients.training, "person_statistics", unscaled)
    assert BOUND not in found_by(engine), "the release shortens them"
    monkeypatch.setattr(statistics, "_shortened", lambda values: np.asarray(values, np.float64))
    assert BOUND in found_by(engine)


def test_the_whole_audit_covers_counts_where_a_plan_releases_them(engine_under, engine_of):
    names = [check.name for check in run_audit(engine_under(), canaries=100).checks]
    assert {BOUND, SCALE, SHAPE, ESTIMATE} <= set(names)
    assert SCALE not in [check.name for check in run_audit(engine_of(), canaries=100).checks]
