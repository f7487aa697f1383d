import dataclasses
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import METRICS, Policy, load_policy, write_policy
from tests.fedrec.privacy.ledgers import generous, policy_for


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    return make_plan(metric_releases=3, metric_noise_multiplier=30.0)


@pytest.fixture
def policy(plan) -> Policy:
    return policy_for(plan)


@pytest.fixture
def path(policy, tmp_path) -> Path:
    write_policy(policy, tmp_path / "policy.toml")
    return tmp_path / "policy.toml"


def test_what_is_written_is_read_back_with_a_comment_above_each_key(policy, path):
    assert load_policy(path) == policy
    lines = path.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert [lines[number].split(" = ")[0] for number in keys] == list(Policy.model_fields)
    assert all(lines[number - 1].startswith("# ") for number in keys)
    assert [file.name for file in path.parent.iterdir()] == ["policy.toml"]


def test_the_strictest_policy_for_a_plan_allows_that_plan(policy, plan):
    policy.check_plan(plan)
    policy.check_base("ba" * 32)
    policy.check_code("c0" * 32)
    policy.check_metrics(["ndcg@10"])
    policy.check_people(1)
    assert (policy.max_epsilon, policy.max_delta, policy.max_steps_total) == (8.0, 1e-5, 30)
    assert policy.min_noise_multiplier == plan.noise_multiplier < 30.0


def test_the_strictest_policy_names_the_lesser_of_both_noises(make_plan):
    plan = make_plan(epsilon=20.0, metric_releases=1, metric_noise_multiplier=0.5)
    assert policy_for(plan).min_noise_multiplier == 0.5 < plan.noise_multiplier


@pytest.mark.parametrize("key", sorted(Policy.model_fields.keys() - {"trust", "statistics"}))
def test_a_missing_key_refuses_the_whole_file(path, key):
    values = tomllib.loads(path.read_text())
    values.pop(key)
    with pytest.raises(PrivacyError, match=rf"policy.toml: {key}: Field required; nothing is allowed until"):
        load_policy(rewritten(path, values))


def test_counts_leave_only_where_the_policy_says_so(make_plan, path):
    plan = make_plan(statistics_noise_multiplier=9.0)
    policy_for(plan, statistics=True).check_plan(plan)
    with pytest.raises(PrivacyError, match="policy statistics: a release of counts, allowed none; set statistics = tr"):
        policy_for(plan, statistics=False).check_plan(plan)
    values = tomllib.loads(path.read_text())
    del values["statistics"]
    assert load_policy(rewritten(path, values)).statistics is False


def test_the_least_noise_holds_for_counts_too(make_plan):
    plan = make_plan(epsilon=20.0, statistics_noise_multiplier=0.5)
    policy = policy_for(plan, statistics=True)
    assert policy.min_noise_multiplier == 0.5 < plan.noise_multiplier
    with pytest.raises(PrivacyError, match=r"policy min_noise_multiplier: 0.5, allowed >= 0.6"):
        policy.model_copy(update={"min_noise_multiplier": 0.6}).check_plan(plan)


def test_a_policy_without_trust_has_the_strictest(path):
    values = tomllib.loads(path.read_text())
    assert values.pop("trust") == "local"
    assert load_policy(rewritten(path, values)) == load_policy(path)


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_a_plan_of_another_trust_than_the_policys_is_refused(plan, trust):
    sharers = 3 if trust == "distributed" else 1
    plan = dataclasses.replace(plan, metric_releases=0, metric_noise_multiplier=None)
    other = dataclasses.replace(plan, trust=trust, noise_sharers=sharers)
    with pytest.raises(PrivacyError, match=rf"policy trust: '{trust}', allowed 'local'"):
        generous(plan).check_plan(other)
    names = {"base": "a" * 64, "code": "b" * 64, "server_key": "c" * 64}
    with pytest.raises(PrivacyError, match=rf"policy trust: '{trust}', allowed 'local'"):
        Policy.for_plan(other, **names)
    simulated = Policy.for_plan(other, **names, trust=trust)
    simulated.check_plan(other)
    with pytest.raises(PrivacyError, match=rf"policy trust: 'local', allowed '{trust}'"):
        simulated.check_plan(plan)


def test_what_is_for_simulations_has_no_adaptive_parameters(path):
    values = tomllib.loads(path.read_text()) | {"trust": "central", "parameters": "adaptive"}
    with pytest.raises(PrivacyError, match="trust=central and parameters=adaptive: expected trust=local, or fixed"):
        load_policy(rewritten(path, values))


def test_an_unknown_key_refuses_the_whole_file(path):
    values = tomllib.loads(path.read_text()) | {"max_epsilom": 3.0}
    with pytest.raises(PrivacyError, match=r"policy.toml: max_epsilom: Extra inputs are not permitted; nothing is"):
        load_policy(rewritten(path, values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("unit", "interaction"),
        *[("max_epsilon", value) for value in (0.0, -1.0, math.inf, math.nan, "8", True)],
        *[("max_delta", value) for value in (0.0, 1.0, -1e-5, math.nan)],
        ("parameters", "none"),
        *[("min_noise_multiplier", value) for value in (0.0, -1.0, math.inf, math.nan)],
        *[("max_clip_norm", value) for value in (0.0, math.inf)],
        *[("max_sampling_rate", value) for value in (0.0, 1.1, math.nan)],
        *[
            (f"max_{what}_{period}", value)
            for what in ("steps", "rounds")
            for period in ("total", "per_day")
            for value in (-1, 1.5, True, "3")
        ],
        *[("min_people", value) for value in (0, -5, 1.5, True)],
        ("allowed_metrics", ["loss"]),
        ("allowed_metrics", "ndcg@10"),
        ("allowed_bases", ["BA" * 32]),
        ("allowed_bases", ["ba"]),
        ("allowed_bases", "ba" * 32),
        ("allowed_bases", [7]),
        ("allowed_code", ["*"]),
        ("server_key", ""),
        ("server_key", "5e" * 31),
        ("server_key", "5e" * 32 + "\n"),
    ],
)
def test_a_value_out_of_range_refuses_the_whole_file(path, key, value):
    values = tomllib.loads(path.read_text()) | {key: value}
    with pytest.raises(PrivacyError, match=rf"policy.toml: {key}.*: .*; nothing is allowed until this is mended"):
        load_policy(rewritten(path, values))


def test_a_whole_number_is_a_number(path, policy):
    values = tomllib.loads(path.read_text()) | {"max_epsilon": 8, "max_sampling_rate": 1}
    assert load_policy(rewritten(path, values)).max_epsilon == 8.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"max_epsilon = ", "the policy is not TOML: "),
        (b"unit = 'a'\nunit = 'b'", "the policy is not TOML: "),
        (b"\xff\xfe", "the policy is not TOML: 'utf-8' codec"),
        (b"", "version: Field required"),
    ],
)
def test_a_file_that_is_no_policy_allows_nothing(tmp_path, content, message):
    (tmp_path / "policy.toml").write_bytes(content)
    with pytest.raises(PrivacyError, match=f"policy.toml: {message}"):
        load_policy(tmp_path / "policy.toml")


def test_no_file_allows_nothing(tmp_path):
    with pytest.raises(PrivacyError, match=r"x.toml: no policy: nothing is allowed; write one with fedrec privacy pol"):
        load_policy(tmp_path / "x.toml")
    with pytest.raises(PrivacyError, match=r"the policy cannot be read: Is a directory"):
        load_policy(tmp_path)


def test_a_policy_that_cannot_be_written_leaves_the_old_one(policy, tmp_path):
    with pytest.raises(PrivacyError, match=r"the policy cannot be written: No such file or directory"):
        write_policy(policy, tmp_path / "no" / "policy.toml")
    (tmp_path / "policy.toml").mkdir()
    with pytest.raises(PrivacyError, match=r"the policy cannot be written: Is a directory"):
        write_policy(policy, tmp_path / "policy.toml")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.toml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_epsilon": 7.9}, "policy max_epsilon: 8.0, allowed <= 7.9"),
        ({"max_delta": 1e-6}, "policy max_delta: 1e-05, allowed <= 1e-06"),
        ({"min_noise_multiplier": 9.0}, r"policy min_noise_multiplier: 1\.\d+, allowed >= 9.0"),
        ({"max_clip_norm": 0.5}, "policy max_clip_norm: 1.0, allowed <= 0.5"),
        ({"max_sampling_rate": 0.1}, "policy max_sampling_rate: 0.25, allowed <= 0.1"),
        ({"max_steps_total": 29}, "policy max_steps_total: 30, allowed <= 29"),
        ({"max_rounds_total": 29}, "policy max_rounds_total: 30, allowed <= 29"),
        ({"max_steps_per_day": 0}, "policy max_steps_per_day: 1, allowed <= 0"),
        ({"max_rounds_per_day": 0}, "policy max_rounds_per_day: 1, allowed <= 0"),
        ({"allowed_metrics": ()}, "policy allowed_metrics: 3 metric releases, allowed none"),
    ],
)
def test_a_plan_beyond_any_limit_is_refused_with_the_key_and_both_values(plan, changes, message):
    generous(plan).check_plan(plan)
    with pytest.raises(PrivacyError, match=message):
        generous(plan, **changes).check_plan(plan)


def test_too_little_noise_on_metrics_is_refused_like_too_little_on_training(make_plan):
    plan = make_plan(epsilon=20.0, metric_releases=1, metric_noise_multiplier=0.5)
    assert plan.noise_multiplier > 0.6
    with pytest.raises(PrivacyError, match=r"policy min_noise_multiplier: 0.5, allowed >= 0.6"):
        generous(plan, min_noise_multiplier=0.6).check_plan(plan)


def test_a_plan_without_privacy_or_of_another_unit_is_refused(policy, plan, make_open_plan):
    with pytest.raises(PrivacyError, match=r"policy max_epsilon: a plan without privacy, allowed <= 8.0"):
        policy.check_plan(make_open_plan())
    with pytest.raises(PrivacyError, match=r"policy max_epsilon: a plan without privacy, allowed a private plan"):
        Policy.for_plan(make_open_plan(), base="ba" * 32, code="c0" * 32, server_key="5e" * 32)
    object.__setattr__(plan, "unit", "interaction")  # no plan with another unit can be made
    with pytest.raises(PrivacyError, match=r"policy unit: 'interaction', allowed 'person at a client'"):
        policy.check_plan(plan)


def test_the_strictest_policy_needs_the_metrics_that_the_plan_releases(plan):
    with pytest.raises(PrivacyError, match=r"policy allowed_metrics: 3 metric releases, allowed none"):
        Policy.for_plan(plan, base="ba" * 32, code="c0" * 32, server_key="5e" * 32)
    with pytest.raises(PrivacyError, match=r"policy for a plan: allowed_bases.0: String should match pattern"):
        Policy.for_plan(plan, base="", code="c0" * 32, server_key="5e" * 32, metrics=METRICS)


def test_too_few_people_are_refused_without_telling_how_many(policy, plan):
    for_twenty = generous(plan, min_people=20)
    for_twenty.check_people(20)
    with pytest.raises(
        PrivacyError, match=r"policy min_people: fewer people here, allowed >= 20; lower it only if [a-z ]+$"
    ) as refusal:
        for_twenty.check_people(19)
    assert "19" not in str(refusal.value)


def test_an_unlisted_base_code_or_metric_is_refused(policy):
    for check, key in ((policy.check_base, "allowed_bases"), (policy.check_code, "allowed_code")):
        with pytest.raises(PrivacyError, match=rf"policy {key}: 'ff', allowed one of \['[bac0]+'\]"):
            check("ff")
    with pytest.raises(PrivacyError, match="; after an upgrade that you meant, put the first digest into allowed_code"):
        policy.check_code("ff")
    with pytest.raises(PrivacyError, match=r"policy allowed_metrics: 'hr@10', allowed one of \['ndcg@10'\]"):
        policy.check_metrics(["ndcg@10", "hr@10"])


def test_another_server_than_the_pinned_one_is_refused(policy):
    policy.check_server(policy.server_key)
    with pytest.raises(PrivacyError, match=f"policy server_key: '{'ab' * 32}', allowed '{policy.server_key}'$"):
        policy.check_server("ab" * 32)


def test_empty_lists_allow_nothing(plan):
    closed = generous(plan, allowed_bases=(), allowed_code=(), allowed_metrics=())
    for check in (
        lambda: closed.check_base("ba" * 32),
        lambda: closed.check_code(""),
        lambda: closed.check_metrics("x"),
    ):
        with pytest.raises(PrivacyError, match=r", allowed none($|; )"):
            check()
    closed.check_metrics([])


def test_two_policies_share_a_digest_exactly_when_they_are_equal(policy, plan, path):
    assert load_policy(path).digest() == policy.digest()
    for name, value in (("min_people", 2), ("server_key", "ab" * 32), ("allowed_code", ()), ("max_epsilon", 8.5)):
        assert policy_for(plan, **{name: value}).digest() != policy.digest()


def test_a_policy_cannot_be_changed_once_made(policy):
    with pytest.raises(ValueError, match="frozen"):
        policy.max_epsilon = 99.0


def test_reading_a_policy_needs_none_of_the_heavy_libraries():
    heavy = ("torch", "opacus", "scipy", "dp_accounting", "flwr")
    code = f"import sys, fedrec.privacy.policy; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def rewritten(path: Path, values: dict[str, object]) -> Path:
    import tomli_w

    path.write_text(tomli_w.dumps(values))
    return path
