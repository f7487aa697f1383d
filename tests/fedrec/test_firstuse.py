import pytest

from fedrec.errors import PrivacyError
from fedrec.firstuse import FirstUse


@pytest.fixture
def asked(tmp_path):
    found = FirstUse(tmp_path / "asked")
    found.create(4)
    return found


def test_first_time_is_first_once_for_each(asked):
    seen = []
    for client in (2, 2, 0, 2, 0):
        with asked.of(client) as is_first:
            seen.append(is_first)
    assert seen == [True, False, True, False, False]
    assert asked.path.read_bytes() == b"\1\0\1\0"


def test_what_failed_is_first_again(asked):
    with pytest.raises(ZeroDivisionError), asked.of(1):
        raise ZeroDivisionError
    with asked.of(1) as is_first:
        assert is_first


def test_whoever_waited_for_another_is_not_first(asked, monkeypatch):
    answers = iter([False, True])  # before the lock, and once it is held: somebody else was there meanwhile
    monkeypatch.setattr(FirstUse, "was", lambda *_: next(answers))
    with asked.of(0) as is_first:
        assert not is_first


@pytest.mark.parametrize("client", [4, 99])
def test_client_beyond_the_list_counts_as_asked(asked, client):
    with asked.of(client) as is_first:
        assert not is_first


def test_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PrivacyError, match="the list of clients that were asked cannot be used: Is a directory"):
        FirstUse(tmp_path).was(0)
