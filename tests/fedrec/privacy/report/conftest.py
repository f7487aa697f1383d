"""A plan, its policy, and reports of a run with and without privacy."""

import pytest

from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.signing import SigningKey
from tests.fedrec.privacy.report.made import facts_of, group_of, sign

DELTA = 1e-5


@pytest.fixture(scope="session")
def plan():
    return PrivacyPlan.calibrate(
        8.0,
        DELTA,
        sampling_rate=0.25,
        rounds=30,
        local_steps=1,
        clip_norm=1.0,
        clipping="auto-s",
        expected_people=60,
    )


@pytest.fixture(scope="session")
def policy(plan):
    return Policy.for_plan(plan, base="a" * 64, code="b" * 64, server_key="c" * 64)


@pytest.fixture(scope="session")
def facts(plan, policy):
    two_runs = (group_of(plan, charges=12), group_of(plan, charges=8, run="run-0"))
    return facts_of(plan, policy, ("client-00000", two_runs), ("client-00001", (group_of(plan, charges=5),)))


@pytest.fixture(scope="session")
def bare_facts(plan):
    """A run without privacy."""
    bare = PrivacyPlan.without_privacy(
        sampling_rate=0.25, rounds=30, local_steps=1, clip_norm=1.0, clipping="auto-s", expected_people=60
    )
    return facts_of(bare, None, ("client-00000", (group_of(bare, charges=12),)))


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    return SigningKey.create(tmp_path_factory.mktemp("keys") / "operator.key")


@pytest.fixture(scope="session")
def signed(facts, key):
    return sign(facts, key)


@pytest.fixture(scope="session")
def bare(bare_facts, key):
    return sign(bare_facts, key)
