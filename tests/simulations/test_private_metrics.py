"""A whole run whose clients release noised metrics: off unless asked for, charged, and true where there is no noise."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.measuring import person_metrics
from fedrec.agreeing import make_plan
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.config import Config, parse_config
from fedrec.model.adapters import schema_of
from fedrec.privacy.policy import METRICS, load_policy
from fedrec.report.progress import Progress
from fedrec.schema import unflatten
from fedrec.workspace import client_histories, ledger_of
from simulations.experiment import simulate
from tests.tiny_run import SETTINGS, Bench, read_lines

NAMES = list(METRICS)
FEDERATION = {"rounds": 4, "ema": 0.0}


def config_of(bench, **sections):
    files = {"events": str(bench.events), "catalogue": str(bench.catalogue)}
    values = SETTINGS | {"data": SETTINGS["data"] | files, "federation": FEDERATION} | sections
    return parse_config(json.loads(json.dumps(values)), source="test")


def finished(bench, **sections):
    """Run to the end; returns the summary."""
    config = config_of(bench, **sections)
    return simulate(config, out=bench.out, resume=False, prepare_only=False, progress=Progress(enabled=False))


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """Measured after rounds 2 and 4 of 4; also with the reference without noise."""
    bench = Bench.at(tmp_path_factory.mktemp("private"))
    privacy = {"metrics": NAMES, "metrics_every": 2, "metric_noise_multiplier": 8.0}
    return bench, finished(bench, privacy=privacy, compare=True)


def test_metrics_are_off_by_default(tmp_path):
    assert (Config().privacy.metrics, Config().privacy.metrics_every) == ((), 10)
    config = config_of(Bench.at(tmp_path))
    plan = make_plan(config, people_per_client=10)
    assert (plan.metric_releases, plan.metric_noise_multiplier) == (0, None)


def test_plan_promises_one_epsilon_for_training_and_releases_together(private):
    bench, _ = private
    agreed = read_agreement(bench.out)
    assert (agreed.metrics, agreed.metrics_every) == (METRICS, 2)
    assert (agreed.plan.metric_releases, agreed.plan.metric_noise_multiplier) == (2, 8.0)
    assert agreed.plan.epsilon_after(4, metric_releases=2) <= agreed.plan.epsilon == 8.0
    config = config_of(bench)
    assert agreed.plan.noise_multiplier > make_plan(config, people_per_client=10).noise_multiplier
    assert load_policy(bench.out / "policy.toml").allowed_metrics == METRICS


def test_rounds_show_the_noised_metrics_where_they_were_released(private):
    bench, _ = private
    std = 8.0 * np.sqrt(2) / 10 / np.sqrt(4)  # ten people expected at each of four clients
    for line in read_lines(bench.out / "events.jsonl"):
        released = {name: value for name, value in line.items() if name.startswith("private_")}
        if line["round"] % 2:
            assert released == {}
            continue
        assert set(released) == {"private_ndcg@10", "private_hr@10", "private_noise_std", "private_replies"}
        assert released["private_replies"] == 4
        assert released["private_noise_std"] == pytest.approx(std)
        assert all(abs(released[f"private_{name}"] - 0.5) < 0.5 + 6 * std for name in NAMES)
        assert (line["quarantined"], line["reasons"]) == (0, {})


def test_ledgers_hold_both_kinds_of_charge_and_what_was_spent_is_what_is_told(private):
    bench, summary = private
    plan = read_agreement(bench.out).plan
    ledgers = [ledger_of(bench.out, partition, plan) for partition in range(4)]
    for ledger in ledgers:
        charged = [(entry.kind, entry.round_id.partition("/")[2]) for entry in ledger.entries() if entry.steps]
        assert charged == [
            ("training", "1"),
            ("training", "2"),
            ("metrics", "2/metrics"),
            ("training", "3"),
            ("training", "4"),
            ("metrics", "4/metrics"),
        ]
    spent = {ledger.spent() for ledger in ledgers}
    assert spent == {summary["privacy"]["epsilon"]} == {plan.epsilon_after(4, metric_releases=2)}
    told = [line["epsilon_spent"] for line in read_lines(bench.out / "events.jsonl")]
    assert told == [plan.epsilon_after(rounds, metric_releases=rounds // 2) for rounds in range(1, 5)]


def test_the_reference_without_noise_measures_nobody(private):
    bench, _ = private
    reference = read_agreement(bench.out / "reference-no-noise")
    assert (reference.metrics, reference.plan.metric_releases, reference.plan.private) == ((), 0, False)


def test_without_privacy_the_told_numbers_are_the_true_ones(tmp_path):
    """Stamped NOT PRIVATE: each client's mean over its ten expected people, averaged over clients."""
    bench = Bench.at(tmp_path)
    privacy = {"enabled": False, "metrics": NAMES, "metrics_every": 4}
    finished(bench, privacy=privacy, federation=FEDERATION | {"warmup_rounds": 0})
    agreed, last = read_agreement(bench.out), read_lines(bench.out / "events.jsonl")[-1]
    ranker = agreed_ranker(agreed, bench.out)
    published = load_file(bench.out / "checkpoints" / "round-00004.safetensors")["average_total"]  # ema 0: the last
    adapter = unflatten(published, schema_of(ranker))
    true = np.mean(
        [
            person_metrics(
                ranker, client_histories(bench.out, partition), adapter, metrics=NAMES, mask_last=agreed.mask_last
            ).sum(axis=0)
            / 10
            for partition in range(4)
        ],
        axis=0,
    )
    assert last["private_noise_std"] == 0
    np.testing.assert_allclose([last[f"private_{name}"] for name in NAMES], true, rtol=1e-6)
    assert 0 < true[0] < true[1] <= 1
    assert last["epsilon_spent"] is None
