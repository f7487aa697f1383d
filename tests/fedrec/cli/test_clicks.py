"""``fedrec clicks simulate`` and ``fedrec ads``: what they print and write, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedrec.model.clicks import ClickHead, load_click_head
from fedrec.model.impressions import Category, ClickSpec
from tests.tiny_clicks import clicks, columns
from tests.tiny_run import Outcome, fedrec, write_csv

FLAGS = ("--number", "price,score", "--category", "device", "--category", "brand", "--clients", 3)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 impressions of 300 people."""
    made = columns(900)
    clicked = clicks(made)
    rows = [
        {"user_id": f"p{at % 300:03d}", "clicked": int(clicked[at])}
        | {name: "" if values[at] is None else values[at] for name, values in made.items()}
        for at in range(900)
    ]
    return write_csv(tmp_path_factory.mktemp("clicks") / "shown.csv", rows)


def _simulate(shown: Path, out: Path, *flags: object) -> Outcome:
    return fedrec("clicks", "simulate", shown, "--out", out, *FLAGS, *flags, home=shown.parent)


@pytest.fixture(scope="module")
def open_run(shown: Path) -> tuple[Path, dict]:
    """Without noise; the folder and what was printed."""
    out = shown.parent / "bare"
    done = _simulate(shown, out, "--no-dp", "--json")
    assert done.exit_code == 0, done.stderr
    return out, json.loads(done.stdout)


def test_head_is_written_and_measured_on_other_people(open_run: tuple[Path, dict]) -> None:
    out, told = open_run
    assert told == json.loads((out / "summary.json").read_text())
    assert told["impressions_measured"] == 180
    assert told["auc"] > 0.65
    assert 0 < told["calibration_error_by_chance"] < 0.2
    assert sum(row["impressions"] for row in told["reliability"]) == 180
    assert len(told["reliability"]) == 15
    assert "NOT PRIVATE" in told["privacy"]
    head = load_click_head(Path(told["head"]))
    assert head.spec.names == ("price", "score", "device", "brand")
    assert head.calibration.slope != 1.0


def test_private_head_says_what_was_promised_and_keeps_a_ledger_a_client(shown: Path, tmp_path: Path) -> None:
    done = _simulate(shown, tmp_path / "run", "--rounds", 2, "--epsilon", 30, "--trust", "distributed")
    assert done.exit_code == 0, done.stderr
    assert "AUC" in done.stdout
    assert "calibration error" in done.stdout
    assert "(epsilon = 30, delta = 1e-05)-differential privacy over all 2 training steps" in done.stdout
    assert len(list((tmp_path / "run").glob("client-*.sqlite"))) == 3


@pytest.mark.parametrize(
    ("flags", "exit_code", "message"),
    [
        (("--epsilon", -1), 2, "error: --epsilon=-1.0: expected > 0"),
        (("--epsilon", "inf"), 2, "error: --epsilon=inf: expected a finite number"),
        (("--rounds", 0), 2, "error: --rounds=0: expected >= 1"),
        (("--trust", "central"), 2, "error: --trust=central: expected 'local' or 'distributed'"),
        (("--number", "colour"), 2, "shown.csv: no column 'colour'; the file has user_id, clicked, price, score"),
        (("--clients", 300), 2, "error: 240 people: too few for a panel and 300 clients; bring more or ask for fewer"),
        (("--number", "price"), 2, "expected at least one, and each once"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(flags, exit_code, message, shown, tmp_path):
    done = _simulate(shown, tmp_path / "run", "--rounds", 2, *flags)
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_nothing_to_predict_from_is_one_line(shown: Path, tmp_path: Path) -> None:
    done = fedrec("clicks", "simulate", shown, "--out", tmp_path / "run", home=tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: --number, --category: expected a column to predict from, at least one\n"


def test_a_folder_that_is_there_is_left_alone(shown: Path, open_run: tuple[Path, dict]) -> None:
    done = _simulate(shown, open_run[0])
    assert done.exit_code == 2
    assert "bare: cannot be made: File exists; choose another --out" in done.stderr


SPEC = ClickSpec(("score", "item.price", "hour"), 6, (Category("device", ("phone",)),))


@pytest.fixture
def shop(counted_run, tmp_path):
    """A run, a head whose weights were drawn by chance, and three offers."""
    weights = np.random.default_rng(0).normal(size=SPEC.slots).astype(np.float32)
    learned = {"clicks.bias": np.array([-1.0], np.float32), "clicks.weights": weights}
    ClickHead(SPEC, learned).save(tmp_path / "head.safetensors", about={})
    (tmp_path / "offers.csv").write_text("ad,item_id,bid\nred,i05,1.5\nblue,i09,0.8\nlate,i12,9\ncheap,i06,0.001\n")

    def ask(*flags: object, offers: str = "offers.csv") -> Outcome:
        where = ("--head", tmp_path / "head.safetensors", "--offers", tmp_path / offers)
        return fedrec("ads", counted_run.out, *where, *flags, home=counted_run.folder)

    ask.folder = tmp_path
    return ask


CONTEXT = ("--context", "hour=20", "--context", "device=phone")


def test_ads_are_ranked_and_priced(shop):
    done = shop("--history", "i03,i12", *CONTEXT, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["ad"] for one in told["ads"]} == {"red", "blue"}  # the last item bought, and below the reserve
    first, second = told["ads"]
    assert first["value"] >= second["value"]
    assert second["price"] == 0.01
    assert first["price"] == pytest.approx(max(0.01, second["value"] / first["probability"]))
    assert told["personalized"] is True
    plain = shop("--history", "i03,i12", *CONTEXT)
    for line, one in zip(plain.stdout.splitlines()[1:], told["ads"], strict=True):
        assert line.startswith(one["ad"])
        assert line.rstrip().endswith(f"{one['price']:.2f}")


def test_ads_that_are_the_same_for_all_look_at_neither_history_nor_context(shop):
    flags = ("--not-personalized", "--json")
    lists = [
        shop(*history, "--context", f"hour={hour}", "--context", "device=x", *flags).stdout
        for history in ((), ("--history", "i03,i12"))
        for hour in (1, 20)
    ]
    assert len(set(lists)) == 1
    assert {one["ad"] for one in json.loads(lists[0])["ads"]} == {"late", "red", "blue"}


def test_nothing_to_show_is_said(shop):
    done = shop(*CONTEXT, "--reserve", 100)
    assert (done.exit_code, done.stdout) == (0, "no ad passes the filters and bids the reserve\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--context", "hour"), "--context: expected NAME=VALUE, such as device=phone"),
        (("--context", "hour=1"), "--context device=VALUE: is missing, and the head reads it"),
        ((*CONTEXT, "--context", "mood=good"), "--context mood: the head does not read it; it reads score, item"),
        ((*CONTEXT, "--reserve", "inf"), "reserve=inf: expected a finite number >= 0"),
        (("--context", "hour=late", "--context", "device=x"), "column 'hour': expected numbers"),
    ],
)
def test_requests_that_cannot_be_answered_are_one_line(flags, message, shop):
    done = shop(*flags)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ad,item_id\nred,i05\n", "no column 'bid'; expected ad, item_id, bid"),
        ("ad,item_id,bid\nred,i05,1\nblue,nowhere,1\n", "row 2: item_id: not in the catalogue of the run"),
        ("ad,item_id,bid\nred,i05,much\n", "row 1: bid: expected a number"),
        ("ad,item_id,bid\nred,i05,-1\n", "other.csv: row 1: ad 'red': bid=-1.0: expected a finite number > 0"),
        (
            "ad,item_id,bid\nred,i05,1\nred,i06,1\n",
            "other.csv: row 2: ad 'red': is there twice; expected each name ",
        ),
    ],
)
def test_offers_that_cannot_be_read_are_one_line(text, message, shop):
    (shop.folder / "other.csv").write_text(text)
    done = shop(*CONTEXT, offers="other.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_damaged_head_is_one_line(shop):
    (shop.folder / "head.safetensors").write_bytes(b"no head")
    done = shop(*CONTEXT)
    assert done.exit_code == 2
    assert "head.safetensors: not a usable click head" in done.stderr


def test_folder_in_place_of_a_head_is_one_line(shop):
    (shop.folder / "head.safetensors").unlink()
    (shop.folder / "head.safetensors").mkdir()
    done = shop(*CONTEXT)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "head.safetensors: a folder; expected the file clicks.safetensors that fedrec clicks wrote" in done.stderr
