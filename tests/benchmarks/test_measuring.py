"""Filling cells: each is measured once, by the project's own protocol, and a damaged one is refused by name."""

import json

import numpy as np
import pytest

from benchmarks.cells import difference, measured_cell, merchants_ahead, read_cell, worst_decile_difference, write_cell
from benchmarks.measuring import Case, changed, locked, measure_case
from benchmarks.tables import read_seeds, set_section
from fedrec.config import parse_config
from fedrec.errors import RunError
from fedrec.evaluation.protocol import Evaluation
from fedrec.report.progress import Progress
from tests.tiny_run import SETTINGS, Bench, read_lines

ROWS = ("popularity", "ease", "base", "local_only", "centralized", "no_noise", "distributed-8")


def case_of(bench, **changes):
    files = {"events": str(bench.events), "catalogue": str(bench.catalogue)}
    config = parse_config(json.loads(json.dumps(SETTINGS | {"data": SETTINGS["data"] | files})), source="test")
    return Case("beauty/seed-0", "beauty", changed(config, {"seed": 0} | changes))


def measure(case, rows, folder):
    measure_case(case, rows, folder, progress=Progress(enabled=False))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        bench = Bench.at(folder / "data")
        measure(case_of(bench), ROWS, folder)
    return bench, folder


@pytest.fixture
def at_home(measured, monkeypatch):
    monkeypatch.setenv("HOME", str(measured[1]))
    return measured


def cell(folder, name):
    return read_cell(folder / "beauty" / "seed-0" / f"{name}.json")


def evaluation(values, clients=((0, 1), (2, 3))):
    people = np.arange(len(values))
    return Evaluation(people, {"ndcg@10": np.asarray(values, np.float64)}, {}, tuple(np.array(c) for c in clients))


def packed(values, clients=((0, 1), (2, 3))):
    return measured_cell(
        evaluation(values, clients), settings="s", seconds=1, items=9, masking="last", split="x", federated=None
    )


def test_cells_say_what_the_command_says(at_home, tmp_path):
    bench, folder = at_home
    assert bench.simulate("--no-dp", "--compare", "--seed", 0, out=tmp_path / "run").exit_code == 0
    metrics = bench.summary(tmp_path / "run")["metrics"]
    names = {row: row for row in ("popularity", "base", "local_only", "centralized")}
    names |= {"shared": "shared-no_noise", "federated": "federated-no_noise"}
    for row, name in names.items():
        means = cell(folder, name).means
        assert {column: means[column] for column in metrics[row]} == pytest.approx(metrics[row], abs=1e-6), row


def test_a_private_cell_says_whom_the_guarantee_relies_on(measured):
    told = cell(measured[1], "federated-distributed-8").federated
    assert "(epsilon = 8, delta = 1e-05)" in told.statement
    assert "the noise is shared" in told.statement or "sum" in told.statement
    assert "NOT PRIVATE" in cell(measured[1], "federated-no_noise").federated.statement


def test_what_is_there_is_not_measured_again(at_home):
    bench, folder = at_home
    cells = {path: path.stat().st_mtime_ns for path in folder.glob("beauty/seed-0/*.json")}
    assert len(cells) == 9
    runs = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/*") if path.is_file()}
    measure(case_of(bench), ROWS, folder)
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert {path: path.stat().st_mtime_ns for path in runs} == runs


def test_a_cell_that_was_removed_comes_back_the_same_from_the_base_that_is_there(at_home, monkeypatch):
    bench, folder = at_home
    path = folder / "beauty" / "seed-0" / "base.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    monkeypatch.setattr("benchmarks.measuring.make_base", lambda *_, **__: pytest.fail("the base was made twice"))
    measure(case_of(bench), ROWS, folder)
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after | {"seconds": 0} == before | {"seconds": 0}


def test_cells_of_a_finished_federation_come_back_without_a_round(at_home, monkeypatch):
    bench, folder = at_home
    paths = [folder / "beauty" / "seed-0" / f"{part}-distributed-8.json" for part in ("shared", "federated")]
    before = [json.loads(path.read_text(encoding="utf-8"))["means"] for path in paths]
    paths[0].unlink()
    rounds = (folder / "runs" / "beauty" / "seed-0" / "distributed-8" / "events.jsonl").read_bytes()
    measure(case_of(bench), ROWS, folder)
    assert [json.loads(path.read_text(encoding="utf-8"))["means"] for path in paths] == before
    assert (folder / "runs" / "beauty" / "seed-0" / "distributed-8" / "events.jsonl").read_bytes() == rounds


def test_a_run_that_was_cut_short_is_gone_on_with_only_where_it_can_be(at_home, tmp_path):
    bench, _ = at_home
    case, run = case_of(bench), tmp_path / "runs" / "beauty" / "seed-0" / "no_noise"
    measure(case, ["base"], tmp_path)  # prepares the run, and no round
    key = (run / "keys" / "server.key").read_bytes()
    measure(case, ["local_only"], tmp_path)
    assert (run / "keys" / "server.key").read_bytes() == key
    (run / "agreement.json").unlink()
    measure(case, ["centralized"], tmp_path)
    remade = (run / "keys" / "server.key").read_bytes()
    assert remade != key
    measure(case_of(bench, **{"federation.rounds": 2}), ["frozen_text"], tmp_path)  # other settings: another run
    assert (run / "keys" / "server.key").read_bytes() != remade


def test_a_run_that_its_clients_would_refuse_is_made_anew(at_home, tmp_path, monkeypatch):
    bench, _ = at_home
    case, run = case_of(bench), tmp_path / "runs" / "beauty" / "seed-0" / "local-8"
    with monkeypatch.context() as patch:
        patch.setattr("fedrec.workspace.code_digest", lambda: "0" * 64)  # what was allowed when it was prepared
        patch.setattr("benchmarks.measuring.federate", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            measure(case, ["local-8"], tmp_path)
    assert (run / "agreement.json").exists()
    measure(case, ["local-8"], tmp_path)
    assert [line["void"] for line in read_lines(run / "events.jsonl")] == [False] * 3


def test_cases_that_differ_in_their_merchants_share_a_base_and_no_others(at_home, tmp_path):
    bench, _ = at_home
    sizes = [case_of(bench, **{"partition.clients": n}) for n in (2, 4)]
    for number, case in enumerate([*sizes, case_of(bench, seed=1), case_of(bench, **{"pretraining.epochs": 2})]):
        measure(Case(f"size-{number}", "beauty", case.config), ["base"], tmp_path)
    assert len(list((tmp_path / "bases").iterdir())) == 3


def test_two_processes_do_not_work_on_one_case(at_home, tmp_path):
    bench, _ = at_home
    message = "beauty-seed-0: another process is at work on it; wait for it"
    with locked(tmp_path / "locks" / "beauty-seed-0", wait=False), pytest.raises(RunError, match=message):
        measure(case_of(bench), ["popularity"], tmp_path)
    measure(case_of(bench), ["popularity"], tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"settings": "x"}', None])
def test_a_damaged_cell_is_refused_by_name(damage, at_home, tmp_path):
    bench, folder = at_home
    whole = (folder / "beauty" / "seed-0" / "popularity.json").read_bytes()
    path = tmp_path / "beauty" / "seed-0" / "popularity.json"
    path.parent.mkdir(parents=True)
    values = json.loads(whole)
    path.write_bytes(json.dumps(values | {"ndcg": values["ndcg"][:-9]}).encode() if damage is None else damage)
    with pytest.raises(RunError, match=r"beauty/seed-0/popularity\.json: damaged; remove it to measure it again"):
        measure(case_of(bench), ["popularity"], tmp_path)
    with pytest.raises(RunError, match=r"popularity\.json: damaged"):
        read_seeds(tmp_path, "beauty", ["popularity"], [0])


def test_a_cell_of_other_settings_is_refused_by_name(at_home):
    bench, folder = at_home
    with pytest.raises(RunError, match=r"base\.json: measured with other settings; remove it to measure it again"):
        measure(case_of(bench, **{"federation.rounds": 2}), ["popularity", "base"], folder)


def test_a_ranker_that_cannot_be_had_leaves_the_reason(at_home, tmp_path):
    bench, _ = at_home
    case = case_of(bench)
    measure(Case("next_basket/seed-0", "next_basket", case.config), ["popularity", "ease"], tmp_path)
    found = read_seeds(tmp_path, "next_basket", ["popularity", "ease"], [0])
    assert found[0]["ease"].refused == "no settings were chosen for this set"
    assert "- Not measured: ease: no settings were chosen for this set." in set_section("next_basket", found)


def test_differences_are_of_the_same_people_and_by_hand():
    first, second = packed([0.0, 0.5, 1.0, 0.5]), packed([0.5, 0.5, 1.0, 1.0])
    assert difference(first, second) == pytest.approx((0.25, np.std([0.5, 0, 0, 0.5], ddof=1) / 2))
    assert worst_decile_difference(first, second)[0] == pytest.approx(0.25)  # .25 against .5, the first merchant
    assert merchants_ahead(first, second) == (2, 0)
    assert merchants_ahead(second, first) == (0, 2)
    with pytest.raises(RunError, match="cells of other people cannot be compared"):
        difference(first, packed([0.0, 0.5, 1.0], ((0, 1), (2,))))


def test_the_error_of_a_worst_decile_shrinks_with_more_merchants():
    rng = np.random.default_rng(0)

    def error(merchants):
        clients = tuple((i,) for i in range(merchants))
        alone, together = rng.random((2, merchants))
        return worst_decile_difference(packed(alone, clients), packed(together, clients))[1]

    assert error(2_000) < error(100) / 2


def test_a_merchant_without_targets_is_left_out(tmp_path):
    write_cell(tmp_path / "a.json", packed([0.5, 1.0], ((0, 1), (7,))))
    found = read_cell(tmp_path / "a.json")
    assert found.merchants == (0.75, None)
    assert found.per_person().tolist() == [0.5, 1.0]
    assert merchants_ahead(found, found) == (0, 0)
    assert worst_decile_difference(found, found) == (0.0, 0.0)
