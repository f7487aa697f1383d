"""What a federation agrees on is what its settings say."""

from typing import Any

import pytest

from fedrec.agreeing import adapter_spec, make_agreement, make_plan
from fedrec.config import Config, parse_config
from fedrec.errors import ConfigError, PrivacyError
from tests.tiny_run import SETTINGS


def config_of(**changes: Any) -> Config:
    """The tiny settings with changes such as ``privacy__epsilon=3``."""
    values: dict = {name: dict(section) for name, section in SETTINGS.items()}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values.setdefault(section, {})[key] = value
    return parse_config(values, source="test")


def test_plan_takes_the_public_numbers_of_the_settings():
    changes = {"privacy__sampling_rate": 0.5, "federation__local_steps": 2, "privacy__clip_norm": 0.7}
    changes |= {"privacy__enabled": False}  # the same public numbers, without the accountant's time
    plan = make_plan(config_of(**changes), people_per_client=10)
    assert (plan.sampling_rate, plan.local_steps, plan.rounds, plan.steps, plan.clip_norm) == (0.5, 2, 3, 6, 0.7)
    assert plan.expected_people == 10


def test_plan_gives_the_epsilon_of_the_settings():
    plan = make_plan(config_of(), people_per_client=10)
    assert (plan.epsilon, plan.delta, plan.private) == (8.0, 1e-5, True)
    assert plan.epsilon_after(plan.steps) <= 8.0


def test_plan_takes_the_normaliser_that_is_named():
    assert make_plan(config_of(privacy__expected_people=77), people_per_client=10).expected_people == 77


def test_plan_without_privacy_says_so():
    plan = make_plan(config_of(privacy__enabled=False), people_per_client=10)
    assert (plan.private, plan.noise_multiplier, plan.epsilon) == (False, 0.0, None)


def test_capped_batches_reach_the_plan_and_cost_noise():
    capped = config_of(privacy__batch_cap=4, privacy__max_people=10)
    plan, free = make_plan(capped, people_per_client=10), make_plan(config_of(), people_per_client=10)
    assert (plan.batch_cap, plan.max_people) == (4, 10)
    assert plan.noise_multiplier > free.noise_multiplier
    bare = make_plan(
        config_of(privacy__enabled=False, privacy__batch_cap=4, privacy__max_people=10), people_per_client=10
    )
    assert (bare.private, bare.batch_cap) == (False, 4)


@pytest.mark.parametrize("trust", ["central", "distributed"])
@pytest.mark.parametrize("enabled", [True, False])
def test_between_machines_other_trust_is_refused_on_privacy_grounds(trust, enabled):
    config = config_of(privacy__trust=trust, privacy__enabled=enabled)
    with pytest.raises(PrivacyError, match=rf"privacy\.trust={trust}: needs .*: simulation only; use local"):
        make_plan(config, people_per_client=10)


@pytest.mark.parametrize(("trust", "sharers"), [("local", 1), ("distributed", 4), ("central", 1)])
def test_in_a_simulation_everyone_who_is_asked_shares_the_noise(trust, sharers):
    plan = make_plan(config_of(privacy__trust=trust), people_per_client=10, is_simulated=True)
    assert (plan.trust, plan.noise_sharers) == (trust, sharers)
    assert plan.noise_multiplier == make_plan(config_of(), people_per_client=10).noise_multiplier
    fewer = config_of(privacy__trust=trust, federation__clients_per_round=3)
    assert make_plan(fewer, people_per_client=10, is_simulated=True).noise_sharers == min(sharers, 3)


@pytest.mark.parametrize("trust", ["central", "distributed"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"privacy__enabled": False}, "set privacy.enabled to true"),
        (
            {"privacy__metrics": ["hr@10"], "privacy__metrics_every": 1},
            "leave alone, not in a sum; set privacy.metrics to none",
        ),
        ({"federation__aggregation": "trimmed-mean"}, "only the plain sum .*; set federation.aggregation to mean"),
        ({"federation__weights": "registered"}, "only the plain sum .*; set federation.weights to uniform"),
        ({"federation__local_steps": 2}, "start without the sum's noise; set federation.local_steps to 1"),
        ({"federation__over_selection": 1.5}, "everybody who was asked; set federation.over_selection to 1"),
    ],
)
def test_what_needs_more_than_a_plain_sum_is_refused(trust, change, message):
    config = config_of(privacy__trust=trust, **change)
    with pytest.raises(ConfigError, match=rf"privacy\.trust={trust}: .*{message}, or use trust=local"):
        make_plan(config, people_per_client=10, is_simulated=True)


def test_a_sum_of_fewer_than_share_the_noise_is_refused():
    config = config_of(privacy__trust="distributed", federation__min_replies=0.75)
    with pytest.raises(ConfigError, match=r"fewer replies carry less than the noise; set federation\.min_replies to 1"):
        make_plan(config, people_per_client=10, is_simulated=True)
    central = config_of(privacy__trust="central", federation__min_replies=0.75)
    assert make_plan(central, people_per_client=10, is_simulated=True).trust == "central"


def test_adapter_is_what_the_settings_say():
    changes = {"kind": "bottleneck", "rank": 3, "targets": "all-linear", "norms": False, "gains": True}
    spec = adapter_spec(config_of(**{f"adapter__{name}": value for name, value in changes.items()}))
    assert {name: getattr(spec, name) for name in changes} == changes


def test_metrics_that_no_round_releases_are_refused() -> None:
    config = config_of(privacy__metrics=["hr@10"], privacy__metrics_every=4)
    with pytest.raises(ConfigError, match=r"privacy\.metrics_every=4: expected at most federation\.rounds=3"):
        make_plan(config, people_per_client=10)


@pytest.mark.parametrize(("items", "negatives"), [(50, None), (51, 7)])
def test_an_agreement_samples_negatives_for_a_large_catalogue_alone(items: int, negatives: int | None) -> None:
    config = config_of(privacy__enabled=False, model__full_softmax=50, model__negatives=7, data__merge_repeats=False)
    plan = make_plan(config, people_per_client=10)
    agreed = make_agreement(config, plan, run_id="a" * 32, base_digest="b" * 64, items=items, server_key="c" * 64)
    assert (agreed.negatives, agreed.mask_last, agreed.plan) == (negatives, False, plan)
    assert (agreed.run_id, agreed.base_digest, agreed.server_key) == ("a" * 32, "b" * 64, "c" * 64)
