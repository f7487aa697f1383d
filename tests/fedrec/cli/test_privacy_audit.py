"""``fedrec privacy audit``: what it prints, what it writes, and when it exits with 3."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fedrec.agreement import read_agreement
from fedrec.cli.privacy_audit import AUDIT_EXAMPLES, _of_defaults, audit_command
from fedrec.code import code_digest
from fedrec.config import Config
from fedrec.privacy.audit.suite import CANARIES
from fedrec.privacy.randomness import SecureRandom
from tests.tiny_ranker import histories, open_plan, private_plan, run_folder
from tests.tiny_run import Outcome


def audit(*arguments: str) -> Outcome:
    app = typer.Typer(rich_markup_mode=None)
    app.command("audit", epilog=AUDIT_EXAMPLES)(audit_command)
    app.command("other")(lambda: None)
    found = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Outcome(found.exit_code, found.stdout, found.stderr)


@pytest.fixture
def make_run(tmp_path):
    def make(plan=None):
        run_folder(tmp_path / "run", histories(5, 9, 3, 14), [np.array([0, 3]), np.array([1, 2])], plan=plan)
        return tmp_path / "run"

    return make


def test_run_is_audited_under_its_own_plan_and_the_result_is_kept(make_run):
    run = make_run(private_plan())
    outcome = audit(run, "--canaries", "300")
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    stored = json.loads((run / "audit.json").read_text())
    assert stored["plan"] == read_agreement(run).plan.digest()
    assert stored["base"] == read_agreement(run).base_digest
    assert stored["code"] == code_digest()
    assert (stored["canaries"], stored["passed"], stored["claimed_epsilon"]) == (300, True, 8.0)
    assert stored["strict_epsilon"] < 8
    assert "20 of 20 checks hold with 300 canaries: the claim stands" in outcome.stdout
    assert f"Claim: {private_plan().statement()}" in outcome.stdout
    for check in stored["checks"]:
        assert f"ok      {check['name']}\n        {check['detail']}" in outcome.stdout


def test_json_prints_exactly_what_is_written(make_run):
    run = make_run(private_plan())
    outcome = audit(run, "--canaries", "100", "--json")
    assert json.loads(outcome.stdout) == json.loads((run / "audit.json").read_text())


def test_nothing_but_the_audit_is_written_into_the_run(make_run):
    run = make_run(private_plan())
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    audit(run, "--canaries", "100")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {run / "audit.json"}
    assert all(after[path] == content for path, content in before.items())


def test_sabotaged_engine_exits_with_3_and_still_tells_and_writes_what_failed(make_run, monkeypatch):
    run, honest = make_run(private_plan()), SecureRandom.normal
    monkeypatch.setattr(SecureRandom, "normal", lambda self, size: 0.5 * honest(self, size))
    outcome = audit(run, "--json")
    assert outcome.exit_code == 3
    assert outcome.stderr.startswith("error: the audit failed: ")
    assert "noise of steps without contributions" in outcome.stderr
    assert outcome.stderr.endswith("do not rely on the claim\n")
    assert json.loads(outcome.stdout)["passed"] is False
    assert json.loads((run / "audit.json").read_text())["passed"] is False
    assert "the claim does NOT stand" in audit(run).stdout


def test_run_without_privacy_has_nothing_to_audit(make_run):
    run = make_run(open_plan())
    outcome = audit(run)
    assert (outcome.exit_code, outcome.stdout) == (3, "")
    assert outcome.stderr == "error: nothing to audit: no noise; the plan is stamped NOT PRIVATE\n"
    assert not (run / "audit.json").exists()


def test_folder_without_a_run_is_a_one_line_error(tmp_path):
    outcome = audit(tmp_path)
    assert outcome.exit_code == 2
    assert "not a usable agreement" in outcome.stderr


def test_too_few_canaries_are_refused():
    outcome = audit("--canaries", "5")
    assert outcome.exit_code == 3
    assert outcome.stderr == "error: canaries=5: expected at least 20; raise --canaries or max_people\n"


def test_without_a_run_the_default_plan_and_adapter_are_audited():
    agreement, ranker = _of_defaults()
    privacy, federation = Config().privacy, Config().federation
    plan = agreement.plan
    assert (plan.epsilon, plan.delta) == (privacy.epsilon, privacy.delta)
    assert (plan.sampling_rate, plan.rounds) == (privacy.sampling_rate, federation.rounds)
    assert agreement.adapter.kind == Config().adapter.kind
    assert ranker.items == 200
    outcome = audit("--json")
    assert outcome.exit_code == 0
    document = json.loads(outcome.stdout)
    assert (document["plan"], document["base"], document["code"]) == (plan.digest(), None, code_digest())
    assert document["canaries"] == CANARIES


def test_help_shows_examples():
    shown = audit("--help").stdout
    assert "fedrec privacy audit runs/eps3" in shown
    assert str(CANARIES) in shown
