"""``fedrec search``: the catalogue of a run, by words and by meaning."""

import json
import subprocess
import sys

import polars as pl
import pytest
import tomli_w

from clients.serving.fulltext import FullTextIndex
from clients.serving.search import Searcher
from fedrec.config import Config, DataConfig, parse_config
from fedrec.data import load_catalogue
from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
from fedrec.model.items import read_item_metadata
from tests.clients.serving.tiny_shop import ROWS
from tests.tiny_run import ROOT, Bench, fedrec


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The settings of a run, as a run writes them, over forty products such as "red mug"."""
    made = Bench.at(tmp_path_factory.mktemp("search"))
    files = {"events": made.events, "catalogue": made.catalogue}
    config = parse_config({"data": files, "items": {"encoder": "hashing"}}, source="test")
    made.out.mkdir()
    (made.out / "config.toml").write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    return made


@pytest.fixture
def shop_run(tmp_path):
    """The settings of a run over the tiny shop, whose products have a category."""
    columns = ["item_id", "title", "brand", "category", "description"]
    pl.DataFrame(ROWS, columns, orient="row").write_csv(tmp_path / "items.csv")
    config = {"data": {"catalogue": str(tmp_path / "items.csv")}, "items": {"encoder": "hashing"}}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config))
    return tmp_path


def search(run, *arguments):
    return fedrec("search", run, *arguments, home=run)


@pytest.mark.parametrize("typed", ["red mug", "rde mugs", "MUG, red", "red mu"])
def test_a_product_is_found_however_it_is_typed(bench, typed):
    outcome = fedrec("search", bench.out, typed, "--json", "--k", 3, home=bench.folder)
    assert outcome.exit_code == 0
    assert outcome.stderr == ""
    found = json.loads(outcome.stdout)
    assert found["query"] == typed
    assert found["by_meaning"] is True
    assert len(found["hits"]) == 3
    first = found["hits"][0]
    assert first["title"] == "red mug"
    assert first["item_id"] == "i00"
    assert first["parts"].keys() == {"words", "meaning"}
    assert first["score"] == pytest.approx(sum(first["parts"].values()), abs=1e-5)


def test_a_person_reads_a_table(bench):
    lines = fedrec("search", bench.out, "red mug", "--k", 2, home=bench.folder).stdout.splitlines()
    assert lines[0].split() == ["ITEM", "TITLE", "SCORE", "FOUND", "BY"]
    assert lines[1].split()[:4] == ["1", "i00", "red", "mug"]
    assert len(lines) == 3


def test_only_a_category_is_searched(shop_run):
    found = json.loads(search(shop_run, "red", "--category", " LIGHTS", "--json").stdout)
    assert {hit["item_id"] for hit in found["hits"]} == {"l1", "l2"}
    refused = search(shop_run, "red", "--category", "toys")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: --category 'toys': no product of it in this catalogue; "
        "there are audio, books, kitchen, lights, office\n"
    )


def test_a_category_of_a_catalogue_without_any_is_refused(bench):
    refused = fedrec("search", bench.out, "red", "--category", "toys", home=bench.folder)
    assert refused.exit_code == 2
    assert refused.stderr == "error: --category 'toys': no product of it in this catalogue; none is known\n"


def test_nothing_found_is_said_and_no_error(shop_run):
    outcome = search(shop_run, "?!")
    assert (outcome.exit_code, outcome.stdout) == (0, "nothing found; try other words\n")


def test_the_bundled_set_is_searched_by_words_and_says_so(tmp_path):
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"seed": 0}))
    outcome = search(tmp_path, "red retrospot mug", "--json", "--k", 1)
    assert outcome.exit_code == 0
    said = "by words only: the bundled vectors ship without their encoder; name one with --encoder PATH\n"
    assert outcome.stderr == said
    found = json.loads(outcome.stdout)
    assert found["by_meaning"] is False
    assert found["hits"][0]["title"] == "RED RETROSPOT MUG"
    by_both = json.loads(search(tmp_path, "red retrospot mug", "--encoder", "hashing", "--json", "--k", 1).stdout)
    assert by_both["by_meaning"] is True
    assert by_both["hits"][0]["title"] == "RED RETROSPOT MUG"


def test_the_products_of_a_run_are_those_it_was_made_of():
    catalogue = load_catalogue(DataConfig())
    assert catalogue.digest() == read_item_metadata(BUNDLED_ITEM_VECTORS)["catalogue_digest"]


def test_what_is_no_run_is_named(tmp_path):
    outcome = search(tmp_path, "red")
    assert outcome.exit_code == 2
    assert outcome.stderr == f"error: {tmp_path}/config.toml: cannot be read: No such file or directory\n"


def test_an_encoder_that_is_not_there_is_named(shop_run):
    outcome = search(shop_run, "red", "--encoder", "no-such-folder")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: encoder 'no-such-folder': no such folder, and no such model at hand; ")


def test_help_does_not_wait_for_torch():
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fedrec.cli import app\n"
        "CliRunner().invoke(app, ['search', '--help'])\n"
        "assert not {'torch', 'clients.serving.search'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_the_bundled_set_answers_a_slip(tmp_path):
    catalogue = load_catalogue(Config().data)
    searcher = Searcher(FullTextIndex.build(catalogue), None)
    titles = [catalogue.titles[hit.item] for hit in searcher.search("retrspot mgu", k=1)]
    assert titles == ["RED RETROSPOT MUG"]
