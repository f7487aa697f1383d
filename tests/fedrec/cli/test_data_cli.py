import json

import polars as pl
import pytest
from typer.testing import CliRunner

from fedrec.cli.data import data_app, parse_mapping
from fedrec.config import DataConfig
from fedrec.data import load
from fedrec.errors import ConfigError

MAPS = ["--map", "user_id=customer", "--map", "item_id=sku", "--map", "timestamp=when"]


def run(*arguments):
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


@pytest.fixture
def shop(tmp_path):
    rows = [f"c{p},s{n},{1_300_000_000 + 60 * n},{n + 1}.5,Thing {n}" for p in range(3) for n in range(5)]
    rows += ["c0,s1,1300000000,nan,Thing 1", "c0,s1,-5,1,Thing 1"]
    (tmp_path / "shop.csv").write_text("\n".join(["customer,sku,when,price,name", *rows]))
    return tmp_path


def test_checking_the_bundled_set_is_the_default(tmp_path):
    result = run("check", "--out", tmp_path, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["source"], report["people"], report["items"]) == ("bundled", 4334, 3659)
    assert json.loads((tmp_path / "check.json").read_text()) == report
    assert (tmp_path / "check.html").exists()


def test_check_prints_counts_for_people_to_read(shop):
    result = run("check", shop / "shop.csv", *MAPS, "--out", shop / "out")
    assert result.exit_code == 0
    assert "15 of 17" in result.stdout
    assert "negative_timestamp" in result.stdout
    assert result.stdout.rstrip().endswith("check.html")


def test_prepared_files_are_what_simulate_reads(shop):
    result = run("prepare", shop / "shop.csv", *MAPS, "--map", "title=name", "--out", shop / "out", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rows_kept"] == 15
    assert "next: fedrec simulate --data" in result.stderr
    events, catalogue, _ = load(
        DataConfig(events=shop / "out" / "events.parquet", catalogue=shop / "out" / "catalogue.parquet")
    )
    assert (events.height, catalogue.titles[0]) == (15, "Thing 0")
    assert {path.name for path in (shop / "out").iterdir()} == {
        "events.parquet", "catalogue.parquet", "check.html", "check.json"
    }  # fmt: skip


def test_a_catalogue_file_has_its_own_mapping(shop):
    pl.DataFrame({"sku": ["s0", "s1"], "name": ["A", "B"]}).write_csv(shop / "items.csv")
    result = run(
        "check", shop / "shop.csv", *MAPS, "--catalogue", shop / "items.csv", "--map-catalogue", "item_id=sku",
        "--map-catalogue", "title=name", "--out", shop / "out", "--json",
    )  # fmt: skip
    rules = {rule["rule"]: rule["dropped"] for rule in json.loads(result.stdout)["rules"]}
    assert rules["unknown_item"] == 9


def bad_files(folder):
    header = "user_id,item_id,timestamp\n"
    (folder / "empty.csv").write_text("")
    (folder / "column.csv").write_text("user_id,item_id\nu,a\n")
    (folder / "latin.csv").write_bytes((header + "ü,a,1\n").encode("latin-1"))
    (folder / "negative.csv").write_text(header + "u,a,-1\n")
    return folder


@pytest.mark.parametrize("command", ["check", "prepare"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.csv", "empty.csv: is empty"),
        ("column.csv", "no column 'timestamp'"),
        ("latin.csv", "line 2: is not UTF-8"),
        ("negative.csv", "no row is left after cleaning; negative_timestamp dropped 1"),
        ("absent.csv", "absent.csv: cannot be read"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_two(tmp_path, command, name, message):
    result = run(command, bad_files(tmp_path) / name, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_preparing_a_file_onto_itself_is_refused(shop):
    (shop / "shop.csv").rename(shop / "events.csv")
    pl.read_csv(shop / "events.csv").write_parquet(shop / "events.parquet")
    before = (shop / "events.parquet").read_bytes()
    result = run("prepare", shop / "events.parquet", *MAPS, "--map", "title=name", "--out", shop)
    assert result.exit_code == 2
    assert "would overwrite the input" in result.stderr
    assert (shop / "events.parquet").read_bytes() == before


def test_prepare_wants_titles(shop):
    result = run("prepare", shop / "shop.csv", *MAPS, "--out", shop / "out")
    assert result.exit_code == 2
    assert "items have no titles; give --catalogue FILE or --map title=COLUMN" in result.stderr


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["user_id"], "--map user_id: expected FIELD=COLUMN, such as user_id=CustomerID"),
        (["=x"], "--map =x: expected FIELD=COLUMN"),
        (["a=x", "a=y"], "--map a=y: a is mapped twice"),
    ],
)
def test_a_malformed_mapping_is_a_config_error(pairs, message):
    with pytest.raises(ConfigError, match=message):
        parse_mapping(pairs, flag="--map")


def test_a_column_may_hold_an_equals_sign():
    assert parse_mapping(["user_id=a=b"], flag="--map") == {"user_id": "a=b"}
    assert parse_mapping(None, flag="--map") == {}
