"""A signature holds for one message, one purpose and one key; the private half never shows."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import ConfigError
from fedrec.signing import Purpose, SigningKey, is_signed

REPORT, HEAD = Purpose.PRIVACY_REPORT, Purpose.LEDGER_HEAD
HEX = "0123456789abcdef"


@pytest.fixture
def key(tmp_path):
    return SigningKey.create(tmp_path / "one.key")


def test_signature_holds_for_its_message_its_purpose_and_its_key(key, tmp_path):
    signature = key.sign(b"epsilon 8", purpose=REPORT)
    assert is_signed(b"epsilon 8", signature, public=key.public, purpose=REPORT)
    assert not is_signed(b"epsilon 9", signature, public=key.public, purpose=REPORT)
    assert not is_signed(b"epsilon 8", signature, public=key.public, purpose=HEAD)
    other = SigningKey.create(tmp_path / "other.key")
    assert not is_signed(b"epsilon 8", signature, public=other.public, purpose=REPORT)


@pytest.mark.parametrize("place", [0, 63, 127])
def test_any_changed_digit_of_a_signature_voids_it(key, place):
    signature = key.sign(b"x", purpose=REPORT)
    digit = HEX[(HEX.index(signature[place]) + 1) % 16]
    changed = signature[:place] + digit + signature[place + 1 :]
    assert not is_signed(b"x", changed, public=key.public, purpose=REPORT)


@given(signature=st.text(max_size=140), public=st.text(max_size=70))
def test_malformed_signatures_and_keys_are_false_and_never_raise(signature, public):
    assert not is_signed(b"x", signature, public=public, purpose=REPORT)


def test_key_comes_back_from_its_file_which_only_the_owner_reads(key, tmp_path):
    path = tmp_path / "one.key"
    assert SigningKey.load(path).public == key.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.public not in path.read_text()


def test_existing_key_is_never_overwritten(key, tmp_path):
    before = (tmp_path / "one.key").read_bytes()
    with pytest.raises(ConfigError, match=r"one\.key: a key exists; use it, or choose another place"):
        SigningKey.create(tmp_path / "one.key")
    assert (tmp_path / "one.key").read_bytes() == before


def test_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/a\.key: the key cannot be written: No such file"):
        SigningKey.create(tmp_path / "nowhere" / "a.key")


def test_missing_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.key: the key cannot be read: No such file"):
        SigningKey.load(tmp_path / "a.key")


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "xyz", "é" * 64])
def test_other_content_is_not_a_key_and_is_never_shown(tmp_path, content):
    (tmp_path / "a.key").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.key: not a key: expected 64 hex digits") as refused:
        SigningKey.load(tmp_path / "a.key")
    assert not content or content not in str(refused.value)
