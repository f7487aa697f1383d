"""``fedrec privacy report`` and ``verify`` on a tiny run."""

import json
import shutil
import tomllib

import pytest

from fedrec.code import code_digest
from fedrec.privacy.report.facts import facts_of_run
from fedrec.privacy.report.findings import findings_of
from fedrec.privacy.report.verify import Format, render
from fedrec.signing import SigningKey
from tests.fedrec.cli.report_commands import CHECKS, fedrec, outcomes
from tests.fedrec.privacy.report.made import sign
from tests.tiny_run import Bench


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    bench = Bench.at(tmp_path_factory.mktemp("private"))
    assert bench.simulate().exit_code == 0
    return bench.out


@pytest.fixture
def run(private_run, tmp_path):
    """A run of one's own to damage."""
    shutil.copytree(private_run, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_reported_and_verified_with_its_own_key_and_ledgers(run):
    result = fedrec("report", run, "--format", "all")
    assert result.code == 0
    assert "Within the policy; no further round fits." in result.out
    for form in ("html", "json", "md"):
        assert outcomes(run / f"privacy.{form}") == (0, dict.fromkeys(CHECKS, "ok"))
    clients = json.loads((run / "privacy.json").read_text(encoding="utf-8"))["report"]["findings"]["clients"]
    assert [row["name"] for row in clients] == [f"client-{at:05d}" for at in range(4)]


def test_the_report_of_a_run_agrees_with_its_summary(run):
    shown = json.loads(fedrec("report", run, "--json").out)["guarantee"]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))["privacy"]
    for name in ("delta", "unit", "relation", "accountant", "noise_multiplier", "clip_norm", "sampling_rate", "steps"):
        assert shown[name] == summary[name], name
    assert shown["epsilon"] == pytest.approx(summary["epsilon"], abs=1e-4)
    assert shown["epsilon"] >= summary["epsilon"]


def test_a_client_without_its_ledger_leaves_no_report(run):
    (run / "ledger" / "client-00002.sqlite").unlink()
    result = fedrec("report", run)
    assert result.code == 3
    assert "the ledger was lost" in result.err


def test_clients_are_those_of_the_workspace_whatever_the_settings_say(run):
    assert fedrec("report", run, "--format", "json").code == 0
    text = (run / "config.toml").read_text(encoding="utf-8")
    (run / "config.toml").write_text(text.replace("clients = 4", "clients = 1"), encoding="utf-8")
    assert (run / "config.toml").read_text(encoding="utf-8") != text
    facts = facts_of_run(run)
    assert len(facts.ledgers) == 4
    few = facts.model_copy(update={"ledgers": facts.ledgers[:1], "timeline_of": facts.ledgers[0].name})
    signed = sign(few, SigningKey.load(run / "keys" / "operator.key"), findings_of(facts))
    (run / "few.json").write_text(render(signed, Format.JSON), encoding="utf-8")
    assert outcomes(run / "few.json")[1]["ledger"] == "FAILED"
    assert outcomes(run / "privacy.json") == (0, dict.fromkeys(CHECKS, "ok"))


@pytest.mark.parametrize(
    "trace", ["ledger/client-00004.sqlite", "keys/client-00004.key", "workspace/witness/client-00004.json"]
)
def test_traces_of_a_client_that_the_workspace_does_not_have_are_refused(run, trace):
    (run / trace).write_bytes(b"")
    result = fedrec("report", run)
    assert result.code == 3
    assert f"{trace}: of a client that the workspace does not have, expected 4 clients" in result.err


def test_the_code_that_wrote_the_report_and_the_code_that_could_train_are_told_apart(run):
    policy = tomllib.loads((run / "policy.toml").read_text(encoding="utf-8"))
    assert fedrec("report", run, "--format", "md").code == 0
    lines = (run / "privacy.md").read_text(encoding="utf-8").splitlines()
    wrote = next(line for line in lines if "code that wrote this report" in line)
    could = next(line for line in lines if "code that could train" in line)
    assert code_digest() in wrote
    assert policy["allowed_code"][0] in could
    assert not any(line.startswith("| code |") for line in lines)


def test_a_run_folder_takes_no_ledger_flags(run):
    result = fedrec("report", run, "--policy", "policy.toml")
    assert result.code == 2
    assert "a run folder has its own; expected them with a LEDGER only" in result.err


def test_the_audit_beside_a_run_is_in_its_report(run):
    from fedrec.agreement import read_agreement

    audit = {
        "plan": read_agreement(run).plan.digest(),
        "base": read_agreement(run).base_digest,
        "code": code_digest(),
        "canaries": 500,
        "strict_epsilon": 2.5,
        "gdp_epsilon": 6.5,
        "gdp_mu": 1.4,
        "claimed_epsilon": 8.0,
        "delta": 1e-5,
        "passed": True,
        "checks": [{"name": "noise scale", "passed": True, "detail": ""}],
        "seconds": 5.0,
        "versions": {},
    }
    (run / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    assert fedrec("report", run, "--format", "md").code == 0
    assert "500 canaries through the real engine: at least epsilon 2.5" in (run / "privacy.md").read_text("utf-8")
    (run / "audit.json").write_text(json.dumps(audit | {"code": "0" * 64}), encoding="utf-8")
    assert fedrec("report", run, "--format", "md").code == 0
    text = (run / "privacy.md").read_text("utf-8")
    assert "500 canaries" not in text
    assert "is of code 000000000000, which the policy does not allow" in text
    (run / "audit.json").write_text("{}", encoding="utf-8")
    result = fedrec("report", run)
    assert result.code == 2
    assert "audit.json: not a usable audit" in result.err


def test_a_run_without_noise_is_stamped_and_still_verifies(tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--no-dp").exit_code == 0
    result = fedrec("report", bench.out)
    assert result.code == 0
    assert "NOT PRIVATE" in result.out
    assert "epsilon" not in result.out
    assert outcomes(bench.out / "privacy.html") == (0, dict.fromkeys(CHECKS, "ok"))
