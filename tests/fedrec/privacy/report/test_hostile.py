"""Signed reports whose signer wishes the reader ill: refused or FAILED, soon, and never a traceback."""

import json
import time

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Entry
from fedrec.privacy.report.document import render_json
from fedrec.privacy.report.tally import ledger_facts
from fedrec.privacy.report.verify import Format, check_arithmetic, check_text
from tests.fedrec.cli.report_commands import fedrec, outcomes
from tests.fedrec.privacy.report.made import facts_of, group_of, sign

SOON_S = 20
REFUSED = [
    ({"noise_multiplier": 1e-200}, "noise_multiplier=1e-200: expected 0, or 0.001 to"),
    ({"noise_multiplier": 1e-3, "steps": 10**5, "charged_steps": 10**5}, "by Renyi accounting, expected at most 1000"),
    ({"noise_multiplier": 1e-3, "steps": 10**8, "charged_steps": 10**8}, "less than or equal to 100000"),
    ({"noise_multiplier": 0.02}, "more is no guarantee, and takes for ever to compute"),
    ({"sampling_rate": 1e-6, "steps": 10**8}, "less than or equal to 100000"),
    ({"charges": 0}, "charges: Input should be greater than or equal to 1"),
    ({"charged_steps": 0, "steps": 0}, "charged_steps: Input should be greater than or equal to 1"),
    ({"charged_steps": 4}, "more was released, settled or spent than was charged"),
]


def written(signed, path, *place_and_value):
    """Write a report with one value changed, as its own key would have signed it."""
    *place, value = place_and_value
    document = json.loads(render_json(signed))
    inner = document["report"]
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value if not isinstance(inner[place[-1]], dict) else inner[place[-1]] | value
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("changes", "why"), REFUSED)
def test_events_that_cannot_be_added_up_soon_are_refused(signed, tmp_path, changes, why):
    path = written(signed, tmp_path / "x.json", "facts", "ledgers", 1, "groups", 0, changes)
    began = time.monotonic()
    result = fedrec("verify", path)
    assert result.code == 3
    assert why in result.err
    assert result.err.count("\n") == 1
    assert time.monotonic() - began < SOON_S


def test_a_plan_too_long_to_account_for_is_refused(signed, tmp_path):
    path = written(signed, tmp_path / "x.json", "facts", "plan", {"steps": 2**53, "sampling_rate": 1e-9})
    result = fedrec("verify", path)
    assert result.code == 3
    assert "a plan of 9007199254740992 steps, expected at most 100000" in result.err


@pytest.mark.parametrize(
    ("timeline", "why"),
    [
        ([{"charges": 12, "steps": [12, 0, 1]}], "timeline after charge 12: expected steps of each group"),
        ([{"charges": 12, "steps": [13, 0]}], "timeline after charge 12: expected steps of each group"),
        ([{"charges": 21, "steps": [12, 8]}], "ascending counts up to 20"),
        ([{"charges": 12, "steps": [12, 0]}] * 2, "ascending counts up to 20"),
    ],
)
def test_a_timeline_that_does_not_fit_its_ledger_is_refused(signed, tmp_path, timeline, why):
    result = fedrec("verify", written(signed, tmp_path / "x.json", "facts", "timeline", timeline))
    assert result.code == 3
    assert why in result.err


def test_a_timeline_of_nobody_and_two_ledgers_of_one_name_are_refused(signed, tmp_path):
    for place in (("timeline_of",), ("ledgers", 1, "name")):
        value = "client-00009" if place == ("timeline_of",) else "client-00000"
        result = fedrec("verify", written(signed, tmp_path / "x.json", "facts", *place, value))
        assert result.code == 3
        assert "expected ledgers with different names, and a timeline of one of them" in result.err


def test_more_mechanisms_than_a_ledger_ever_holds_are_refused(plan, policy):
    groups = [group_of(plan, charges=1, noise_multiplier=5.0 + at) for at in range(1001)]
    with pytest.raises(ValueError, match="1001 mechanisms, expected at most 1000"):
        facts_of(plan, policy, ("client-00000", groups))


@pytest.mark.parametrize("error", [ValueError("zip"), OverflowError("34"), ZeroDivisionError("0"), KeyError("3")])
def test_arithmetic_that_breaks_down_is_a_failure_and_no_bug(signed, monkeypatch, error):
    def broken(facts):
        raise error

    monkeypatch.setattr("fedrec.privacy.report.verify.findings_of", broken)
    found = check_arithmetic(signed)
    assert found.outcome == "FAILED"
    assert "the stated events cannot be added up" in found.detail


def test_findings_that_cannot_be_printed_fail_the_text(signed, key):
    lie = sign(signed.report.facts, key, signed.report.findings.model_copy(update={"epsilon_for_person_at": {}}))
    found = check_text("", lie, Format.HTML)
    assert found.outcome == "FAILED"
    assert "the document contradicts itself: KeyError" in found.detail


def test_a_number_without_a_canonical_spelling_was_signed_by_nobody(signed, tmp_path):
    path = written(signed, tmp_path / "x.json", "findings", "registry", {"deployment": float("nan")})
    assert outcomes(path)[1]["signature"] == "FAILED"


def test_a_policy_that_allows_rounds_without_end_is_reported_soon(plan, policy, key):
    endless = {
        "max_rounds_total": 2**53,
        "max_steps_total": 2**53,
        "max_sampling_rate": 1.0,
        "min_noise_multiplier": 1.0,
    }
    group = group_of(plan, charges=1, noise_multiplier=50.0, sampling_rate=1e-3)
    began = time.monotonic()
    facts = facts_of(plan, policy.model_copy(update=endless), ("a.sqlite", (group,)), source="ledger")
    headroom = sign(facts, key).report.findings.headroom
    assert (headroom.rounds_left, headroom.stops_because) == (100_000, "how far this forecast looks")
    assert time.monotonic() - began < SOON_S


def test_a_ledger_beyond_what_a_report_can_state_is_one_line():
    charge = (1, 0, "d", "", "training", "p", "", "run-1/1", "reserved", 1e-4, 0.5, 1, None, None, 1.0, 1e-5, "", "")
    with pytest.raises(PrivacyError, match=r"charges of run run-1: .*noise_multiplier=0.0001.*no report can state it"):
        ledger_facts([Entry(*charge, "0" * 64, "1" * 64)], name="a")
