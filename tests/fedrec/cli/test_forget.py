"""``fedrec forget``: asks first, deletes for good, and says what it cannot undo."""

import json
import logging
from pathlib import Path

import pytest

from clients.serving.store import EventStore
from fedrec.cli.forget import LIMITS
from tests.clients.serving.shops import bytes_of
from tests.fedrec.cli.store_commands import make_shop, run, write_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "events.csv")


@pytest.fixture
def shop(tmp_path: Path, data: Path) -> Path:
    return make_shop(tmp_path / "shop.sqlite", data)


def people(path: Path) -> list[str]:
    with EventStore.open(path) as store:
        return store.people()


def test_a_person_goes_from_the_files_and_the_others_stay(shop: Path) -> None:
    assert b"secret-1" in bytes_of(shop)
    done = run("forget", shop, "--user", "-", "--yes", stdin="secret-1\n")
    assert done.exit_code == 0
    assert done.stdout == f"{shop}: 2 events deleted, and a mark left that tells nobody whose\n{LIMITS}\n"
    assert people(shop) == ["secret-2"]
    assert b"secret-1" not in bytes_of(shop)


def test_json_is_one_document(shop: Path) -> None:
    said = json.loads(run("forget", shop, "--user", "secret-1", "--yes", "--json").stdout)
    assert said.pop("at") > 1_700_000_000
    assert said == {"store": str(shop), "forgotten": True, "events": 2}


def test_a_dry_run_changes_nothing(shop: Path) -> None:
    said = run("forget", shop, "--user", "-", "--dry-run", "--json", stdin="secret-1\n")
    assert json.loads(said.stdout) == {"store": str(shop), "forgotten": False, "events": 2, "at": None}
    assert run("forget", shop, "--user", "secret-1", "--dry-run").stdout == f"{shop}: 2 events would be deleted\n"
    assert people(shop) == ["secret-1", "secret-2"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", ["secret-2"]), ("n\n", ["secret-1", "secret-2"]), ("", None)])
def test_it_asks_first(shop: Path, answer: str, left: list[str] | None) -> None:
    asked = run("forget", shop, "--user", "secret-1", "--json", stdin=answer)
    assert "Delete 2 events of this person for good?" in asked.stderr
    assert asked.exit_code == (0 if answer == "y\n" else 1)
    assert people(shop) == (left or ["secret-1", "secret-2"])


def test_it_asks_nobody_who_cannot_answer(shop: Path) -> None:
    refused = run("forget", shop, "--user", "-", stdin="secret-1\n")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: --user -: nobody can be asked while the id comes from standard input; give --yes\n"
    )
    assert people(shop) == ["secret-1", "secret-2"]


def test_a_file_that_is_taken_in_later_brings_nobody_back(shop: Path, data: Path) -> None:
    run("forget", shop, "--user", "secret-1", "--yes")
    again = run("store", "import", shop, "--data", data)
    assert again.stdout == f"{shop}: 0 events added, 1 known already, 2 of forgotten people\n"
    assert b"secret-1" not in bytes_of(shop)


def test_no_log_line_names_anybody(shop: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run("store", "import", shop, "--data", data)
    run("store", "choose", shop, "--user", "secret-2", "--no-training")
    run("forget", shop, "--user", "secret-1", "--yes")
    assert "secret" not in caplog.text
