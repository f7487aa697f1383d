"""``fedrec simulate``, end to end on a tiny data set: what it prints, what it leaves, and what the figures mean."""

import json
import statistics
import tomllib

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from safetensors.numpy import load_file

from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.model.adapters import adapter_arrays
from fedrec.report.inputs import Summary
from fedrec.workspace import ledger_of
from tests.tiny_run import LEARNING, SETTINGS, Bench, fedrec, read_lines

METRICS = dict.fromkeys(
    ("ndcg@10", "hr@10", "mrr@10", "recall@20", "coverage@10", "merchant_ndcg@10", "worst_decile_ndcg@10"),
)
GAINS = dict.fromkeys(("merchants", "gaining", "losing", "mean", "median", "worst_decile"))
ALWAYS = ("popularity", "repeat", "markov_knn", "frozen_text", "base", "local_only", "shared", "federated")
COMPARED = ("shared_no_noise", "federated_no_noise", "centralized")
LIBRARIES = ("fedrec", "python", "torch", "flwr", "opacus", "transformers", "peft", "dp-accounting", "numpy", "polars")
# Tools read these names. A change here is a change of format.
GOLDEN = {
    "clients": None,
    "rounds": None,
    "engine": None,
    "adapter": {"kind": None, "rank": None, "trainable_parameters": None},
    "privacy": {
        "epsilon": None,
        "delta": None,
        "unit": None,
        "relation": None,
        "accountant": None,
        "trust": None,
        "noise_multiplier": None,
        "clip_norm": None,
        "sampling_rate": None,
        "steps": None,
        "per_client_epsilon": {"min": None, "median": None, "max": None},
    },
    "metrics": dict.fromkeys((*ALWAYS, *COMPARED), METRICS),
    "cold_people": None,
    "fairness": {"over_local_only": GAINS, "over_base": GAINS, "by_size": None},
    "held_out": None,
    "timing": {"total_s": None, "pretrain_s": None, "round_median_s": None, "updates_per_s": None},
    "peak_rss_mb": None,
    "bytes_up_per_client_round": None,
    "seed": None,
    "versions": dict.fromkeys(LIBRARIES),
}
ROUNDS = SETTINGS["federation"]["rounds"]


def keys_of(value):
    """The tree of names in a JSON value, leaves as None."""
    return {name: keys_of(entry) for name, entry in value.items()} if isinstance(value, dict) else None


def independent_epsilon(privacy, *, steps):
    """Epsilon by the accounting library's own accountant, from the recorded public numbers."""
    gaussian = GaussianDpEvent(privacy["noise_multiplier"])
    accountant = PLDAccountant()
    accountant.compose(PoissonSampledDpEvent(privacy["sampling_rate"], gaussian), steps)
    return accountant.get_epsilon(privacy["delta"])


def test_json_prints_one_document_and_it_is_summary_json(private_run):
    bench, outcome = private_run
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == bench.summary()  # loads refuses anything before or after


def test_summary_has_exactly_the_agreed_keys(private_run):
    bench, _ = private_run
    assert keys_of(bench.summary()) == GOLDEN
    Summary.model_validate(bench.summary())


def test_without_compare_the_references_are_absent(bare_run):
    bench, _ = bare_run
    assert keys_of(bench.summary()) == GOLDEN | {"privacy": None, "metrics": dict.fromkeys(ALWAYS, METRICS)}
    Summary.model_validate(bench.summary())


def test_summary_says_what_was_asked_for(private_run):
    summary = private_run[0].summary()
    assert (summary["clients"], summary["rounds"], summary["seed"]) == (4, ROUNDS, 0)
    assert summary["engine"] == "local"
    assert summary["adapter"]["kind"] == "lora"
    assert summary["privacy"]["epsilon"] <= 8.0
    assert summary["privacy"]["unit"] == "person at a client"


def test_run_folder_holds_everything(private_run):
    out = private_run[0].out
    files = (
        *("config.toml", "events.jsonl", "adapter.safetensors", "agreement.json", "partition.json"),
        *("report.html", "report.json", "summary.json", "policy.toml"),
        *("keys/server.key", "keys/operator.key"),
        *("base/items.safetensors", "base/ranker.safetensors", "base/ranker.json", "base/panel.safetensors"),
        "base/pairs.safetensors",
        *(f"checkpoints/round-{number:05d}.{end}" for number in (2, 3) for end in ("json", "safetensors")),
        *(f"ledger/client-{client:05d}.sqlite" for client in range(4)),
        *(f"keys/client-{client:05d}.key" for client in range(4)),
        *(f"workspace/witness/client-{client:05d}.json" for client in range(4)),
    )
    assert [name for name in files if not (out / name).is_file()] == []
    assert [path.name for path in out.rglob("*.tmp")] == []


def test_events_hold_each_round_once(private_run):
    lines = read_lines(private_run[0].out / "events.jsonl")
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    assert all(line["admitted"] == 4 and not line["void"] for line in lines)


def test_config_toml_holds_every_setting_and_flags_win(private_run):
    bench, _ = private_run
    written = tomllib.loads((bench.out / "config.toml").read_text(encoding="utf-8"))
    assert written["data"]["events"] == str(bench.events)
    assert written["model"]["width"] == 8
    assert written["privacy"]["epsilon"] == 8.0
    assert written["compare"] is True


def test_epsilon_is_what_an_independent_accountant_says(private_run):
    privacy = private_run[0].summary()["privacy"]
    assert privacy["steps"] == ROUNDS
    assert privacy["epsilon"] == pytest.approx(independent_epsilon(privacy, steps=ROUNDS), abs=1e-3)
    for other in (ROUNDS - 1, ROUNDS + 1):  # the check can fail
        assert abs(privacy["epsilon"] - independent_epsilon(privacy, steps=other)) > 0.5


def test_per_client_epsilon_is_what_each_ledger_adds_up_to(some_asked):
    bench, _ = some_asked
    privacy, agreement = bench.summary()["privacy"], read_agreement(bench.out)
    charged = [
        sum(spending.steps for spending in ledger_of(bench.out, client, agreement.plan).spendings())
        for client in range(4)
    ]
    assert sum(charged) == 2 * ROUNDS
    assert len(set(charged)) > 1, "clients that were asked equally often would hide a mix-up"
    spent = [independent_epsilon(privacy, steps=steps) if steps else 0.0 for steps in charged]
    expected = {"min": min(spent), "median": statistics.median(spent), "max": max(spent)}
    assert privacy["per_client_epsilon"] == pytest.approx(expected, abs=1e-3)


def test_epsilon_spent_grows_to_the_summary(private_run):
    bench, _ = private_run
    spent = [line["epsilon_spent"] for line in read_lines(bench.out / "events.jsonl")]
    assert spent == sorted(set(spent))
    assert spent[-1] == bench.summary()["privacy"]["epsilon"]


def test_a_run_without_privacy_is_stamped_everywhere(bare_run):
    bench, outcome = bare_run
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    assert bench.summary()["privacy"] is None
    assert report["stamp"] == "NOT PRIVATE"
    assert report["context"]["statement"].startswith("NOT PRIVATE")
    assert "NOT PRIVATE" in (bench.out / "report.html").read_text(encoding="utf-8")
    assert "NOT PRIVATE" in outcome.stdout
    rounds = [line for line in outcome.stderr.splitlines() if "stage='federation'" in line and "clients" in line]
    assert rounds
    assert all("NOT PRIVATE" in line for line in rounds)
    assert all(line["epsilon_spent"] is None for line in read_lines(bench.out / "events.jsonl"))


def test_a_private_run_is_not_stamped_and_tells_the_whole_guarantee(some_asked):
    bench, outcome = some_asked
    assert outcome.exit_code == 0
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    assert report["stamp"] is None
    assert "NOT PRIVATE" not in outcome.stderr
    told = " ".join(outcome.stdout.split())
    assert "Each person at a client has (epsilon = 8, delta = 1e-05)-differential privacy" in told
    assert "add or remove one person" in told


def test_round_0_is_published_and_equals_the_base_when_no_round_helps(tmp_path):
    bench = Bench.at(tmp_path, {"federation.server_learning_rate": 100.0})
    assert bench.simulate("--no-dp").exit_code == 0
    metrics = bench.summary()["metrics"]
    assert metrics["shared"] == pytest.approx(metrics["base"], abs=1e-6)
    assert metrics["federated"] == pytest.approx(metrics["local_only"], abs=1e-6)
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    assert report["context"]["published_round"] == 0
    fresh = adapter_arrays(agreed_ranker(read_agreement(bench.out), bench.out))
    published = load_file(bench.out / "adapter.safetensors")
    assert published.keys() == fresh.keys()
    for name, values in fresh.items():
        np.testing.assert_allclose(published[name], values, rtol=0, atol=1e-6)


def test_a_round_that_surely_helps_is_published(tmp_path):
    bench = Bench.at(tmp_path, LEARNING)
    assert bench.simulate("--no-dp").exit_code == 0
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    surely = [line["round"] for line in read_lines(bench.out / "events.jsonl") if line["panel_gain"] > 2.5]
    assert report["context"]["published_round"] in surely
    fresh = adapter_arrays(agreed_ranker(read_agreement(bench.out), bench.out))
    published = load_file(bench.out / "adapter.safetensors")
    assert any(np.abs(published[name] - fresh[name]).max() > 1e-4 for name in fresh)


def test_devices_with_one_person_each_run(tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--clients", 30, "--people-per-client", 1).exit_code == 0
    assert bench.summary()["clients"] == 30
    assert read_lines(bench.out / "events.jsonl")[0]["admitted"] == 30


@pytest.mark.parametrize("scheme", ["even", "dirichlet", "by-column:Country"])
def test_every_partition_runs(scheme, tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--partition", scheme, "--no-dp").exit_code == 0
    manifest = json.loads((bench.out / "partition.json").read_text(encoding="utf-8"))
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    names = [client["name"] for client in manifest["clients"]]
    assert [client["name"] for client in report["context"]["clients"]] == names
    if scheme.startswith("by-column"):
        assert sorted(names) == ["Austria", "Brazil", "Chad", "Denmark"]


@pytest.mark.parametrize("adapter", ["lora", "ffa-lora", "bottleneck"])
def test_every_adapter_runs(adapter, tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--adapter", adapter, "--rank", 2, "--no-dp").exit_code == 0
    assert bench.summary()["adapter"]["kind"] == adapter
    assert bench.summary()["adapter"]["rank"] == 2


def test_next_baskets_of_clock_times_run(tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--split", "next-basket", "--no-dp").exit_code == 0
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    assert report["context"]["data"]["split"] == "next-basket"


@pytest.mark.parametrize("changes", [{"partition.panel_fraction": 0.0}, {"pretraining.judge_share": 0.0}])
def test_without_a_panel_to_judge_on_the_last_round_is_published(changes, tmp_path):
    bench = Bench.at(tmp_path, changes)
    assert bench.simulate("--no-dp").exit_code == 0
    report = json.loads((bench.out / "report.json").read_text(encoding="utf-8"))
    assert report["context"]["published_round"] == ROUNDS
    assert all("panel_loss" not in line for line in read_lines(bench.out / "events.jsonl"))


def test_same_seed_without_privacy_gives_the_same_bytes_and_another_seed_does_not(bare_run, tmp_path):
    bench, _ = bare_run
    for name, flags in (("same", []), ("other", ["--seed", 1])):
        assert bench.simulate("--no-dp", *flags, out=tmp_path / name).exit_code == 0
    whole, same, other = (
        (folder / "adapter.safetensors").read_bytes() for folder in (bench.out, tmp_path / "same", tmp_path / "other")
    )
    assert whole == same
    assert whole != other


def test_noise_does_not_come_from_the_seed(private_run, tmp_path):
    bench, _ = private_run
    assert bench.simulate(out=tmp_path / "again").exit_code == 0
    files = [path / "checkpoints" / "round-00003.safetensors" for path in (bench.out, tmp_path / "again")]
    first, second = (load_file(path)["adapter"] for path in files)
    assert np.abs(first - second).max() > 1e-6


def test_help_shows_examples(tmp_path):
    outcome = fedrec("simulate", "--help", home=tmp_path)
    assert outcome.exit_code == 0
    assert "fedrec simulate --epsilon 3 --compare --out runs/eps3" in outcome.stdout
