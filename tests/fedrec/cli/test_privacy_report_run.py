"""``fedrec privacy report`` and ``verify`` on a tiny run."""

import json
import shutil

import pytest

from tests.fedrec.cli.report_commands import CHECKS, fedrec, outcomes
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


def test_a_run_folder_takes_no_ledger_flags(run):
    result = fedrec("report", run, "--policy", "policy.toml")
    assert result.code == 2
    assert "a run folder has its own; expected them with a LEDGER only" in result.err


def test_the_audit_beside_a_run_is_in_its_report(run):
    from fedrec.agreement import read_agreement

    audit = {
        "plan": read_agreement(run).plan.digest(),
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
