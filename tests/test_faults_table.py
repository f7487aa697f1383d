"""docs/faults.md names tests that exist, for nearly every fault."""

import re
from pathlib import Path

from tests.test_docs import ROOT, missing_tests

ROWS = re.findall(
    r"^\| (\d+) \| (.+?) \| (.*?) \| (.+?) \| (.*?) ?\|$",
    (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
AUTOMATED = [row for row in ROWS if "::test_" in row[3]]


def test_there_is_a_row_for_each_fault():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 42))


def test_each_test_that_a_row_names_exists():
    assert missing_tests(ROOT / "docs" / "faults.md") == []


def test_at_least_thirty_rows_are_automated_and_the_others_say_why_not():
    assert len(AUTOMATED) >= 30
    assert all(row[2] for row in AUTOMATED), "a row without what is expected"
    assert all(held.startswith("Not automated: ") for _, _, _, held, _ in ROWS if "::test_" not in held)


def test_a_name_that_no_test_has_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "`tests/test_docs.py::test_nowhere`, `tests/test_no_such.py::test_it`, `tests/test_docs.py::missing_tests`"
    )
    assert missing_tests(page) == [
        "tests/test_docs.py::missing_tests",
        "tests/test_docs.py::test_nowhere",
        "tests/test_no_such.py::test_it",
    ]
