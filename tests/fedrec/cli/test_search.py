"""``fedrec search``: the catalogue of a run, by words and by meaning."""

import json
import subprocess
import sys

import numpy as np
import pytest

from clients.serving.fulltext import FullTextIndex
from clients.serving.scoring import score_parts
from clients.serving.search import Searcher
from fedrec.config import Config, DataConfig, parse_config
from fedrec.config_search import SearchConfig
from fedrec.data import load_catalogue
from fedrec.data.bundled import BUNDLED_ITEM_VECTORS
from fedrec.data.catalogue import read_catalogue, write_catalogue
from fedrec.invitation import CATALOGUE, INVITATION
from fedrec.model.items import read_item_metadata
from fedrec.run_config import write_run_config
from tests.clients.serving.tiny_shop import settings_of_a_run
from tests.tiny_run import ROOT, Bench, fedrec
from tests.tiny_serving import shop_of


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The settings of a run, as a run writes them, over forty products such as "red mug"."""
    made = Bench.at(tmp_path_factory.mktemp("search"))
    files = {"events": made.events, "catalogue": made.catalogue}
    config = parse_config({"data": files, "items": {"encoder": "hashing"}}, source="test")
    made.out.mkdir()
    write_run_config(config, made.out / "config.toml")
    return made


@pytest.fixture
def shop_run(tmp_path):
    """The settings of a run over the tiny shop, whose products have a category."""
    return settings_of_a_run(tmp_path)


def test_the_products_of_a_federation_are_those_of_its_invitation_and_not_the_bundled_ones(shop_run):
    (shop_run / INVITATION).mkdir()
    (shop_run / "items.csv").rename(shop_run / INVITATION / "items.csv")
    invited = read_catalogue(shop_run / INVITATION / "items.csv", columns={})
    write_catalogue(invited, shop_run / INVITATION / CATALOGUE)
    config = parse_config({"items": {"encoder": "hashing"}}, source="test")
    write_run_config(config, shop_run / "config.toml")
    found = search(shop_run, "mug", "--json")
    assert found.exit_code == 0, found.stderr
    hits = json.loads(found.stdout)["hits"]
    assert {hit["item_id"] for hit in hits} <= set(invited.item_ids)
    assert hits


def search(run, *arguments):
    return fedrec("search", run, *arguments, home=run)


def search_of(bench, *arguments):
    return fedrec("search", bench.out, *arguments, home=bench.folder)


@pytest.mark.parametrize("typed", ["red mug", "rde mugs", "MUG, red", "red mu"])
def test_a_product_is_found_however_it_is_typed(bench, typed):
    outcome = search_of(bench, typed, "--json", "--k", 3)
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
    lines = search_of(bench, "red mug", "--k", 2).stdout.splitlines()
    assert lines[0].split() == ["item", "title", "score", "found", "by"]
    assert lines[1].split()[:4] == ["1", "i00", "red", "mug"]
    assert len(lines) == 3


def test_only_a_category_is_searched(shop_run):
    found = json.loads(search(shop_run, "red", "--category", " LIGHTS", "--json").stdout)
    assert {hit["item_id"] for hit in found["hits"]} == {"l1", "l2"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--category", "light"), "category 'light': no item of the catalogue has it; did you mean 'lights'?"),
        (("--max-price", "3"), "price: the catalogue has no such column, so leave this filter out"),
    ],
)
def test_a_filter_that_the_catalogue_cannot_answer_is_refused(shop_run, flags, expected):
    refused = search(shop_run, "red", *flags)
    assert (refused.exit_code, refused.stderr) == (2, f"error: {expected}\n")


def test_only_a_range_of_prices_is_searched(bench):
    flags = ("--min-price", 2, "--max-price", 3, "--k", 40, "--json")
    found = json.loads(search_of(bench, "red mug", *flags).stdout)
    assert {hit["item_id"] for hit in found["hits"]} == {"i04", "i05", "i06", "i07", "i08"}  # 1 + item / 4


def test_a_history_orders_what_is_found_by_the_score_of_the_run_s_own_ranker(counted_run):
    model, history = shop_of(counted_run.out).model, ["i03", "i09", "i12"]
    flags = ("mug", "--k", 40, "--json")
    plain, own = (
        {hit["item_id"]: hit for hit in json.loads(search_of(counted_run, *flags, *more).stdout)["hits"]}
        for more in ((), ("--history", ",".join(history)))
    )
    past = np.array([model.catalogue.index[item] for item in history])
    scores = np.sum(list(score_parts(model, past).values()), axis=0)
    assert len(own) == 40
    assert plain.keys() == own.keys()
    for item_id, hit in own.items():
        of_person = SearchConfig().person * (scores[model.catalogue.index[item_id]] - scores.min()) / np.ptp(scores)
        assert hit["parts"]["person"] == pytest.approx(of_person, abs=1e-5)
        assert hit["score"] == pytest.approx(plain[item_id]["score"] + of_person, abs=1e-5)
    assert list(plain) != list(own)


def test_a_history_is_read_as_elsewhere(counted_run):
    refused = search_of(counted_run, "mug", "--history", "i03,j09")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --history: item 'j09' is not in the catalogue; did you mean ")


def test_without_a_history_no_model_is_needed_and_with_one_it_is(bench):
    assert search_of(bench, "mug").exit_code == 0
    refused = search_of(bench, "mug", "--history", "i03")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {bench.out}: not the folder of a run: there is no agreement.json in it")


def test_a_catalogue_that_moved_is_named(shop_run):
    moved = (shop_run / "items.csv").rename(shop_run / "moved.csv")
    refused = search(shop_run, "red")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {shop_run}/items.csv: ")
    assert search(shop_run, "red", "--catalogue", moved).exit_code == 0


def test_nothing_found_is_said_and_no_error(shop_run):
    outcome = search(shop_run, "?!")
    assert (outcome.exit_code, outcome.stdout) == (0, "nothing found; try other words\n")


def test_the_bundled_set_is_searched_by_words_and_says_so(tmp_path):
    write_run_config(Config(), tmp_path / "config.toml")
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


def test_an_adapter_that_is_not_there_is_named_before_an_encoder_is_asked_for(tmp_path):
    write_run_config(Config(), tmp_path / "config.toml")
    refused = search(tmp_path, "red", "--adapter", tmp_path / "nope")
    said = f"error: --adapter {tmp_path}/nope: no such folder; expected what fedrec tune-search wrote\n"
    assert (refused.exit_code, refused.stderr) == (2, said)


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
