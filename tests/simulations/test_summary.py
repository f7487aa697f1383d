"""The summary's figures follow from the rounds, the ledgers and the table."""

import json
import statistics

import numpy as np
import pytest

from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.evaluation.protocol import Evaluation
from fedrec.model.adapters import adapter_arrays
from simulations.summary import _client_column, _comparison
from tests.tiny_run import read_lines


def report_of(bench):
    return json.loads((bench.out / "report.json").read_text(encoding="utf-8"))


def test_timing_and_traffic_follow_from_the_rounds(some_asked):
    bench, _ = some_asked
    summary, lines = bench.summary(), read_lines(bench.out / "events.jsonl")
    seconds = [line["seconds"] for line in lines]
    assert summary["timing"]["round_median_s"] == statistics.median(seconds)
    assert summary["timing"]["updates_per_s"] == pytest.approx(6 / sum(seconds), rel=0.01)
    assert summary["timing"]["total_s"] >= summary["timing"]["pretrain_s"] + sum(seconds) - 1e-3
    assert summary["bytes_up_per_client_round"] == pytest.approx(sum(line["bytes_up"] for line in lines) / 6, abs=0.1)


def test_one_update_costs_a_little_more_than_its_numbers(some_asked):
    bench, _ = some_asked
    summary = bench.summary()
    numbers = 4 * summary["adapter"]["trainable_parameters"]
    assert numbers < summary["bytes_up_per_client_round"] < numbers + 2_000


def test_trainable_parameters_are_those_of_the_adapter(some_asked):
    bench, _ = some_asked
    arrays = adapter_arrays(agreed_ranker(read_agreement(bench.out), bench.out))
    assert bench.summary()["adapter"]["trainable_parameters"] == sum(values.size for values in arrays.values())


def test_the_guarantee_covers_every_round_even_for_clients_asked_less_often(some_asked):
    bench, _ = some_asked
    privacy = bench.summary()["privacy"]
    assert privacy["steps"] == 3
    assert privacy["per_client_epsilon"]["min"] < privacy["per_client_epsilon"]["max"] <= privacy["epsilon"] <= 8.0


def test_the_report_lists_each_clients_own_epsilon(some_asked):
    bench, _ = some_asked
    listed = [client["epsilon"] for client in report_of(bench)["context"]["clients"]]
    spread = bench.summary()["privacy"]["per_client_epsilon"]
    assert (min(listed), statistics.median(listed), max(listed)) == (spread["min"], spread["median"], spread["max"])


def test_a_person_at_more_merchants_is_protected_less(some_asked):
    bench, _ = some_asked
    context = report_of(bench)["context"]
    composed = [context["epsilon_for_person_at"][str(k)] for k in (1, 2, 3, 5, 10)]
    assert composed == sorted(set(composed))
    assert composed[0] == pytest.approx(bench.summary()["privacy"]["epsilon"], abs=1e-3)


def test_without_privacy_there_is_no_epsilon_anywhere(bare_run):
    context = report_of(bare_run[0])["context"]
    assert context["epsilon_for_person_at"] == {}
    assert {client["epsilon"] for client in context["clients"]} == {None}


def test_the_report_counts_people_as_the_partition_does(some_asked):
    bench, _ = some_asked
    data = report_of(bench)["context"]["data"]
    assert (data["people"], data["panel_people"], data["client_people"]) == (120, 24, 40)
    assert (data["items"], data["events"]) == (40, 960)


def test_the_command_in_the_report_makes_the_run_again(bare_run, tmp_path):
    bench, _ = bare_run
    command = report_of(bench)["context"]["command"]
    assert command == "fedrec simulate --config config.toml --out NEW_FOLDER"
    again = bench.run("--config", bench.out / "config.toml", out=tmp_path / "again")
    assert again.exit_code == 0
    assert bench.summary(tmp_path / "again")["metrics"] == bench.summary()["metrics"]


def test_peak_memory_is_in_megabytes(some_asked):
    bench, _ = some_asked
    assert 100 < bench.summary()["peak_rss_mb"] < 20_000


def evaluation(*values, people=None):
    people = np.arange(len(values)) if people is None else people
    return Evaluation(people, {"ndcg@10": np.array(values)}, {}, (np.array([0]), np.array([1]), np.array([9])))


def test_comparison_is_paired():
    found = _comparison(evaluation(0.1, 0.5, 0.3), evaluation(0.2, 0.6, 0.4))
    assert found["difference"] == pytest.approx(0.1)
    assert found["standard_error"] == pytest.approx(0.0, abs=1e-12)  # everyone gained the same
    assert found["people"] == 3


def test_one_person_has_no_standard_error():
    assert _comparison(evaluation(0.1), evaluation(0.4))["standard_error"] is None


def test_a_client_without_anyone_to_ask_has_no_figure():
    assert _client_column(evaluation(0.1, 0.5)) == [0.1, 0.5, None]
