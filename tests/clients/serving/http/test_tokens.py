"""A token is shown once, kept as a hash, and opens what its scopes say."""

import hashlib
import re

import pytest

from clients.serving.http.limits import DAY_S, Allowances
from clients.serving.http.tokens import ANYBODY_HERE, new_token, read_tokens
from fedrec.errors import ConfigError
from tests.tiny_run import fedrec

GOOD = f"shop recommend,search {hashlib.sha256(b'secret').hexdigest()}\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.txt"


def test_a_new_token_opens_its_scopes_and_the_file_holds_its_hash_alone(path):
    first, second = new_token(path, "shop", ["search", "events"]), new_token(path, "till", ["forget"])
    text = path.read_text()
    assert first not in text
    assert hashlib.sha256(first.encode()).hexdigest() in text
    assert len(first) >= 43, "256 bits"
    tokens = read_tokens(path)
    assert (tokens.holder_of(first).name, tokens.holder_of(first).scopes) == ("shop", {"search", "events"})
    assert tokens.holder_of(second).scopes == {"forget"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_gets_a_line_of_its_own_after_one_that_was_not_ended(path):
    first = new_token(path, "shop", ["search"])
    path.write_text(path.read_text() + "# the till's")
    second = new_token(path, "till", ["forget"])
    tokens = read_tokens(path)
    assert [tokens.holder_of(token).name for token in (first, second)] == ["shop", "till"]


@pytest.mark.parametrize("wrong", ["", " ", "secret ", "Secret", "secre", "secrets", "\ud800", "é" * 5000])
def test_another_token_opens_nothing(path, wrong):
    path.write_text(f"# who may ask\n\n{GOOD}")
    path.chmod(0o600)
    assert read_tokens(path).holder_of("secret").name == "shop"
    assert read_tokens(path).holder_of(wrong) is None


def test_the_command_prints_the_token_once(path, tmp_path):
    said = fedrec("tokens", "new", "shop", "--file", path, "--scope", "search,events", home=tmp_path)
    assert said.exit_code == 0
    assert read_tokens(path).holder_of(said.stdout.strip()).scopes == {"search", "events"}
    again = fedrec("tokens", "new", "shop", "--file", path, "--scope", "search", home=tmp_path)
    assert again.exit_code == 2
    assert "shop has a token; take its line out to make another" in again.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no token"),
        ("shop search\n", "line 1: expected `name scope"),
        ("# fine\nshop search abc\n", "line 2: expected `name scope"),
        (GOOD.replace("search", "serach"), "line 1: scope 'recommend,serach': expected some of recommend,"),
        (GOOD.replace("shop", "sh/op"), "line 1: token name 'sh/op': expected up to 64 letters"),
        (GOOD + GOOD, "line 2: shop has a token above"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line(path, text, expected):
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        read_tokens(path)


def test_a_file_that_others_may_write_or_nobody_can_read_is_refused(path, tmp_path):
    path.write_text(GOOD)
    path.chmod(0o620)
    with pytest.raises(ConfigError, match=r"others may write this file \(mode 0620\); chmod 600 it"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="none: cannot be read: No such file"):
        read_tokens(tmp_path / "none")


def test_without_tokens_nobody_may_forget_people_or_see_raw_scores():
    assert ANYBODY_HERE.scopes == {"recommend", "search", "explain", "events", "metrics"}


def test_a_bucket_gives_its_burst_and_then_its_rate_to_each_by_itself():
    now = [100.0]
    allowances = Allowances(requests_per_s=2, burst=3, queries_per_day=10, clock=lambda: now[0])
    assert [allowances.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert allowances.wait_s("b") == 0
    now[0] += 0.5
    assert [allowances.wait_s("a") for _ in range(2)] == [0, 1]
    now[0] += 1e6
    assert [allowances.wait_s("a") for _ in range(4)] == [0, 0, 0, 1], "it never holds more than its burst"


def test_a_budget_ends_and_begins_again_after_a_day():
    now = [0.0]
    allowances = Allowances(requests_per_s=1, burst=1, queries_per_day=2, clock=lambda: now[0])
    assert [allowances.budget_wait_s("a") for _ in range(2)] == [0, 0]
    now[0] = DAY_S - 10
    assert allowances.budget_wait_s("a") == 10
    assert allowances.budget_wait_s("b") == 0
    now[0] = DAY_S
    assert allowances.budget_wait_s("a") == 0
