"""``fedrec recommend`` and ``fedrec explain`` on a real run: what they print, and what they refuse."""

import json
import logging

import pytest

from tests.tiny_run import fedrec
from tests.tiny_serving import shop_of

HISTORY = "i03,i09,i12"


def command(bench, *arguments):
    return fedrec(*arguments, home=bench.folder)


def json_of(bench, *arguments):
    done = command(bench, *arguments, "--json")
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_recommend_prints_ids_titles_and_scores_best_first(counted_run):
    told = json_of(counted_run, "recommend", counted_run.out, "--history", HISTORY, "--k", 5)
    model = shop_of(counted_run.out).model
    assert told["version"] == model.version
    assert told["privacy"] == model.statement
    scores = [row["score"] for row in told["items"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    shown = command(counted_run, "recommend", counted_run.out, "--history", HISTORY, "--k", 5)
    lines = shown.stdout.splitlines()[1:]
    for line, row in zip(lines, told["items"], strict=True):
        assert line.split()[1] == row["item_id"]
        assert row["title"] in line
        assert line.endswith(f"{row['score']:.2f}")
        assert row["item_id"] != "i12"  # just bought


def test_recommend_obeys_its_filters(counted_run):
    flags = ("--max-price", 3, "--min-price", 2, "--hide-bought", "--k", 40)
    told = json_of(counted_run, "recommend", counted_run.out, "--history", HISTORY, *flags)
    assert {row["item_id"] for row in told["items"]} == {"i04", "i05", "i06", "i07", "i08"}  # 1 + item / 4


def test_recommend_says_when_nothing_passes(counted_run):
    done = command(counted_run, "recommend", counted_run.out, "--min-price", 1000)
    assert (done.exit_code, done.stdout) == (0, "no item passes the filters\n")


def test_recommend_for_nobody_in_particular_does_not_look_at_the_history(counted_run):
    first, second = (
        json_of(counted_run, "recommend", counted_run.out, "--not-personalized", *history)["items"]
        for history in ([], ["--history", HISTORY])
    )
    assert first == second


def test_a_diverse_list_is_another_one(counted_run):
    plain, mixed = (
        json_of(counted_run, "recommend", counted_run.out, "--history", HISTORY, "--diversity", diversity)["items"]
        for diversity in (0, 0.9)
    )
    assert plain[0] == mixed[0]
    assert plain != mixed


def test_each_reason_is_that_of_explain(counted_run):
    told = json_of(counted_run, "recommend", counted_run.out, "--history", HISTORY, "--reasons", "--k", 3)
    for row in told["items"]:
        why = json_of(counted_run, "explain", counted_run.out, "--history", HISTORY, "--item", row["item_id"])
        assert why["sentence"] == row["reason"]
        assert why["score"] == pytest.approx(row["score"], abs=1e-4)
        assert why["parts"] == pytest.approx(row["parts"], abs=1e-4)


def test_leaving_out_the_named_purchase_gives_the_score_that_explain_foretold(counted_run):
    why = json_of(counted_run, "explain", counted_run.out, "--history", HISTORY, "--item", "i13")
    cause = why["causes"][0]
    left = ",".join(item for item in HISTORY.split(",") if item != cause["item_id"])
    after = json_of(counted_run, "explain", counted_run.out, "--history", left, "--item", "i13")
    assert why["score"] - after["score"] == pytest.approx(cause["drop"], abs=1e-4)
    shown = command(counted_run, "explain", counted_run.out, "--history", HISTORY, "--item", "i13").stdout
    assert why["sentence"] in " ".join(shown.split())
    assert f"{after['score']:.2f}" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("recommend", "{run}", "--history", "i03,j09"), "error: --history: item 'j09' is not in the catalogue; did"),
        (("explain", "{run}", "--item", "blak sign"), "error: --item: item 'blak sign' is not in the catalogue; did"),
        (("recommend", "{run}", "--min-price", "5", "--max-price", "3"), "error: --min-price 5 is above --max-price 3"),
        (("recommend", "{run}", "--category", "mugs"), "error: category: the catalogue has no such column"),
        (("recommend", "{run}/nowhere"), "error: {run}/nowhere: not the folder of a run: there is no agree"),
        (("recommend", "{run}", "--catalogue", "{run}/none.csv"), "error: {run}/none.csv: "),
    ],
)
def test_a_mistake_is_one_line(counted_run, arguments, expected):
    done = command(counted_run, *(text.format(run=counted_run.out) for text in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(expected.format(run=counted_run.out))
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", [("--k", 0), ("--diversity", 2), ("--min-price", -1), ("--max-price", -0.5)])
def test_a_number_out_of_range_is_named_by_its_flag(counted_run, flag):
    done = command(counted_run, "recommend", counted_run.out, *flag)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '{flag[0]}': {flag[1]} is not in the range" in done.stderr.replace(".0 is", " is")


def test_nothing_of_a_history_is_logged(counted_run, caplog):
    caplog.set_level(logging.DEBUG)
    flags = ("--history", HISTORY, "--item", "i20")
    done = command(counted_run, "explain", counted_run.out, *flags)
    assert done.exit_code == 0
    assert done.stderr == ""
    assert not [text for text in caplog.messages if any(item in text for item in HISTORY.split(","))]
