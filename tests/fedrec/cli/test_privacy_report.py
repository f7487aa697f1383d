"""``fedrec privacy report`` and ``verify`` on a client's ledger."""

import json
import shutil
import stat

import pytest

from fedrec.privacy.ledger import Kind, Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy, load_policy, write_policy
from fedrec.privacy.report.facts import facts_of_ledger
from fedrec.privacy.report.verify import check_ledgers
from fedrec.signing import SigningKey
from tests.fedrec.cli.report_commands import CHECKS, fedrec, outcomes


@pytest.fixture(scope="module")
def plan():
    return PrivacyPlan.calibrate(
        8.0,
        1e-5,
        sampling_rate=0.25,
        rounds=30,
        local_steps=1,
        clip_norm=1.0,
        clipping="flat",
        expected_people=60,
        metric_releases=2,
        metric_noise_multiplier=30.0,
    )


@pytest.fixture
def ledger(tmp_path, plan):
    """Twelve rounds of training, one of them settled, and one release of metrics."""
    policy = Policy.for_plan(plan, base="a" * 64, code="b" * 64, server_key="c" * 64, metrics=("ndcg@10",))
    write_policy(policy, tmp_path / "policy.toml")
    files = LedgerFiles.beside(tmp_path / "ledger.sqlite")
    book = Ledger.create(files, dataset="d" * 64, policy=policy, durable=False)
    for place in range(12):
        book.charge(f"run-1/{place}", plan.training(1), plan=plan)
        if place != 7:
            book.release(f"run-1/{place}")
    book.charge("run-1/metrics/11", plan.metrics_release(), plan=plan, kind=Kind.METRICS)
    settled = next(entry for entry in book.entries() if entry.round_id == "run-1/7")
    book.settle(settled.sequence, steps=0, reason="the machine stopped before training")
    return files.ledger


def report_of(ledger, *flags):
    assert fedrec("report", ledger, *flags).code == 0
    return ledger.with_name("ledger.privacy.html")


def test_one_report_of_a_ledger_prints_its_path_and_the_verdict(ledger):
    result = fedrec("report", ledger)
    assert result.code == 0
    path, verdict = result.out.splitlines()
    assert path == str(ledger.with_name("ledger.privacy.html"))
    assert verdict.startswith(
        "ledger.sqlite: Within the policy, with room for more rounds. The client has spent epsilon"
    )
    for word in ("delta 1e-05", "person at a client", "add or remove one person", "dp-accounting"):
        assert word in verdict


def test_what_the_report_states_is_what_the_ledger_spent(ledger, plan):
    shown = json.loads(fedrec("report", ledger, "--json").out)
    policy_spent = Ledger.open(LedgerFiles.beside(ledger), dataset=None, policy=None).spendings()
    from fedrec.privacy.accounting import composed_epsilon, round_up

    assert shown["guarantee"]["epsilon"] == round_up(composed_epsilon(policy_spent, 1e-5))
    assert shown["guarantee"]["steps"] == 11  # the settled round took none
    assert shown["guarantee"]["noise_multiplier"] == plan.noise_multiplier
    assert set(shown) == {"verdict", "guarantee", "headroom", "files", "public_key"}


def test_every_format_verifies_and_holds_the_same_document(ledger):
    result = fedrec("report", ledger, "--format", "all")
    paths = result.out.splitlines()[:-1]
    assert [path.rpartition(".")[2] for path in paths] == ["html", "json", "md"]
    public = SigningKey.load(ledger.with_name("operator.key")).public
    for path in paths:
        code, checks = outcomes(path, "--public-key", public)
        assert code == 0
        assert checks == dict.fromkeys(CHECKS, "ok")


def test_the_same_format_named_twice_is_written_once(ledger):
    lines = fedrec("report", ledger, "--format", "md", "--format", "md").out.splitlines()
    assert len(lines) == 2


@pytest.mark.parametrize("form", ["html", "json", "md"])
def test_a_report_with_one_changed_digit_exits_three(ledger, form):
    assert fedrec("report", ledger, "--format", form).code == 0
    path = ledger.with_name(f"ledger.privacy.{form}")
    text = path.read_text(encoding="utf-8")
    digits = [at for at, sign in enumerate(text) if sign.isdigit()]
    for at in digits[:: len(digits) // 12]:
        path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")
        assert fedrec("verify", path).code == 3, text[at - 30 : at + 30]
    path.write_text(text, encoding="utf-8")
    assert fedrec("verify", path).code == 0


def test_the_key_that_signs_is_made_once_and_for_its_owner_alone(ledger, tmp_path):
    key = tmp_path / "officer.key"
    report = report_of(ledger, "--sign-with", key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = SigningKey.load(key).public
    report_of(ledger, "--sign-with", key)
    assert SigningKey.load(key).public == public
    assert outcomes(report, "--public-key", public)[1]["signer"] == "ok"


def test_a_report_signed_by_another_key_than_the_one_named_exits_three(ledger):
    code, checks = outcomes(report_of(ledger), "--public-key", "0" * 64)
    assert code == 3
    assert checks["signer"] == "FAILED"
    assert checks["signature"] == "ok"


def test_without_ledger_and_key_the_rest_is_checked_and_the_gap_is_named(ledger, tmp_path):
    (tmp_path / "mail").mkdir()
    away = shutil.copy(report_of(ledger), tmp_path / "mail" / "privacy.html")
    result = fedrec("verify", away)
    assert result.code == 0
    lines = {line.split(":")[0]: line for line in result.out.splitlines()}
    assert "not checked  none at hand; name it with --run or --ledger" in lines["ledger"]
    assert "not checked  anyone can make a key; name the operator's with --public-key" in lines["signer"]
    assert outcomes(away, "--ledger", ledger)[1]["ledger"] == "ok"


def test_a_ledger_that_went_on_still_fits_and_says_by_how_much(ledger, plan):
    report = report_of(ledger)
    policy = Policy.for_plan(plan, base="a" * 64, code="b" * 64, server_key="c" * 64, metrics=("ndcg@10",))
    book = Ledger.open(LedgerFiles.beside(ledger), dataset=None, policy=policy, durable=False)
    book.charge("run-1/12", plan.training(1), plan=plan)
    result = fedrec("verify", report)
    assert result.code == 0
    assert "1 entries were added since" in result.out


def test_a_policy_other_than_the_ledgers_own_is_named_in_verdict_and_check(ledger, tmp_path):
    policy = load_policy(tmp_path / "policy.toml")
    write_policy(policy.model_copy(update={"max_epsilon": 30.0, "max_delta": 0.01}), tmp_path / "other.toml")
    result = fedrec("report", ledger, "--policy", tmp_path / "other.toml")
    assert result.code == 0
    assert "But the policy stated here is not the newest on record." in result.out
    found = fedrec("verify", ledger.with_name("ledger.privacy.html"))
    assert "the policy stated is not the newest on record in 1 of them" in found.out
    assert "not the newest on record" not in fedrec("report", ledger).out
    assert "not the newest on record" not in fedrec("verify", ledger.with_name("ledger.privacy.html")).out


def test_a_report_that_hides_the_ledgers_policy_fails(ledger):
    facts = facts_of_ledger(LedgerFiles.beside(ledger), load_policy(ledger.with_name("policy.toml")))
    entries = Ledger.open(LedgerFiles.beside(ledger), dataset=None, policy=None).entries()
    assert check_ledgers(facts, {ledger.name: entries}).outcome == "ok"
    (one,) = facts.ledgers
    hidden = facts.model_copy(update={"ledgers": (one.model_copy(update={"policies": ("9" * 64,)}),)})
    assert check_ledgers(hidden, {ledger.name: entries}).outcome == "FAILED"


def test_a_ledger_that_was_started_anew_fails(ledger, plan, tmp_path):
    report = report_of(ledger)
    (tmp_path / "other").mkdir()
    other = LedgerFiles.beside(tmp_path / "other" / "ledger.sqlite")
    Ledger.create(other, dataset="d" * 64, policy=None, durable=False)
    result = fedrec("verify", report, "--ledger", other.ledger)
    assert result.code == 3
    assert "the report counted 26: the ledger was rolled back" in result.out


def test_another_ledger_of_the_same_length_fails(ledger, plan, tmp_path):
    report = report_of(ledger)
    (tmp_path / "other").mkdir()
    other = LedgerFiles.beside(tmp_path / "other" / "ledger.sqlite")
    policy = Policy.for_plan(plan, base="a" * 64, code="b" * 64, server_key="c" * 64, metrics=("ndcg@10",))
    book = Ledger.create(other, dataset="d" * 64, policy=policy, durable=False)
    for place in range(25):
        book.charge(f"run-1/{place}", plan.training(1), plan=plan)
    result = fedrec("verify", report, "--ledger", other.ledger)
    assert result.code == 3
    assert "the head is not in its chain" in result.out


def test_an_altered_ledger_fails_with_the_ledgers_own_words(ledger):
    report = report_of(ledger)
    ledger.with_suffix(".key").write_text("0" * 64 + "\n", encoding="ascii")
    result = fedrec("verify", report)
    assert result.code == 3
    assert "ledger:      FAILED" in result.out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["gone.sqlite"], 3, "gone.sqlite: no ledger here; expected an existing one"),
        (["ledger.sqlite", "--policy", "gone.toml"], 3, "gone.toml: no policy"),
        (["ledger.sqlite", "--format", "all", "--out", "x"], 2, "--out x: one file for 3 formats"),
        (["."], 2, "neither a run folder (no agreement.json) nor a ledger file"),
    ],
)
def test_a_report_of_what_cannot_be_read_is_one_line(ledger, monkeypatch, flags, code, message):
    monkeypatch.chdir(ledger.parent)
    result = fedrec("report", *flags)
    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_ledger_with_noise_needs_a_policy(ledger):
    (ledger.parent / "policy.toml").unlink()
    result = fedrec("report", ledger)
    assert result.code == 2
    assert "epsilon is stated at a policy's delta; name the policy with --policy" in result.err


def test_verify_of_what_is_no_report_exits_two(tmp_path):
    assert fedrec("verify", tmp_path / "gone.html").code == 2
    (tmp_path / "x.html").write_text("hello", encoding="utf-8")
    result = fedrec("verify", tmp_path / "x.html")
    assert result.code == 2
    assert "no signed report inside" in result.err


def test_run_and_ledger_together_are_one_too_many(tmp_path):
    result = fedrec("verify", tmp_path / "x.html", "--run", tmp_path, "--ledger", tmp_path / "x")
    assert result.code == 2
    assert "--run and --ledger: expected one of them" in result.err
