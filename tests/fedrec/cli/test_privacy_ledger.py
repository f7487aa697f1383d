import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.cli.privacy_ledger import ledger_app
from fedrec.data.histories import Histories
from fedrec.privacy.ledger import Kind, Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import write_policy
from fedrec.signing import SigningKey
from fedrec.workspace import write_workspace
from tests.fedrec.privacy.ledgers import DATA, generous, rewrite, signed_head

STATEMENT = "at delta 1e-05, per person at a client (add or remove one person), by dp-accounting "


def run(*arguments: object, app=ledger_app):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def plan() -> PrivacyPlan:
    return PrivacyPlan(
        epsilon=8.0,
        delta=1e-5,
        noise_multiplier=2.0,
        sampling_rate=0.25,
        steps=30,
        local_steps=2,
        clip_norm=1.0,
        clipping="flat",
        expected_people=80,
        metric_releases=2,
        metric_noise_multiplier=10.0,
    )


@pytest.fixture
def ledger(tmp_path: Path, plan: PrivacyPlan) -> Ledger:
    """Two rounds, one of them released, one metric release, and a policy beside it."""
    policy = generous(plan)
    write_policy(policy, tmp_path / "policy.toml")
    ledger = Ledger.create(LedgerFiles.beside(tmp_path / "ledger.sqlite"), dataset=DATA, policy=policy)
    ledger.charge("run/1", plan.training(2), plan=plan)
    ledger.release("run/1")
    ledger.charge("run/metrics/1", plan.metrics_release(), plan=plan, kind=Kind.METRICS)
    ledger.charge("run/2", plan.training(2), plan=plan)
    return ledger


def test_show_states_what_was_spent_whole_and_what_the_policy_leaves(ledger):
    result = run("show", ledger.files.ledger)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("spent          epsilon ")
    assert f" of 8 {STATEMENT}" in result.stdout
    assert "mechanism      4 steps, noise multiplier 2, sampling rate 0.25" in result.stdout
    assert "mechanism      1 steps, noise multiplier 10, sampling rate 1" in result.stdout
    assert "charges        3, of which released 1, settled 0" in result.stdout
    assert "countersigned  none yet" in result.stdout
    assert "4  reserved  1 steps    run/metrics/1 (metrics)" in result.stdout


def test_show_as_json_has_every_entry_and_agrees_with_the_ledger(ledger):
    document = json.loads(run("show", ledger.files.ledger, "--json").stdout)
    (facts,) = document["ledgers"]
    assert facts["epsilon"] >= ledger.spent() > facts["epsilon"] - 1e-4
    assert (facts["delta"], facts["unit"], facts["relation"]) == (
        1e-5,
        "person at a client",
        "add or remove one person",
    )
    assert (facts["head"], facts["private"], facts["max_epsilon"]) == (ledger.head(), True, 8.0)
    assert [entry["state"] for entry in facts["entries"]] == ["opened", "reserved", "released", "reserved", "reserved"]


def test_show_without_a_policy_says_that_nothing_limits_it(ledger, tmp_path):
    (tmp_path / "policy.toml").unlink()
    text = run("show", ledger.files.ledger).stdout
    assert STATEMENT in text
    assert "(no policy given: nothing says how much is allowed)" in text


def test_show_names_the_newest_entries_when_there_are_many(ledger, plan):
    for index in range(3, 13):
        ledger.charge(f"run/{index}", plan.training(1), plan=plan)
    text = run("show", ledger.files.ledger).stdout
    assert "newest 10 of 15 entries; all with --json" in text
    assert "run/12" in text
    assert "run/metrics/1" not in text


def test_show_of_an_empty_ledger_and_of_one_without_noise(tmp_path, plan):
    files = LedgerFiles.beside(tmp_path / "x.sqlite")
    ledger = Ledger.create(files, dataset=DATA, policy=None)
    assert "spent          nothing spent" in run("show", files.ledger).stdout
    assert json.loads(run("show", files.ledger, "--json").stdout)["ledgers"][0]["epsilon"] == 0.0
    loud = PrivacyPlan.without_privacy(
        sampling_rate=0.25, rounds=3, local_steps=1, clip_norm=1.0, clipping="flat", expected_people=80
    )
    ledger.charge("run/1", loud.training(1), plan=loud)
    assert "spent          NOT PRIVATE: steps without noise are on record" in run("show", files.ledger).stdout
    (facts,) = json.loads(run("show", files.ledger, "--json").stdout)["ledgers"]
    assert (facts["private"], facts["epsilon"]) == (False, None)


def test_key_witness_and_policy_may_lie_elsewhere(ledger, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [shutil.move(path, elsewhere / path.name) for path in (ledger.files.key, ledger.files.witness)]
    shutil.move(tmp_path / "policy.toml", elsewhere / "limits.toml")
    assert run("show", ledger.files.ledger).exit_code == 3
    options = ("--key", moved[0], "--witness", moved[1], "--policy", elsewhere / "limits.toml")
    assert " of 8 at delta" in run("show", ledger.files.ledger, *options).stdout


def test_verify_passes_an_intact_ledger(ledger):
    result = run("verify", ledger.files.ledger)
    assert result.exit_code == 0
    assert result.stdout == f"ok     {ledger.files.ledger}: 5 entries, no server has countersigned it yet\n"


def test_verify_checks_the_countersignature_against_the_policy(ledger, plan, tmp_path):
    head, signature, server = signed_head(ledger, tmp_path)
    pinned = generous(plan, server_key=server)
    Ledger.open(ledger.files, dataset=DATA, policy=pinned).accept_countersigned(head, signature, server_key=server)
    result = run("verify", ledger.files.ledger)
    assert result.exit_code == 3
    assert "FAILED " in result.stdout
    assert "the countersigned head was not signed by the policy's server_key" in result.stdout
    write_policy(pinned, tmp_path / "policy.toml")
    assert (
        "5 entries, countersigned head is in it and signed by the policy's server"
        in run("verify", ledger.files.ledger).stdout
    )
    assert "countersigned  entry 5" in run("show", ledger.files.ledger).stdout


def test_verify_fails_an_altered_ledger_with_exit_code_3(ledger):
    rewrite(ledger.files.ledger, "UPDATE entries SET steps = 1 WHERE sequence = 2")
    result = run("verify", ledger.files.ledger, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert not document["ok"]
    assert document["ledgers"][0]["detail"].startswith("entry 2 was altered")
    assert result.stderr == "error: 1 of 1 ledgers failed: do not train until this is explained\n"
    assert run("show", ledger.files.ledger).exit_code == 3


def test_a_lost_witness_is_made_anew_only_on_request(ledger):
    ledger.files.witness.unlink()
    assert "witness is missing" in run("verify", ledger.files.ledger).stdout
    result = run("verify", ledger.files.ledger, "--accept-head")
    assert result.exit_code == 0
    assert "accepted entry 5 as the newest: lines missing after it can no longer be noticed here" in result.stderr
    assert run("verify", ledger.files.ledger).exit_code == 0


def test_a_damaged_witness_is_made_anew_and_an_intact_one_never(ledger):
    ledger.files.witness.write_text("{}")
    assert run("verify", ledger.files.ledger, "--accept-head").exit_code == 0
    rewrite(ledger.files.ledger, "DELETE FROM entries WHERE sequence = 5")
    result = run("verify", ledger.files.ledger, "--accept-head")
    assert result.exit_code == 3
    assert "the witness is intact; expected a missing or damaged one" in result.stderr
    assert "rolled back" in run("verify", ledger.files.ledger).stdout


def test_a_witness_is_not_made_anew_over_an_altered_ledger(ledger):
    ledger.files.witness.unlink()
    rewrite(ledger.files.ledger, "UPDATE entries SET steps = 1 WHERE sequence = 2")
    result = run("verify", ledger.files.ledger, "--accept-head")
    assert result.exit_code == 3
    assert f"error: {ledger.files.ledger}: entry 2 was altered" in result.stderr
    assert not ledger.files.witness.exists()


def test_a_backup_takes_the_ledgers_place(ledger, tmp_path):
    result = run("backup", ledger.files.ledger, tmp_path / "copy.sqlite")
    assert result.exit_code == 0, result.output
    assert "bytes, verified; the key and the witness are not in it" in result.stdout
    (tmp_path / "copy.sqlite").replace(ledger.files.ledger)
    assert run("verify", ledger.files.ledger).exit_code == 0
    result = run("backup", ledger.files.ledger, ledger.files.ledger)
    assert (result.exit_code, "exists; choose another place" in result.stderr) == (3, True)
    assert json.loads(run("backup", ledger.files.ledger, tmp_path / "c2", "--json").stdout)["bytes"] > 0


def test_reconcile_gives_back_what_was_not_used_with_a_reason_on_record(ledger, plan):
    before = ledger.spent()
    result = run("reconcile", ledger.files.ledger, "--entry", 5, "--steps", 1, "--reason", "power cut")
    assert result.exit_code == 0, result.output
    assert "settled   1 steps    run/2  power cut" in result.stdout
    assert "charges        3, of which released 1, settled 1" in result.stdout
    assert ledger.spent() < before
    result = run("reconcile", ledger.files.ledger, "--entry", 2, "--steps", 1, "--reason", "power cut")
    assert result.exit_code == 3
    assert "entry 2: released; expected one that is reserved and was never released" in result.stderr


@pytest.fixture
def folder(tmp_path, plan) -> Path:
    """What ``fedrec simulate`` leaves of three clients' ledgers."""
    from fedrec.workspace import ledger_files

    run_folder = tmp_path / "run"
    for name in ("ledger", "keys", "workspace/witness"):
        (run_folder / name).mkdir(parents=True)
    policy = generous(plan)
    write_policy(policy, run_folder / "policy.toml")
    for partition in range(3):
        ledger = Ledger.create(ledger_files(run_folder, partition), dataset=str(partition), policy=policy)
        for index in range(partition):
            ledger.charge(f"run/{index}", plan.training(2), plan=plan)
    SigningKey.create(run_folder / "keys" / "server.key")
    return run_folder


def test_a_run_is_shown_a_line_for_each_client(folder):
    lines = run("show", folder).stdout.splitlines()
    assert [line.split(";")[0] for line in lines] == [f"client-0000{index}: {index} charges" for index in range(3)]
    assert all(STATEMENT in line for line in lines)
    assert len(json.loads(run("show", folder, "--json").stdout)["ledgers"]) == 3


def test_a_ledger_that_a_run_lost_fails_the_whole_run(folder):
    assert run("verify", folder).exit_code == 0
    (folder / "ledger" / "client-00002.sqlite").unlink()
    result = run("verify", folder)
    assert result.exit_code == 3
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok", "ok", "FAILED"]
    assert "a lost ledger is never a fresh budget" in result.stdout
    assert "1 of 3 ledgers failed" in result.stderr


def test_a_client_whose_ledger_and_key_are_both_gone_is_missed(folder):
    """The witness still knows of it; and where that is gone too, the people that the run was prepared with."""
    for name in ("ledger/client-00002.sqlite", "keys/client-00002.key"):
        (folder / name).unlink()
    assert run("verify", folder).exit_code == 3
    (folder / "workspace" / "witness" / "client-00002.json").unlink()
    assert run("verify", folder).exit_code == 0  # nothing here says that there were three
    write_workspace(folder, Histories.from_lists([[0, 1]] * 3), [np.array([person]) for person in range(3)])
    result = run("verify", folder)
    assert (result.exit_code, "1 of 3 ledgers failed" in result.stderr) == (3, True)


def test_a_charge_of_one_client_of_a_run_is_settled(folder):
    arguments = ("reconcile", folder, "--entry", 2, "--steps", 0, "--reason", "never begun")
    assert run(*arguments, "--client", 2).exit_code == 0
    for wrong, message in (
        ((), "--client: goes with the folder of a run, and a run needs it"),
        (("--client", 3), "--client 3: expected 0 to 2"),
        (("--client", -1), "--client -1: expected 0 to 2"),
    ):
        result = run(*arguments, *wrong)
        assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_flags_that_do_not_fit_are_one_line_and_exit_code_2(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (("verify", folder, "--accept-head"), "--accept-head: takes one LEDGER, not a run"),
        (("show", folder, "--key", "x"), "--key, --witness: go with a LEDGER; a run knows where its own are"),
        (("show", tmp_path / "empty"), f"{tmp_path / 'empty'}: expected a ledger, or the folder of a run"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")


def test_a_ledger_that_is_not_there_is_a_refusal(tmp_path):
    result = run("show", tmp_path / "x.sqlite")
    assert (result.exit_code, "no ledger here; expected an existing one" in result.stderr) == (3, True)


@pytest.mark.parametrize("command", ["show", "verify", "backup", "reconcile"])
def test_help_has_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"fedrec privacy ledger {command}" in result.stdout


def test_looking_at_one_ledger_needs_no_torch(ledger):
    code = (
        "import sys; from typer.testing import CliRunner; from fedrec.cli.privacy_ledger import ledger_app; "
        f"result = CliRunner().invoke(ledger_app, ['verify', {str(ledger.files.ledger)!r}]); "
        "print(result.exit_code, 'torch' in sys.modules, 'dp_accounting' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "0 False False\n"
