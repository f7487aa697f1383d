"""Whoever adds the noise, what is published carries exactly the planned amount, and the words say who that is."""

import dataclasses
import math

import numpy as np
import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom
from fedrec.privacy.trust import require_local, server_noise, trust_sentence
from tests.fedrec.privacy.noises import is_noise_of

TRUSTS = [("local", 1), ("distributed", 9), ("central", 1)]


@pytest.fixture
def plan_of(plan):
    """The plan under any trust."""
    return lambda trust, sharers: dataclasses.replace(plan, trust=trust, noise_sharers=sharers)


def released_sum(plan: PrivacyPlan, *, clients: int, parameters: int = 20_000) -> np.ndarray:
    """The sum of what clients without people release, and of what the server adds."""
    total = server_noise(plan.server_noise_std, parameters)
    for _ in range(clients):
        mechanism = plan.mechanism(SecureRandom())
        mechanism.sample(0)
        total += mechanism.release([], parameters)
    return total


@pytest.mark.parametrize(("trust", "sharers"), TRUSTS)
def test_what_is_published_carries_the_planned_noise_whoever_adds_it(plan_of, trust, sharers):
    plan = plan_of(trust, sharers)
    noise = released_sum(plan, clients=sharers)
    scale = plan.noise_multiplier * plan.clip_norm / plan.normaliser
    assert is_noise_of(noise, scale)
    assert not is_noise_of(noise * 2 / 3, scale)
    assert not is_noise_of(noise * 3 / 2, scale)


@pytest.mark.parametrize(("trust", "sharers"), TRUSTS)
def test_variances_of_clients_and_server_add_up_to_the_accounted_one(plan_of, trust, sharers):
    plan = plan_of(trust, sharers)
    server = plan.server_noise_std * plan.normaliser / plan.clip_norm
    assert math.hypot(math.sqrt(sharers) * plan.client_noise_multiplier, server) == pytest.approx(plan.noise_multiplier)


def test_under_local_trust_a_client_adds_all_and_the_server_nothing(plan):
    assert (plan.client_noise_multiplier, plan.server_noise_std) == (plan.noise_multiplier, 0.0)


@pytest.mark.parametrize("missing", [1, 4])
def test_sharers_who_stay_away_leave_noise_short_by_their_share(plan_of, missing):
    """What t colluding clients of m know of each other's noise leaves sigma·sqrt((m - t)/m)."""
    plan = plan_of("distributed", 9)
    noise = released_sum(plan, clients=9 - missing)
    scale = plan.noise_multiplier * plan.clip_norm / plan.normaliser
    assert is_noise_of(noise, scale * math.sqrt((9 - missing) / 9))
    assert not is_noise_of(noise, scale)


def test_trust_moves_neither_epsilon_nor_what_is_charged(plan_of):
    local, *others = (plan_of(*trust) for trust in TRUSTS)
    for other in others:
        assert other.epsilon_after(30) == local.epsilon_after(30)
        assert other.training(1) == local.training(1)
        assert other.digest() != local.digest()
        assert PrivacyPlan.from_dict(other.to_dict()) == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trust": "everyone"}, "trust='everyone': expected local, distributed, central; set privacy.trust"),
        ({"noise_sharers": 2}, "noise_sharers=2: expected 1, under trust=local"),
        ({"trust": "central", "noise_sharers": 2}, "noise_sharers=2: expected 1, under trust=central"),
        ({"trust": "distributed"}, "noise_sharers=1: expected a whole number >= 2, .* trust=distributed; .* --clients"),
        ({"trust": "distributed", "noise_sharers": 2.0}, "noise_sharers=2.0: expected a whole number >= 2"),
        ({"trust": "distributed", "noise_sharers": True}, "noise_sharers=True: expected a whole number >= 2"),
        ({"trust": "central", "local_steps": 2}, "local_steps=2: expected 1 under trust=central"),
        (
            {"trust": "distributed", "noise_sharers": 3, "local_steps": 2},
            "local_steps=2: expected 1 under trust=distributed; set federation.local_steps",
        ),
        (
            {"trust": "central", "metric_releases": 1, "metric_noise_multiplier": 1e6},
            "metric_releases=1: expected 0 under trust=central: a client's metrics leave alone",
        ),
    ],
)
def test_a_plan_whose_sum_could_not_carry_its_noise_is_refused(plan, changes, message):
    with pytest.raises(PrivacyError, match=message):
        dataclasses.replace(plan, **changes)


def test_without_privacy_there_is_nobody_to_entrust(make_open_plan):
    with pytest.raises(PrivacyError, match="trust=central: a plan without privacy has no noise to share or to entrust"):
        dataclasses.replace(make_open_plan(), trust="central")


@pytest.mark.parametrize(
    ("trust", "sharers", "words"),
    [
        ("local", 1, ["nobody else needs to be trusted"]),
        (
            "distributed",
            9,
            ["sum of at least 9 clients", "nobody sees anything but such sums", "all 9 add their share"],
        ),
        ("distributed", 9, ["No secure sum stood behind this run: simulation only"]),
        ("central", 1, ["runs the server sees each client's exact clipped sum", "to add the noise: simulation only"]),
    ],
)
def test_the_statement_names_whom_it_relies_on(plan_of, trust, sharers, words):
    statement = plan_of(trust, sharers).statement()
    assert statement.endswith(trust_sentence(trust, sharers))
    for word in words:
        assert word in statement


def test_between_machines_only_local_trust_is_let_through():
    require_local("local")
    with pytest.raises(PrivacyError, match=r"privacy\.trust=distributed: needs a secure sum, and there is none: sim"):
        require_local("distributed")
    with pytest.raises(PrivacyError, match=r"privacy\.trust=central: needs a server that may see exact sums, and"):
        require_local("central")


def test_noise_of_the_server_is_fresh_for_every_sum():
    first, second = server_noise(1.0, 1000), server_noise(1.0, 1000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    assert not server_noise(0.0, 1000).any()
