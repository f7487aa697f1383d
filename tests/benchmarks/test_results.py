"""The document: tables of what was measured, a dash and a reason for what was not, pictures, and a command for all."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import results
from benchmarks.cells import Cell, Federated, measured_cell, write_cell
from benchmarks.rows import ROWS, cells_of, default_rows, label_of
from benchmarks.tables import MARKS, read_seeds
from fedrec.config import parse_config
from fedrec.errors import RunError
from fedrec.evaluation.protocol import Evaluation
from tests.tiny_run import ROOT, SETTINGS, Bench

PEOPLE = 40
TOLD = Federated(
    statement="Everybody has (epsilon = 8).", rounds=30, published_round=30, void_rounds=0, trainable_parameters=640
)


def put(folder, case, name, level, *, seed=0, people=PEOPLE, federated=None, cold=()):
    """A cell of people who have NDCG@10 ``level``, give or take .01, by turns."""
    values = level + 0.01 * (-1.0) ** np.arange(people)
    clients = tuple(np.array_split(np.arange(people), 4))
    metrics = dict.fromkeys(("ndcg@10", "hr@10", "recall@20", "ndcg@20"), values)
    found = Evaluation(np.arange(people), metrics, {}, clients, np.array(cold))
    cell = measured_cell(
        found, settings="s", seconds=7.2, items=99, masking="last", split="leave-last-out", federated=federated
    )
    write_cell(folder / case / f"seed-{seed}" / f"{name}.json", cell)


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "results.md").write_text(
        f"# By hand\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\n## Also by hand\n", encoding="utf-8"
    )
    return folder


def rendered(folder, docs, seeds=(0, 1, 2)):
    results.render(folder, docs, seeds=seeds)
    return (docs / "results.md").read_text(encoding="utf-8")


def line_of(text, label):
    return next(line for line in text.splitlines() if line.startswith(f"| {label} |"))


def test_what_was_written_by_hand_stays_and_the_rest_is_replaced(docs, tmp_path):
    put(tmp_path, "beauty", "popularity", 0.25)
    text = rendered(tmp_path, docs)
    assert text.startswith(f"# By hand\n\n{MARKS[0]}\n")
    assert text.endswith(f"{MARKS[1]}\n\n## Also by hand\n")
    assert "old" not in text
    assert rendered(tmp_path, docs) == text


def test_a_figure_is_a_mean_and_a_deviation_over_seeds(docs, tmp_path):
    for seed, level in enumerate((0.1, 0.2, 0.3)):
        put(tmp_path, "beauty", "popularity", level, seed=seed)
    text = rendered(tmp_path, docs)
    assert line_of(text, "popularity").startswith("| popularity | 0.2000 ± 0.1000 | 0.2000 ± 0.1000 |")
    assert "40 people with a target at 4 merchants, 99 items" in text
    assert "mean ± standard deviation over seeds 0, 1, 2" in text
    assert "the item just bought is masked" in text


def test_what_was_not_measured_is_a_dash_with_its_reason(docs, tmp_path):
    put(tmp_path, "beauty", "popularity", 0.25)
    put(tmp_path, "beauty", "popularity", 0.25, seed=1)
    put(tmp_path, "beauty", "base", 0.25)
    refused = Cell(settings="s", seconds=0.0, refused="EASE on 99 items: too many")
    write_cell(tmp_path / "beauty" / "seed-0" / "ease.json", refused)
    text = rendered(tmp_path, docs)
    assert line_of(text, "ease") == "| ease | - | - | - | - |"
    assert "- Not measured: ease: EASE on 99 items: too many." in text
    assert "- Of seed 0 alone: base." in text
    assert line_of(text, "sasrec") == "| sasrec | - | - | - | - |"
    assert "- Not run: repeat; markov_knn; sasrec; " in text
    assert text.count("Not measured yet.") == len(results.SETS) - 1
    assert "images/" not in text


def test_gains_are_paired_with_the_right_row(docs, tmp_path):
    for name, level in {"base": 0.1, "local_only": 0.2}.items():
        put(tmp_path, "beauty", name, level)
    for name, level in {"shared-local-8": 0.15, "federated-local-8": 0.3}.items():
        put(tmp_path, "beauty", name, level, federated=TOLD)
    gains = line_of(rendered(tmp_path, docs), "local, ε 8").split(" | ")
    assert [cell.split(" ± ")[0] for cell in gains[1:5]] == ["0.1500", "+0.0500", "+0.1000", "+0.1000"]
    assert gains[5].rstrip(" |") == "4, 0"
    assert "- local, ε 8: Everybody has (epsilon = 8)." in rendered(tmp_path, docs)


def test_cold_items_have_a_column_where_there_are_any(docs, tmp_path):
    put(tmp_path, "beauty", "popularity", 0.25, cold=[0.0, 0.0, np.nan, 1.0, 0.0])
    put(tmp_path, "office", "popularity", 0.25)
    text = rendered(tmp_path, docs)
    beauty, office = text.split("## Amazon Beauty")[1].split("## Amazon Office")
    assert line_of(beauty, "popularity").endswith("| 0.2500 |")
    assert "Cold: asked for an item in nobody's training events, 4 people." in beauty
    assert "cold" not in office.lower()


def test_cells_of_different_people_stand_in_no_table_together(docs, tmp_path):
    put(tmp_path, "beauty", "base", 0.1)
    put(tmp_path, "beauty", "local_only", 0.1, people=PEOPLE + 1)
    with pytest.raises(RunError, match=r"beauty/seed-0: cells of different people"):
        rendered(tmp_path, docs)


def test_both_pictures_are_drawn_from_what_there_is(docs, tmp_path):
    for name, level in {"base": 0.1, "local_only": 0.2, "federated-no_noise": 0.35}.items():
        put(tmp_path, "beauty", name, level, federated=TOLD)
    for trust, level in {"local": 0.21, "distributed": 0.3}.items():
        for epsilon in (1, 3, 8):
            put(tmp_path, "beauty", f"federated-{trust}-{epsilon}", level + epsilon / 100, federated=TOLD)
    for size in ("5x74", "50x74"):
        put(tmp_path, f"scale/{size}", "local_only", 0.2)
        put(tmp_path, f"scale/{size}", "federated-local-8", 0.21, federated=TOLD)
    text = rendered(tmp_path, docs)
    for picture in (results.EPSILON_PICTURE, results.SCALE_PICTURE):
        assert f"]({picture})" in text
        assert (docs / picture).read_text(encoding="utf-8").rstrip().endswith("</svg>")
    first = (docs / results.EPSILON_PICTURE).read_bytes()
    rendered(tmp_path, docs)
    assert (docs / results.EPSILON_PICTURE).read_bytes() == first
    assert line_of(text, "5 | 74").endswith("| - |")
    assert "- Not run: federated, distributed, ε 8 at 5 x 74; federated, distributed, ε 8 at 50 x 74." in text


def test_every_cell_has_words_and_a_place(tmp_path):
    names = [name for row in ROWS for name in cells_of(row)]
    assert len({label_of(name) for name in names}) == len(names) == 9 + 2 * 11
    for name in names:
        put(tmp_path, "beauty", name, 0.1)
    assert set(read_seeds(tmp_path, "beauty", ROWS, [0])[0]) == set(names)
    assert set(default_rows("beauty")) == set(ROWS) - {"no_noise_large"}


def test_every_set_has_settings_in_the_plan():
    planned = results.plan("tables", results.SETS, [0, 1], None)
    assert len(planned) == 2 * len(results.SETS)
    assert all(size[0] * size[1] <= 3_728 for size in results.SIZES)  # people beside the panel of the bundled set
    baskets = results.settings_of("next_basket")
    assert (baskets.data.split, baskets.local.repeat_weight > 0) == ("next-basket", True)


def test_a_case_tells_what_went_wrong_and_takes_the_size_it_is_given(tmp_path, monkeypatch):
    bench = Bench.at(tmp_path / "data")
    files = {"events": str(bench.events), "catalogue": str(bench.catalogue)}
    config = parse_config(SETTINGS | {"data": SETTINGS["data"] | files}, source="test")
    monkeypatch.setattr(results, "settings_of", lambda _: config)
    asked = {"data_set": "beauty", "seed": 0, "folder": tmp_path}
    assert results.measure_one("beauty", rows=("popularity",), size=None, **asked) == ""
    assert results.measure_one("scale/2x3", rows=("popularity",), size=(2, 3), **asked) == ""
    cells = [tmp_path / name / "seed-0" / "popularity.json" for name in ("beauty", "scale/2x3")]
    questions = [json.loads(path.read_text(encoding="utf-8"))["question"] for path in cells]
    assert [(each["people"], each["merchants"]) for each in questions] == [(40, 4), (6, 2)]
    cells[0].write_text("{", encoding="utf-8")
    told = results.measure_one("beauty", rows=("popularity",), size=None, **asked)
    assert told == f"{cells[0]}: damaged; remove it to measure it again"
    assert results.measure_one("beauty", rows=("no such row",), size=None, **asked).startswith("Traceback")


@pytest.mark.slow
def test_the_command_measures_in_parallel_and_a_case_that_fails_stops_nothing(docs, tmp_path):
    damaged = tmp_path / "out" / "online_retail" / "seed-0" / "repeat.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{", encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.results", tmp_path / "out", "--sets", "online_retail", "next_basket"]
    command += ["--seeds", "0", "--rows", "repeat", "--jobs", "2", "--docs", docs]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "failed='online_retail' seed=0: " in done.stderr
    assert f"error: {damaged}: damaged; remove it to measure it again" in done.stderr
    damaged.unlink()
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = (docs / "results.md").read_text(encoding="utf-8")
    assert "| repeat | 0.05" in text
    assert "3,728 people with a target at 50 merchants, 3,659 items" in text
    assert "nothing is masked" in text
