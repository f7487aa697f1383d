"""For any request from a server and any history, what is charged never passes the policy."""

import math
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.ledger import Charge, Kind, Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from tests.fedrec.privacy.ledgers import DAY, Clock, generous, new_ledger, reopened

EPSILONS = (0.5, 3.0, 6.0, 8.0, 9.0)


@lru_cache
def plans() -> tuple[PrivacyPlan, ...]:
    """A dear one, a cheap one that samples less, one that also releases metrics, and one without privacy."""
    public = {"local_steps": 1, "clip_norm": 1.0, "clipping": "flat", "expected_people": 80}
    return (
        PrivacyPlan.calibrate(8.0, 1e-5, sampling_rate=0.25, rounds=8, **public),
        PrivacyPlan.calibrate(3.0, 1e-5, sampling_rate=0.1, rounds=4, **public),
        PrivacyPlan.calibrate(
            6.0, 1e-6, sampling_rate=0.25, rounds=6, metric_releases=2, metric_noise_multiplier=4.0, **public
        ),
        PrivacyPlan.without_privacy(sampling_rate=0.25, rounds=8, **public),
    )


def policy_of(epsilon: float, parameters: str, rounds_a_day: int) -> Policy:
    delta = 1e-5 if parameters == "fixed" else 2e-5  # half of an adaptive policy's is for each of the two branches
    changes = {"min_noise_multiplier": 0.1, "max_clip_norm": 2.0, "max_delta": delta, "max_sampling_rate": 1.0}
    caps = {"max_rounds_per_day": rounds_a_day, "max_steps_total": 25}
    return generous(plans()[2], max_epsilon=epsilon, parameters=parameters, **changes, **caps)


policies = st.builds(
    policy_of, st.sampled_from(EPSILONS), st.sampled_from(["fixed", "adaptive"]), st.sampled_from([3, 1000])
)
odd_numbers = st.sampled_from([0, -1, -0.0, 1e-9, 1.0, math.nan, math.inf, -math.inf, True, None, "1", 2**70])
rounds = st.one_of(st.builds("{}/{}".format, st.sampled_from("abc"), st.integers(0, 6)), st.sampled_from(["", "a", 3]))
charges = st.tuples(
    st.just("charge"),
    rounds,
    st.integers(0, len(plans()) - 1),
    st.one_of(st.integers(1, 5), st.integers(1, 9), odd_numbers),
    st.sampled_from(list(Kind)),
    st.one_of(st.just({}), st.just({}), st.just({}), st.dictionaries(st.sampled_from(Steps._fields), odd_numbers)),
)
operations = st.one_of(
    charges,
    charges,
    charges,
    st.tuples(st.just("settle"), st.integers(0, 20), st.one_of(st.integers(0, 4), odd_numbers)),
    st.tuples(st.just("release"), rounds),
    st.tuples(st.just("reopen"), policies),
    st.tuples(st.just("wait"), st.sampled_from([-2 * DAY, DAY // 2, DAY])),
)


@dataclass
class History:
    """The test's own account, kept apart from the ledger's."""

    ledger: Ledger
    policy: Policy
    clock: Clock
    charged: dict[str, Steps] = field(default_factory=dict)
    at: list[float] = field(default_factory=list)
    latest: float = 0.0

    def charge(self, round_id, plan_index, steps, kind, changes) -> None:
        plan = plans()[plan_index]
        spending = plan.training(1)._replace(steps=steps)
        if kind is Kind.METRICS and plan.metric_releases:
            spending = plan.metrics_release()
        spending = spending._replace(**changes)
        if self.ledger.charge(round_id, spending, plan=plan, kind=kind) is Charge.ALREADY_CHARGED:
            assert self.charged[round_id] == spending
            return
        assert round_id not in self.charged
        self.charged[round_id] = spending
        self.latest = max(self.latest, self.clock.now)
        if kind is Kind.TRAINING:
            self.at.append(self.latest)
        self.check()

    def check(self) -> None:
        """The policy in force holds, by the test's own sums."""
        charged = tuple(self.charged.values())
        assert composed_epsilon(charged, self.policy.checked_delta) <= self.policy.max_epsilon
        assert self.ledger.spent() == composed_epsilon(charged, self.policy.max_delta)
        assert all(spending.noise_multiplier >= self.policy.min_noise_multiplier for spending in self.charged.values())
        assert sum(moment > self.latest - DAY for moment in self.at) <= self.policy.max_rounds_per_day

    def settle(self, sequence, steps) -> None:
        before = {entry.sequence: entry for entry in self.ledger.entries()}
        self.ledger.settle(sequence, steps=steps, reason="asked by a test")
        entry = before[sequence]
        assert 0 <= steps < entry.steps
        self.charged[entry.round_id] = entry.spending._replace(steps=steps)

    def release(self, round_id) -> None:
        self.ledger.release(round_id)
        assert round_id in self.charged

    def reopen(self, policy) -> None:
        before = self.ledger.spendings()
        self.ledger, self.policy = reopened(self.ledger, policy, clock=self.clock), policy
        assert sorted(self.ledger.spendings()) == sorted(before)

    def wait(self, seconds) -> None:
        self.clock.now += seconds


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy=policies, script=st.lists(operations, min_size=4, max_size=24))
def test_no_request_and_no_history_brings_the_charged_epsilon_past_the_policy(policy, script):
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        history = History(new_ledger(Path(folder), policy, clock=clock), policy, clock)
        granted = 0
        for name, *arguments in script:
            try:
                getattr(history, name)(*arguments)
                granted += name == "charge"
            except PrivacyError:
                continue  # a refusal; anything else is a bug and fails the test
        spendings = tuple(spending for spending in history.charged.values() if spending.steps)
        assert composed_epsilon(tuple(history.ledger.spendings()), 1e-5) == composed_epsilon(spendings, 1e-5)
        assert len(history.charged) <= granted


@pytest.mark.parametrize("parameters", ["fixed", "adaptive"])
def test_the_property_is_not_held_by_refusing_everything(tmp_path, parameters):
    policy = policy_of(9.0, parameters, 1000)
    history = History(new_ledger(tmp_path, policy, clock=Clock()), policy, Clock())
    for index, plan in enumerate((1, 2, 0)):
        history.charge(f"{index}/0", plan, 2, Kind.TRAINING, {})
    assert len(history.charged) == 3
