"""The rows of the table, and what must be equal among them."""

import json

import pytest

from fedrec.evaluation.masking import Masking
from simulations.compare import _Contenders
from tests.tiny_run import Bench

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
    bench = Bench.at(tmp_path, NO_LOCAL_PART)
    assert bench.simulate("--no-dp").exit_code == 0
    metrics = bench.summary()["metrics"]
    assert metrics["federated"] == pytest.approx(metrics["shared"], abs=1e-6)
    assert metrics["local_only"] == pytest.approx(metrics["base"], abs=1e-6)
    assert metrics["shared"] != metrics["base"]


def test_the_local_part_changes_what_merchants_deploy(bare_run):
    metrics = bare_run[0].summary()["metrics"]
    assert metrics["federated"]["ndcg@10"] > metrics["shared"]["ndcg@10"] + 0.01
    assert metrics["local_only"]["ndcg@10"] > metrics["base"]["ndcg@10"] + 0.01


def test_untrained_base_is_the_frozen_text_baseline(tmp_path):
    bench = Bench.at(tmp_path, {"pretraining.epochs": 0})
    assert bench.simulate("--no-dp").exit_code == 0
    metrics = bench.summary()["metrics"]
    assert metrics["base"] == pytest.approx(metrics["frozen_text"], abs=1e-4)


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


def test_every_figure_is_a_share(private_run):
    metrics = private_run[0].summary()["metrics"]
    assert all(0.0 <= value <= 1.0 for row in metrics.values() for value in row.values())
    assert len({json.dumps(row) for row in metrics.values()}) > len(metrics) - 3, "rows are copies of one another"
