"""SECURITY.md's table of threats says of each who, what, what remains, and which test would notice."""

import re

import pytest

from tests.test_docs import ROOT

SECTION = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("\n## Threats\n")[1].split("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("| ")
][2:]
UNTESTED = "Nothing is claimed, so nothing is tested"


def test_the_table_is_whole():
    assert len(ROWS) >= 25
    assert all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[1])[:40])
def test_each_threat_has_an_answer_and_a_test_or_a_reason(row):
    who, threat, answer, _, held = row
    assert who
    assert threat
    assert answer
    assert "::test_" in held or held == UNTESTED


@pytest.mark.parametrize(
    "who", ["Server, curious", "Server, malicious", "Client, malicious", "Stranger", "Network", "Thief"]
)
def test_each_kind_of_adversary_is_there(who):
    assert any(row[0] == who for row in ROWS)


def test_hardly_any_threat_is_untested():
    assert sum(row[4] == UNTESTED for row in ROWS) <= 1
