import json

import pytest
from typer.testing import CliRunner

from fedrec.cli.privacy_policy import policy_app
from fedrec.code import code_digest
from fedrec.model.base import base_digest, save_base
from fedrec.privacy.policy import load_policy
from tests.tiny_ranker import learned


def run(*arguments: object):
    return CliRunner().invoke(policy_app, [str(argument) for argument in arguments])


SERVER = "5e" * 32


def test_a_new_policy_is_valid_and_allows_no_base_no_code_and_no_metrics(tmp_path):
    path = tmp_path / "policy.toml"
    result = run("new", path, "--epsilon", 3, "--server-key", SERVER)
    assert result.exit_code == 0, result.output
    assert "nothing can run until you list it in allowed_bases and allowed_code" in result.stdout
    policy = load_policy(path)
    assert (policy.max_epsilon, policy.max_delta, policy.parameters) == (3.0, 2e-5, "adaptive")
    assert (policy.max_rounds_total, policy.max_steps_total, policy.min_people) == (30, 30, 20)
    assert (policy.allowed_bases, policy.allowed_code, policy.allowed_metrics) == ((), (), ())


def test_every_flag_of_a_new_policy_reaches_the_file(tmp_path):
    flags = {"epsilon": 1.5, "delta": 1e-7, "min-noise-multiplier": 2.0, "max-clip-norm": 0.5, "max-sampling-rate": 0.1}
    flags |= {"max-rounds": 12, "max-rounds-per-day": 3, "min-people": 50, "parameters": "fixed", "server-key": SERVER}
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    assert run("new", tmp_path / "p.toml", *given).exit_code == 0
    document = json.loads(run("check", tmp_path / "p.toml", "--json").stdout)
    assert document["digest"] == load_policy(tmp_path / "p.toml").digest()
    expected = {
        "trust": "local",
        "max_epsilon": 1.5,
        "max_delta": 1e-7,
        "min_noise_multiplier": 2.0,
        "max_clip_norm": 0.5,
    }
    expected |= {"max_sampling_rate": 0.1, "max_rounds_total": 12, "max_rounds_per_day": 3, "min_people": 50}
    expected |= {"parameters": "fixed", "server_key": SERVER, "max_steps_total": 12, "max_steps_per_day": 3}
    assert {name: document[name] for name in expected} == expected


def test_a_new_policy_can_allow_a_base_this_code_and_a_metric(tmp_path):
    save_base(learned(), tmp_path / "base")
    allowing = ("--base", tmp_path / "base", "--this-code", "--metric", "hr@10")
    result = run("new", tmp_path / "p.toml", "--epsilon", 3, "--server-key", SERVER, *allowing)
    assert (result.exit_code, result.stdout.strip()) == (0, f"{tmp_path / 'p.toml'}: written")
    policy = load_policy(tmp_path / "p.toml")
    policy.check_base(base_digest(tmp_path / "base"))
    policy.check_code(code_digest())
    policy.check_metrics(["hr@10"])


def test_a_base_that_is_not_there_and_a_metric_that_does_not_exist_are_named(tmp_path):
    start = ("new", tmp_path / "p.toml", "--epsilon", 3, "--server-key", SERVER)
    result = run(*start, "--base", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert "No such file or directory; expected the folder of a base" in result.stderr
    result = run(*start, "--metric", "loss")
    assert (result.exit_code, "allowed_metrics" in result.stderr) == (2, True)
    assert not (tmp_path / "p.toml").exists()


def test_a_policy_is_never_overwritten(tmp_path):
    (tmp_path / "p.toml").write_text("mine")
    result = run("new", tmp_path / "p.toml", "--epsilon", 3, "--server-key", SERVER)
    assert (result.exit_code, "exists; edit it, or choose another place" in result.stderr) == (2, True)
    assert (tmp_path / "p.toml").read_text() == "mine"


def test_a_flag_out_of_range_is_exit_code_2_and_names_the_key(tmp_path):
    result = run("new", tmp_path / "p.toml", "--epsilon", -3, "--server-key", SERVER)
    assert result.exit_code == 2
    assert result.stderr == "error: flags: max_epsilon: Input should be greater than 0\n"
    assert not (tmp_path / "p.toml").exists()


def test_check_says_every_limit_with_its_meaning_and_refuses_a_mistake(tmp_path):
    run("new", tmp_path / "policy.toml", "--epsilon", 8, "--server-key", SERVER)
    result = run("check", tmp_path / "policy.toml")
    assert result.exit_code == 0
    assert (
        "max_epsilon           8.0                      of everything this ledger's people ever give" in result.stdout
    )
    assert "allowed_code          none" in result.stdout
    (tmp_path / "policy.toml").write_text("max_epsilon = 99")
    result = run("check", tmp_path / "policy.toml")
    assert result.exit_code == 3
    assert "version: Field required; " in result.stderr


@pytest.mark.parametrize("command", ["check", "new"])
def test_help_has_examples(command):
    assert f"fedrec privacy policy {command} policy.toml" in run(command, "--help").stdout
