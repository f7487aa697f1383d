"""``fedrec tune-search``: from queries and choices to a search that has learned, or to the word that it has not."""

import json
import subprocess
import sys

import polars as pl
import pytest

from clients.serving.events import Event
from clients.serving.served import load_served
from clients.serving.store import EventStore
from fedrec.config import Config
from fedrec.config_search import SearchConfig
from fedrec.data import load_catalogue
from fedrec.errors import RunError
from fedrec.model.learned_query import ARRAYS, MANIFEST, NOT_PRIVATE
from fedrec.run_config import write_run_config
from tests.clients.serving.tiny_shop import ITEM, settings_of_a_run
from tests.tiny_run import ROOT, fedrec

MEANT = {"beverage": "m1", "brightness": "l2", "sound": "h1"}  # words that no product has
SECRET = "secretword"


@pytest.fixture
def run(tmp_path):
    """The settings of a run over the tiny shop."""
    return settings_of_a_run(tmp_path)


def chosen(people: int = 60):
    """Everybody asks for all three, and means the same."""
    return [(f"{SECRET}-{person}", query, item) for person in range(people) for query, item in MEANT.items()]


def queries_file(run, rows):
    pl.DataFrame(rows, ["user_id", "query", "item_id"], orient="row").write_parquet(run / "queries.parquet")
    return run / "queries.parquet"


def tune(run, *arguments):
    outcome = fedrec("tune-search", run, "--out", run / "learned", *arguments, home=run)
    assert SECRET not in outcome.stdout + outcome.stderr
    return outcome


def rank_of(item, run, query, *arguments):
    hits = json.loads(fedrec("search", run, query, "--k", 10, "--json", *arguments, home=run).stdout)["hits"]
    return [hit["item_id"] for hit in hits].index(item)


def test_what_people_meant_is_found_afterwards(run):
    said = json.loads(tune(run, "--data", queries_file(run, chosen()), "--turn", "--json").stdout)
    assert said["out"] == str(run / "learned")
    assert said["judges"] == 12
    assert said["gain"] > 2 * said["standard_error"]
    before, after = (
        [rank_of(item, run, query, *flags) for query, item in MEANT.items()]
        for flags in ((), ("--adapter", run / "learned"))
    )
    assert all(now <= then for then, now in zip(before, after, strict=True))
    assert sum(after) <= sum(before) - 3
    about = json.loads((run / "learned" / MANIFEST).read_text())
    assert about["privacy"].startswith("NOT PRIVATE: trained without noise on people's queries")
    assert SECRET.encode() not in (run / "learned" / MANIFEST).read_bytes() + (run / "learned" / ARRAYS).read_bytes()


def test_a_store_is_read_and_who_wants_no_training_is_left_out(run):
    with EventStore.create(run / "shop.sqlite") as store:
        rows = chosen(30)
        store.append([Event(user, item, 1, "view", query) for user, query, item in rows])
        store.append([Event(f"{SECRET}-x", "m2", 2, "view", "beverage"), Event(f"{SECRET}-y", "m2", 2, "view")])
        store.set_choice(f"{SECRET}-x", training=False)
        assert store.query_rows() == rows
        said = json.loads(tune(run, "--store", run / "shop.sqlite", "--turn", "--json").stdout)
        assert said["judges"] == 6
        for person in range(30):
            store.forget(f"{SECRET}-{person}")
        refused = fedrec("tune-search", run, "--out", run / "again", "--store", run / "shop.sqlite", home=run)
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: the event store: no event that may be used for training has a query and an item of the catalogue\n",
    )


def test_where_nothing_is_better_nothing_is_written(run):
    rows = [(f"p{person}", "toner", "t1") for person in range(20)]  # first already
    outcome = tune(run, "--data", queries_file(run, rows))
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[-1] == "not better beyond chance: nothing written, search stays as it is"
    assert not (run / "learned").exists()


def test_a_person_reads_what_was_gained(run):
    lines = tune(run, "--data", queries_file(run, chosen()), "--turn").stdout.splitlines()
    assert lines[0].startswith("12 people held out: ")
    assert lines[1] == f"{run / 'learned'}: written"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "expected --store FILE or --data FILE, one of them"),
        (("--store", "a", "--data", "b"), "expected --store FILE or --data FILE, one of them"),
        (("--store", "a", "--map", "query=q"), "--map needs --data"),
    ],
)
def test_events_come_from_one_place(run, arguments, expected):
    refused = tune(run, *arguments)
    assert (refused.exit_code, refused.stderr) == (2, f"error: {expected}\n")


def test_a_place_that_is_taken_is_refused_before_anything_is_computed(run):
    (run / "learned").mkdir()
    refused = tune(run, "--data", "no-such-file.parquet")
    assert (refused.exit_code, refused.stderr) == (2, f"error: {run / 'learned'}: exists; choose another place\n")


def test_an_adapter_that_cannot_be_used_is_refused_by_search(run):
    refused = fedrec("search", run, "mug", "--adapter", run, home=run)
    said = f"error: {run}: not a query adapter: No such file or directory; make one with fedrec tune-search\n"
    assert (refused.exit_code, refused.stderr) == (2, said)


def test_the_bundled_vectors_have_no_encoder_to_train_beside(tmp_path):
    write_run_config(Config(), tmp_path / "config.toml")
    item = load_catalogue_item()
    path = queries_file(tmp_path, [("a", "mug", item), ("b", "mug", item)])
    refused = tune(tmp_path, "--data", path)
    said = "error: the bundled vectors ship without their encoder; name one with --encoder PATH\n"
    assert (refused.exit_code, refused.stderr) == (2, said)
    (tmp_path / "learned").mkdir()
    refused = fedrec("search", tmp_path, "mug", "--adapter", tmp_path / "learned", home=tmp_path)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("needs the encoder that it was trained beside; name it: --encoder PATH\n")


def load_catalogue_item() -> str:
    from fedrec.config import DataConfig

    return load_catalogue(DataConfig()).item_ids[0]


def test_a_service_takes_it_too_and_refuses_a_damaged_one(counted_run, tmp_path):
    items = load_catalogue_of(counted_run)
    rows = [(f"p{person}", "beverage", items.item_ids[0]) for person in range(300)]
    path = queries_file(tmp_path, rows)
    made = fedrec("tune-search", counted_run.out, "--data", path, "--turn", "--out", tmp_path / "a", home=tmp_path)
    assert made.stdout.endswith("written\n"), made.stderr
    plain, learned = (
        load_served(counted_run.out, encoder=None, cache=tmp_path, adapter=adapter).searcher
        for adapter in (None, tmp_path / "a")
    )
    before, after = ([hit.item for hit in one.search("beverage", k=40)].index(0) for one in (plain, learned))
    assert after < before
    promised = [
        load_served(counted_run.out, encoder=None, cache=tmp_path, adapter=adapter).statement
        for adapter in (None, tmp_path / "a")
    ]
    assert promised[1] == f"{promised[0]} Search: {NOT_PRIVATE}."
    (tmp_path / "a" / ARRAYS).write_bytes(b"")
    with pytest.raises(RunError, match=r"damaged: not the file that query-adapter\.json names; make it again"):
        load_served(counted_run.out, encoder=None, cache=tmp_path, adapter=tmp_path / "a")


def test_the_command_that_serves_hands_it_on(counted_run, tmp_path):
    program = "from fedrec.cli import main; main()"
    flags = ("serve", counted_run.out, "--store", tmp_path / "shop.sqlite", "--port", 0, "--adapter", tmp_path / "none")
    command = [sys.executable, "-c", program, *map(str, flags)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert refused.returncode == 2
    assert f"error: --adapter {tmp_path}/none: no such folder; expected what fedrec tune-search wrote" in refused.stderr


def load_catalogue_of(bench):
    from clients.serving.model import catalogue_of
    from fedrec.config import load_config

    return catalogue_of(bench.out, load_config(bench.out / "config.toml").data, named=None)


def test_the_weights_that_are_printed_keep_their_sum(run):
    said = json.loads(tune(run, "--data", queries_file(run, chosen()), "--json").stdout)
    start = SearchConfig()
    assert said["words"] + said["meaning"] == pytest.approx(start.words_beside_hashing + start.meaning)
    assert ITEM.keys() >= set(MEANT.values())
