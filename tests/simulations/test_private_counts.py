"""A whole run whose clients count their people: charged, published, part of the rows, and the same after a crash."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.agreement import agreed_counting, read_agreement
from fedrec.config import load_config
from fedrec.model.counting import person_statistics
from fedrec.privacy.policy import load_policy
from fedrec.report.progress import Progress
from fedrec.schema import parameters_of
from fedrec.workspace import client_histories, ledger_of
from simulations.compare import REFERENCE, _Contenders, counted_parts
from simulations.experiment import simulate
from simulations.prepare import read_people
from tests.simulations.test_private_metrics import config_of, finished
from tests.tiny_run import Bench, read_lines

STATISTICS = {"noise_share": 0.4, "popularity_share": 0.25, "weight": 40.0}


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    bench = Bench.at(tmp_path_factory.mktemp("private"))
    return bench, finished(bench, statistics=STATISTICS, compare=True)


def test_plan_policy_and_ledgers_cover_training_and_counts_together(private):
    bench, summary = private
    agreed = read_agreement(bench.out)
    split = json.loads((bench.out / "split.json").read_text())
    assert (split["share"], split["noise_multiplier"]) == (0.4, agreed.plan.statistics_noise_multiplier)
    assert load_policy(bench.out / "policy.toml").statistics is True
    spent = agreed.plan.epsilon_after(4, statistics=True)
    assert agreed.plan.epsilon_after(4) < spent <= 8.0
    for client in range(4):
        ledger = ledger_of(bench.out, client, agreed.plan)
        assert ledger.spent() == spent
        assert next(entry.kind for entry in ledger.entries() if entry.state == "reserved") == "statistics"
    assert summary["privacy"]["epsilon"] == spent
    assert read_lines(bench.out / "events.jsonl")[-1]["epsilon_spent"] == spent


def test_without_noise_what_is_published_is_the_sum_over_everybodys_people(private):
    bench, _ = private
    run = bench.out / REFERENCE
    counting = agreed_counting(read_agreement(run), run)
    total = np.zeros(parameters_of(counting.schema))
    for client in range(4):
        for places, values in person_statistics(client_histories(run, client), counting):
            total[places] += values
    stored = load_file(run / "statistics.safetensors")
    items = counting.pairs.items
    assert stored["popularity"] == pytest.approx(total[:items], abs=1e-5)
    kept = total[items:] > 1e-9
    assert stored["counts"] == pytest.approx(total[items:][kept], rel=1e-5)
    assert stored["first"].tolist() == counting.pairs.first[kept].tolist()


def test_pooled_training_has_the_counts_that_a_federation_without_noise_has(private):
    """Or a federation would be held against less than pooling its data gives."""
    bench, _ = private
    config, run = load_config(bench.out / "config.toml"), bench.out / REFERENCE
    contenders = _Contenders(config, run, read_people(config), read_agreement(run))
    trained, parts = [], []
    contenders.alone = lambda adapter, counted: trained.append(adapter) or parts.extend(counted)
    contenders.centralized()
    assert any((trained[0][name] != values).any() for name, values in contenders.base.items())
    (pooled,), (federated,) = parts, counted_parts(run)
    assert (pooled.weight, pooled.recent, pooled.sharpness) == (40.0, federated.recent, federated.sharpness)
    assert pooled.transitions.columns.tolist() == federated.transitions.columns.tolist()
    assert pooled.transitions.values == pytest.approx(federated.transitions.values, rel=1e-5)


def test_the_counts_enter_the_rows_that_were_federated_and_no_other(private, tmp_path):
    bench, summary = private
    plain = finished(Bench.at(tmp_path), compare=True)
    for row in ("popularity", "frozen_text", "base", "local_only"):
        assert summary["metrics"][row] == plain["metrics"][row]
    assert summary["metrics"]["shared_no_noise"] != plain["metrics"]["shared_no_noise"]
    assert summary["metrics"]["federated_no_noise"] != plain["metrics"]["federated_no_noise"]
    assert summary["metrics"]["centralized"] != plain["metrics"]["centralized"]
    report = (bench.out / "report.html").read_text()
    assert "4 clients counted pairs once; " in report
    numbers = parameters_of(agreed_counting(read_agreement(bench.out), bench.out).schema)
    assert f"and once {numbers * 4 / 1024:,.0f} KiB of noised counts" in report
    assert "and enter the score with weight 40" in report
    assert "one release of noised counts" in report
    split = json.loads((bench.out / "split.json").read_text())
    pairs, adapter = (part["verdict"].replace("'", "&#39;") for part in split["parts"])
    assert f"Of the budget, pairs get {pairs}; the adapter gets {adapter}." in report


def test_a_run_that_lost_the_checkpoint_with_its_counts_gets_the_same_and_nobody_pays_twice(tmp_path):
    """The clients repeat what they sent, byte for byte."""
    bench, sections = Bench.at(tmp_path), {"statistics": STATISTICS, "federation": {"rounds": 1}}
    finished(bench, **sections)
    before = (bench.out / "statistics.safetensors").read_bytes()
    for path in (*(bench.out / "checkpoints").glob("round-00001.*"), bench.out / "statistics.safetensors"):
        path.unlink()
    config = config_of(bench, **sections)
    simulate(config, out=bench.out, resume=True, prepare_only=False, progress=Progress(enabled=False))
    assert (bench.out / "statistics.safetensors").read_bytes() == before
    agreed = read_agreement(bench.out)
    charged = [e.round_id for e in ledger_of(bench.out, 0, agreed.plan).entries() if e.state == "reserved"]
    assert charged == [f"{agreed.run_id}/statistics", f"{agreed.run_id}/1"]


def test_no_statistics_unless_asked_for(tmp_path):
    bench = Bench.at(tmp_path)
    summary = finished(bench, federation={"rounds": 1})
    assert read_agreement(bench.out).statistics is None
    assert not (bench.out / "statistics.safetensors").exists()
    assert summary["privacy"] is not None
