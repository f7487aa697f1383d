import json

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.report.document import Signed, canonical, render_json


def changed(signed, path, value):
    """The document as JSON with one value replaced."""
    values = json.loads(render_json(signed))
    place = values
    for name in path[:-1]:
        place = place[name]
    assert place[path[-1]] != value
    place[path[-1]] = value
    return json.dumps(values)


def test_a_signed_report_reads_back_equal_and_genuine(signed):
    again = Signed.parse(render_json(signed))
    assert again == signed
    assert again.is_genuine()
    assert render_json(again) == render_json(signed)


def test_canonical_json_is_sorted_compact_and_without_infinities(signed):
    text = canonical(signed.report).decode()
    values = json.loads(text)
    assert text == json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("report", "findings", "guarantee", "epsilon"), 0.0001),
        (("report", "facts", "made_at"), "2026-01-02T03:04:06Z"),
        (("report", "facts", "ledgers", 0, "groups", 0, "charged_steps"), 13),
        (("public_key",), "0" * 64),
        (("signature",), "0" * 128),
    ],
)
def test_any_change_leaves_the_report_unsigned(signed, path, value):
    assert not Signed.parse(changed(signed, path, value)).is_genuine()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("report", "facts", "surprise"), 1, "report.facts.surprise: Extra inputs are not permitted"),
        (("report", "findings", "guarantee", "epsilon"), float("inf"), "epsilon: Input should be a finite number"),
        (("report", "findings", "guarantee", "epsilon"), "8", "epsilon: Input should be a valid number"),
        (("report", "facts", "ledgers", 0, "groups", 0, "steps"), 10**12, "less than or equal to 100000"),
        (("report", "findings", "headroom", "epsilon_limit"), 0.0, "epsilon_limit: Input should be greater than 0"),
        (("report", "findings", "epsilon_for_person_at"), {"3": 1.0}, "expected an epsilon at each of"),
        (("report", "findings", "epsilon_by_round"), {"0": 1.0}, "epsilon_by_round.0"),
        (("signature",), "zz", "signature: String should match pattern"),
    ],
)
def test_what_fits_no_schema_is_refused_by_name(signed, path, value, message):
    values = json.loads(render_json(signed))
    place = values
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(PrivacyError, match=message):
        Signed.parse(json.dumps(values))


def test_no_report_names_the_data_set(signed):
    """Its digest is of private data: it would tell who guesses the data right."""
    assert "dataset" not in render_json(signed)
