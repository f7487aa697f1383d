import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import DataError, PrivacyError
from fedrec.privacy.report.document import Facts, Findings
from fedrec.privacy.report.verify import (
    Format,
    check_arithmetic,
    check_signature,
    check_signer,
    check_text,
    format_of,
    has_failed,
    read_text,
    render,
    signed_document,
)
from fedrec.signing import SigningKey
from tests.fedrec.privacy.report.made import sign

FORMATS = tuple(Format)


@pytest.fixture(scope="module")
def texts(signed):
    return {form: render(signed, form) for form in FORMATS}


@pytest.fixture(scope="module")
def digits(texts):
    return {form: [at for at, sign in enumerate(text) if sign in "0123456789"] for form, text in texts.items()}


def is_accepted(text, form):
    """Whether signature and words hold; the checks that make a changed digit fail."""
    try:
        assert format_of(text, path=Path("report")) == form
        signed = signed_document(text, form)
    except PrivacyError:
        return False
    return not has_failed([check_signature(signed), check_text(text, signed, form)])


def flipped(text, at, by):
    return text[:at] + str((int(text[at]) + by) % 10) + text[at + 1 :]


@pytest.mark.parametrize("form", FORMATS)
def test_an_honest_report_holds_in_every_format(texts, signed, form):
    assert is_accepted(texts[form], form)
    assert signed_document(texts[form], form) == signed
    assert check_arithmetic(signed).outcome == "ok"


@pytest.mark.parametrize("form", FORMATS)
def test_one_changed_digit_anywhere_is_found(texts, digits, form):
    """A stride over the whole text, so that style, words, picture, document and signature are all met."""
    places = digits[form][:: max(1, len(digits[form]) // 120)]
    assert len(places) >= 120
    assert [at for at in places if is_accepted(flipped(texts[form], at, 1), form)] == []


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_digit_changed_to_any_other_is_found(texts, digits, data):
    form = data.draw(st.sampled_from(FORMATS))
    at, by = data.draw(st.sampled_from(digits[form])), data.draw(st.integers(1, 9))
    assert not is_accepted(flipped(texts[form], at, by), form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_character_added_or_taken_is_found(texts, form):
    text = texts[form]
    assert not is_accepted(text + " ", form)
    assert not is_accepted(text[:-1], form)
    assert not is_accepted(text.replace("person", "account", 1), form)


def test_a_visible_word_of_html_cannot_be_changed_beside_an_intact_document(texts, signed):
    text = texts[Format.HTML].replace("Everyone but the client itself", "Everyone", 1)
    assert text != texts[Format.HTML]
    found = check_text(text, signed, Format.HTML)
    assert found.outcome == "FAILED"
    assert "differs from the signed document as printed here" in found.detail
    assert "verify with the fedrec that wrote it, 0.1.0" in found.detail


def leaves(value, path=()):
    """Paths of every number below ``value``, a plain object."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, inner in enumerate(value) for leaf in leaves(inner, (*path, place))]
    return [path] if type(value) in (int, float) else []


def with_change(part, kind, path, change):
    values = json.loads(part.model_dump_json())
    place = values
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = change(place[path[-1]])
    return kind.model_validate_json(json.dumps(values))


def test_a_signer_who_states_another_number_than_follows_is_found_at_every_number(signed, key):
    report = signed.report
    found = leaves(json.loads(report.findings.model_dump_json()))
    assert len(found) > 40
    for path in found:
        change = (
            (lambda x: x + 1) if "epsilon" in str(path[-1]) or path[-1] in ("steps", "charges") else (lambda x: x / 2)
        )
        try:
            lie = with_change(report.findings, Findings, path, change)
        except ValueError:  # no such number fits the schema
            continue
        if lie != report.findings:
            assert check_arithmetic(sign(report.facts, key, lie)).outcome == "FAILED", path


def test_the_last_digit_of_an_epsilon_that_does_not_follow_is_named(signed, key):
    found = signed.report.findings
    guarantee = found.guarantee.model_copy(update={"epsilon": round(found.guarantee.epsilon - 0.0001, 4)})
    check = check_arithmetic(sign(signed.report.facts, key, found.model_copy(update={"guarantee": guarantee})))
    assert check.outcome == "FAILED"
    assert check.detail.startswith(f"guarantee.epsilon = {guarantee.epsilon}, computed {found.guarantee.epsilon}")


def test_fewer_steps_than_the_findings_rest_on_are_found(signed, key):
    path = ("ledgers", 1, "groups", 0, "steps")
    facts = with_change(signed.report.facts, Facts, path, lambda steps: steps - 1)
    assert check_arithmetic(sign(facts, key, signed.report.findings)).outcome == "FAILED"


def test_facts_that_contradict_each_other_fail_the_arithmetic(signed, key):
    facts = signed.report.facts.model_copy(update={"delta": 1e-4})
    check = check_arithmetic(sign(facts, key, signed.report.findings))
    assert check.outcome == "FAILED"
    assert "expected the policy's max_delta" in check.detail


def test_only_the_key_that_the_reader_trusts_is_the_signer(signed, key, tmp_path):
    other = SigningKey.create(tmp_path / "other.key")
    forged = sign(signed.report.facts, other, signed.report.findings)
    assert check_signature(forged).outcome == "ok"  # which is why the signer is a check of its own
    assert check_signer(forged, key.public, source="the one you named").outcome == "FAILED"
    assert check_signer(signed, key.public, source="the one you named").outcome == "ok"
    assert check_signer(signed, None, source="").outcome == "not checked"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "no signed report inside; expected what fedrec privacy report writes"),
        (b"{}", "no signed report inside"),
        (b"\xff\xfe", "not text; expected a privacy report"),
    ],
)
def test_what_is_no_report_is_a_mistake_and_not_a_refusal(tmp_path, content, message):
    path = tmp_path / "x.html"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        format_of(read_text(path), path=path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.html: cannot be read: No such file"):
        read_text(tmp_path / "gone.html")


def test_a_file_too_large_to_be_a_report_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("fedrec.privacy.report.verify._LARGEST_BYTES", 3)
    (tmp_path / "x.html").write_bytes(b"four")
    with pytest.raises(DataError, match="larger than 3 bytes: not a privacy report"):
        read_text(tmp_path / "x.html")


def test_a_report_cut_short_is_refused(texts):
    text = texts[Format.HTML]
    cut = text[: text.index("signed-report") + 200]
    with pytest.raises(PrivacyError, match="cut short; expected a whole document"):
        signed_document(cut, Format.HTML)
