"""The rows of the table, and what must be equal among them."""

import json

import numpy as np
import pytest

from clients.remembering import memory_spec
from fedrec.agreement import read_agreement
from fedrec.config import LocalConfig, load_config
from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import load_base
from fedrec.model.pairs import PublicPairs
from fedrec.model.popularity import popularity_shares
from fedrec.runfolder import RunFolder
from fedrec.schema import unflatten
from server.job import job_of_run
from server.strategy import initial_state
from simulations.compare import MerchantScorer, _Contenders
from simulations.prepare import read_people
from simulations.rows import ranker_scorer
from tests.tiny_run import LEARNING, Bench

ALWAYS = ["popularity", "repeat", "markov_knn", "frozen_text", "base", "local_only", "shared", "federated"]
COMPARED = ["shared_no_noise", "federated_no_noise", "centralized"]
NO_LOCAL_PART = {
    "local.tuning_steps": 0,
    "local.memory_weight": 0.0,
    "local.repeat_weight": 0.0,
    "local.basket_weight": 0.0,
    "local.popular_weight": 0.0,
}


def test_rows_come_in_the_order_of_the_table(private_run, bare_run):
    assert list(bare_run[0].summary()["metrics"]) == ALWAYS
    assert list(private_run[0].summary()["metrics"]) == ALWAYS + COMPARED


def test_without_a_local_part_merchants_deploy_the_shared_ranker(tmp_path):
    bench = Bench.at(tmp_path, NO_LOCAL_PART | LEARNING)
    assert bench.simulate("--no-dp").exit_code == 0
    metrics = bench.summary()["metrics"]
    assert metrics["federated"] == pytest.approx(metrics["shared"], abs=1e-6)
    assert metrics["local_only"] == pytest.approx(metrics["base"], abs=1e-6)
    assert metrics["shared"] != metrics["base"]


def test_the_local_part_changes_what_merchants_deploy(bare_run):
    metrics = bare_run[0].summary()["metrics"]
    assert abs(metrics["federated"]["ndcg@10"] - metrics["shared"]["ndcg@10"]) > 0.002
    assert abs(metrics["local_only"]["ndcg@10"] - metrics["base"]["ndcg@10"]) > 0.002


def test_untrained_base_is_the_frozen_text_baseline(tmp_path):
    bench = Bench.at(tmp_path, {"pretraining.epochs": 0, "pairs.weight": 0.0})
    assert bench.simulate("--no-dp").exit_code == 0
    metrics = bench.summary()["metrics"]
    assert metrics["base"] == pytest.approx(metrics["frozen_text"], abs=1e-4)


def test_public_pairs_count_in_every_row_of_a_trained_ranker_and_in_no_baseline(bare_run, tmp_path):
    """The same base and rounds, whose pairs say much more."""
    bench = Bench.at(tmp_path, {"pairs.sharpness": 30.0})
    assert bench.simulate("--no-dp").exit_code == 0
    faint, loud = bare_run[0].summary()["metrics"], bench.summary()["metrics"]
    for row in ("base", "shared", "local_only", "federated"):
        assert loud[row]["ndcg@10"] > faint[row]["ndcg@10"] + 0.1, row
    for row in ("popularity", "repeat", "markov_knn", "frozen_text"):
        assert loud[row] == faint[row], row


def test_before_the_first_round_the_federation_is_the_base_person_by_person(bare_run):
    """The adapter that a server starts from is no change, with public pairs and with the local part alike."""
    bench, _ = bare_run
    config = load_config(bench.out / "config.toml")
    people, agreement = read_people(config), read_agreement(bench.out)
    with RunFolder.open_for_resume(bench.out) as folder:
        job = job_of_run(folder, config)
    begun = initial_state(job.initial, job.federation.schema, measures={"panel_loss": 0.0})
    start = unflatten(begun.best, job.federation.schema)
    contenders = _Contenders(config, bench.out, people, agreement)
    everyone = people.private
    ranker, train, pairs = load_base(bench.out / "base"), people.split.train, PublicPairs.load(bench.out / "base")
    assert pairs.spec.weight > 0
    base = ranker_scorer(ranker, train, parts=[pairs.part()])(everyone)
    load_adapter_arrays(contenders.ranker, start)
    assert ranker_scorer(contenders.ranker, train, parts=[pairs.part()])(everyone) == pytest.approx(base, abs=1e-6)
    for row in (contenders.alone, contenders.at_merchants):
        before, after = row(contenders.base).per_person, row(start).per_person
        for name in before:
            assert after[name] == pytest.approx(before[name], abs=1e-6), name


def test_references_do_not_depend_on_privacy(private_run, bare_run):
    private, bare = (run[0].summary()["metrics"] for run in (private_run, bare_run))
    for row in ("popularity", "repeat", "markov_knn", "frozen_text", "base", "local_only"):
        assert private[row] == pytest.approx(bare[row], abs=1e-6), row
    for row in ("shared", "federated"):
        assert private[f"{row}_no_noise"] == pytest.approx(bare[row], abs=1e-6), row


def test_pooled_training_starts_from_the_base_whatever_the_federation_did(private_run, tmp_path):
    bench, _ = private_run
    metrics = bench.summary()["metrics"]
    assert metrics["centralized"] != metrics["base"]
    assert bench.simulate("--no-dp", "--compare", "--rounds", 1, out=tmp_path / "again").exit_code == 0
    assert bench.summary(tmp_path / "again")["metrics"]["centralized"] == metrics["centralized"]


@pytest.mark.parametrize(
    ("split", "merges", "masks"),
    [
        ("leave-last-out", True, Masking.LAST),
        ("leave-last-out", False, Masking.NONE),
        ("next-basket", True, Masking.NONE),
    ],
)
def test_last_item_is_masked_only_where_it_cannot_be_the_target(split, merges, masks, tmp_path, monkeypatch):
    seen = []
    original = _Contenders.__init__

    def spying(self, *args, **kwargs):
        original(self, *args, **kwargs)
        seen.append(self.table.masking)

    monkeypatch.setattr(_Contenders, "__init__", spying)
    bench = Bench.at(tmp_path, {"data.merge_repeats": merges, "federation.rounds": 1})
    assert bench.simulate("--split", split, "--no-dp").exit_code == 0
    assert seen == [masks]


def test_each_setting_of_the_memory_reaches_the_merchants():
    names = [name for name in LocalConfig.model_fields if not name.startswith("tuning")]
    given = {name: number / 100 for number, name in enumerate(names, start=1)} | {
        "memory_window": 7,
        "memory_recent": 8,
    }
    spec = memory_spec(LocalConfig(**given))
    assert vars(spec) == {name.removeprefix("memory_"): value for name, value in given.items()}


def test_merchants_shrink_towards_what_the_panel_buys_and_nobody_else(tmp_path, monkeypatch):
    priors, everyone = [], []
    original = _Contenders.__init__

    class Spying(MerchantScorer):
        def __init__(self, *args, prior, **kwargs):
            priors.append(prior)
            super().__init__(*args, prior=prior, **kwargs)

    def spying(self, config, run, people, agreement):
        everyone.append(people)
        original(self, config, run, people, agreement)

    monkeypatch.setattr(_Contenders, "__init__", spying)
    monkeypatch.setattr("simulations.compare.MerchantScorer", Spying)
    bench = Bench.at(tmp_path, {"federation.rounds": 1, "local.popular_half_life_days": 3.0})
    assert bench.simulate("--no-dp").exit_code == 0
    panel = everyone[0].split.train.subset(everyone[0].partition.panel)
    expected = popularity_shares(panel, items=len(everyone[0].catalogue), half_life_days=3.0)
    assert len(priors) == 2  # local_only, federated
    for prior in priors:
        np.testing.assert_array_equal(prior, expected)


def test_every_figure_is_a_share(private_run):
    metrics = private_run[0].summary()["metrics"]
    assert all(0.0 <= value <= 1.0 for row in metrics.values() for value in row.values())
    federated = {name for name in metrics if name.startswith(("shared", "federated"))}  # as the base, or alone, here
    others = [json.dumps(row) for name, row in metrics.items() if name not in federated]
    assert len(set(others)) >= len(others) - 1 == 6, "rows are copies of one another"
