"""The merchant's store by hand: what is printed says how many, never who."""

import json
import os
from pathlib import Path

import pytest

from clients.serving.store import Choice, EventStore
from tests.fedrec.cli.store_commands import make_shop, run, write_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "events.csv")


@pytest.fixture
def shop(tmp_path: Path, data: Path) -> Path:
    return make_shop(tmp_path / "shop.sqlite", data)


def test_import_makes_a_store_and_adds_to_it(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "shop.sqlite"
    first = json.loads(run("store", "import", path, "--data", data, "--json").stdout)
    assert first == {"store": str(path), "added": 3, "repeated": 0, "forgotten": 0}
    with data.open("a") as events:
        events.write("secret-3,b,4\n")
    again = run("store", "import", path, "--data", data)
    assert again.stdout == f"{path}: 1 events added, 3 known already, 0 of forgotten people\n"


def test_import_takes_names_of_columns_a_kind_and_a_catalogue(tmp_path: Path) -> None:
    path, data, items = tmp_path / "shop.sqlite", tmp_path / "orders.csv", tmp_path / "items.csv"
    data.write_text("who,item_id,timestamp\nsecret,a,1\n")
    items.write_text("sku,title\na,mug\n")
    mapped = ("--map", "user_id=who", "--kind", "cart", "--catalogue", items, "--map-catalogue", "item_id=sku")
    assert run("store", "import", path, "--data", data, *mapped).exit_code == 0
    with EventStore.open(path) as store:
        assert store.history("secret", kinds=["cart"]) == (["a"], [1])
    data.write_text("who,item_id,timestamp\nsecret,z,1\n")
    refused = run("store", "import", path, "--data", data, *mapped)
    assert (refused.exit_code, refused.stderr) == (2, f"error: {data}: row 1: item_id: is not in the catalogue\n")
    refused = run("store", "import", path, "--data", data, "--map-catalogue", "item_id=sku")
    assert (refused.exit_code, refused.stderr) == (2, "error: --map-catalogue needs --catalogue\n")


def test_status_says_how_much_and_whether_it_is_whole(shop: Path) -> None:
    run("store", "choose", shop, "--user", "secret-2", "--no-training")
    run("forget", shop, "--user", "secret-9", "--yes")
    assert run("store", "status", shop).stdout.splitlines() == [
        f"{shop}: whole",
        "people       2, with 3 events",
        "said no      0 to a ranking of their own, 1 to training",
        "forgotten    1",
    ]
    assert json.loads(run("store", "status", shop, "--json").stdout) == {
        "store": str(shop),
        "people": 2,
        "events": 3,
        "not_personalized": 0,
        "not_training": 1,
        "forgotten": 1,
        "unfinished": 0,
    }


def test_status_of_a_damaged_or_missing_store_is_one_line(shop: Path) -> None:
    content = shop.read_bytes()
    shop.write_bytes(content[: 3 * 4096] + bytes(4096) + content[4 * 4096 :])
    damaged = run("store", "status", shop)
    assert damaged.exit_code == 2
    assert damaged.stderr.startswith(f"error: {shop}: ")
    assert "restore a backup" in damaged.stderr
    assert damaged.stderr.count("\n") == 1
    os.unlink(shop)
    missing = run("store", "status", shop)
    assert missing.stderr == f"error: {shop}: no event store here; make one with `fedrec store import`\n"


def test_a_choice_is_kept_and_one_left_out_stays_as_it_was(shop: Path) -> None:
    said = run("store", "choose", shop, "--user", "-", "--no-personalized", stdin="secret-1\n")
    assert said.stdout == f"{shop}: personalized no, training yes\n"
    said = run("store", "choose", shop, "--user", "-", "--no-training", "--json", stdin="secret-1\r\n")
    assert json.loads(said.stdout) == {"store": str(shop), "personalized": False, "training": False}
    with EventStore.open(shop) as store:
        assert store.choice("secret-1") == Choice(personalized=False, training=False)
        assert store.choice("secret-2") == Choice(personalized=True, training=True)


def test_who_was_forgotten_may_come_back(shop: Path) -> None:
    run("forget", shop, "--user", "secret-1", "--yes")
    refused = run("store", "choose", shop, "--user", "secret-1", "--training")
    assert refused.exit_code == 2
    assert "was forgotten, and so allows nothing; readmit them first" in refused.stderr
    back = run("store", "readmit", shop, "--user", "-", stdin="secret-1")
    assert back.stdout == f"{shop}: taken in again from now on\n"
    assert run("store", "readmit", shop, "--user", "secret-1").stdout.endswith("was not forgotten; nothing changed\n")
    assert json.loads(run("store", "status", shop, "--json").stdout)["forgotten"] == 0


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("", "error: --user -: expected an id on standard input\n"),
        ("\nsecret\n", "error: --user -: expected an id on standard input\n"),
        (b"secret\xff\n", "error: --user -: expected an id in UTF-8 on standard input\n"),
        (
            "secret\nanother\n",
            "error: --user -: expected one id, found more lines; give them one by one\n",
        ),
        ("secret\x07\n", "error: user_id: holds control characters or broken Unicode\n"),
    ],
)
def test_what_is_no_id_on_standard_input_is_one_line(shop: Path, stdin: str | bytes, message: str) -> None:
    refused = run("store", "choose", shop, "--user", "-", "--no-training", stdin=stdin)
    assert (refused.exit_code, refused.stderr) == (2, message)
