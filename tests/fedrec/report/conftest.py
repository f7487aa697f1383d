"""A made-up run with plausible figures; every test that wants another changes a copy of it."""

import copy

import numpy as np
import pytest

STATEMENT = (
    "Each person at a merchant has (epsilon = 8, delta = 1e-05)-differential privacy over all 30 training steps, "
    "where neighbouring data sets differ in one person (add or remove one person), "
    "accounted by dp-accounting 0.6.0 PLD; "
    "delta is below one over the 74 people expected at a client."
)


def table(names, bases):
    columns = ("ndcg@10", "hr@10", "mrr@10", "recall@20", "coverage@10", "merchant_ndcg@10", "worst_decile_ndcg@10")
    factors = (1.0, 1.85, 0.76, 2.3, 4.1, 1.04, 0.62)
    return {
        name: {column: round(min(base * factor, 0.94), 5) for column, factor in zip(columns, factors, strict=True)}
        for name, base in zip(names, bases, strict=True)
    }


def gains(merchants, gaining, *, mean):
    """Of that many merchants, so many gain and the others lose."""
    counts = {"merchants": merchants, "gaining": gaining, "losing": merchants - gaining}
    return counts | {"mean": mean, "median": mean + 0.0006, "worst_decile": mean - 0.015}


def with_news(summary):
    """The same run with products that nobody had taken and merchants that took no part."""
    summary["cold_people"] = 138
    for number, values in enumerate(summary["metrics"].values()):
        values["cold_hr@10"] = 0.01 * number
    rows = ("base", "local_only", "shared", "federated")
    summary["held_out"] = {
        "merchants": 10,
        "people": 743,
        "metrics": table(rows, (0.1297, 0.1431, 0.1322, 0.1459)),
        "federated_vs_local_only": {"difference": 0.0028, "standard_error": 0.0012, "people": 731},
        "federated_vs_base": {"difference": 0.0162, "standard_error": 0.0021, "people": 731},
    }
    return summary


def make_summary():
    rows = ("popularity", "repeat", "markov_knn", "frozen_text", "base", "local_only", "shared", "federated")
    return {
        "clients": 50,
        "rounds": 30,
        "engine": "local",
        "adapter": {"kind": "lora", "rank": 2, "trainable_parameters": 1027},
        "privacy": {
            "epsilon": 7.9994,
            "delta": 1e-5,
            "unit": "person at a merchant",
            "relation": "add or remove one person",
            "accountant": "dp-accounting 0.6.0 PLD",
            "trust": "local",
            "noise_multiplier": 1.0132,
            "clip_norm": 1.0,
            "sampling_rate": 0.25,
            "steps": 30,
            "per_client_epsilon": {"min": 7.9994, "median": 7.9994, "max": 7.9994},
        },
        "metrics": table(rows, (0.0207, 0.0561, 0.2071, 0.0882, 0.1301, 0.1442, 0.1336, 0.1487)),
        "cold_people": 0,
        "fairness": {
            "over_local_only": gains(50, 36, mean=0.0045),
            "over_base": gains(50, 41, mean=0.0186),
            "by_size": [
                {"people_min": 9, "people_max": 31, **gains(17, 15, mean=0.0081)},
                {"people_min": 33, "people_max": 80, **gains(16, 11, mean=0.0040)},
                {"people_min": 84, "people_max": 412, **gains(17, 10, mean=0.0013)},
            ],
        },
        "held_out": None,
        "timing": {"total_s": 171.4, "pretrain_s": 31.2, "round_median_s": 1.92, "updates_per_s": 26.1},
        "peak_rss_mb": 1180.0,
        "bytes_up_per_client_round": 4596.0,
        "seed": 0,
        "versions": {"fedrec": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "flwr": "1.41.0", "opacus": "1.6.0"},
    }


def make_rounds():
    rng = np.random.default_rng(1)
    rise = 0.1302 + 0.0042 * (1 - np.exp(-np.arange(1, 31) / 9)) + rng.normal(0, 0.00025, 30)
    spent = 7.9994 * np.sqrt(np.arange(1, 31) / 30) ** 0.86
    return [
        {
            "round": number,
            "asked": 50,
            "admitted": 50 - (number == 12),
            "quarantined": int(number == 12),
            "reasons": {"E_SCHEMA": 1} if number == 12 else {},
            "void": False,
            "seconds": 1.9,
            "bytes_up": 229800,
            "panel_loss": 6.1 - 20 * float(rise[number - 1]),
            "panel_ndcg@10": float(rise[number - 1]),
            "epsilon_spent": float(spent[number - 1]),
        }
        for number in range(1, 31)
    ]


def make_context():
    rng = np.random.default_rng(2)
    alone = rng.normal(0.144, 0.03, 50).clip(0.04)
    gain = rng.normal(0.0045, 0.009, 50)
    sizes = np.geomspace(9, 412, 50)[rng.permutation(50)]
    names = [f"merchant-{number:02d}" for number in range(50)]
    return {
        "statement": STATEMENT,
        "federated_vs_local_only": {"difference": 0.0045, "standard_error": 0.0009, "people": 3728},
        "shared_vs_base": {"difference": 0.0035, "standard_error": 0.0007, "people": 3728},
        "published_round": 27,
        "counted": None,
        "split": None,
        "clients": [
            {
                "name": name,
                "people": int(people),
                "epsilon": 7.9994,
                "local_only": float(own),
                "federated": float(own + more),
            }
            for name, own, more, people in zip(names, alone, gain, sizes, strict=True)
        ],
        "epsilon_for_person_at": {1: 7.9994, 2: 12.31, 3: 16.02, 5: 22.8},
        "data": {
            "source": "UCI Online Retail (bundled)",
            "people": 4142,
            "items": 3659,
            "events": 391204,
            "panel_people": 414,
            "client_people": 3728,
            "split": "leave-last-out",
            "rules": [
                {"rule": "cancelled", "description": "invoice number starts with C", "dropped": 9288, "kept": 532621},
                {"rule": "no customer", "description": "CustomerID is empty", "dropped": 134697, "kept": 397924},
            ],
        },
        "limits": [
            "A simulation: every merchant ran in one process on one machine, so nothing here was kept from anyone.",
            "The catalogue and the panel's purchases are public; the guarantee says nothing about them.",
            "A merchant's own local part stays at the merchant and is not private towards that merchant's own users.",
            "Side channels, timing and floating-point effects beyond the noise generator's own defence.",
        ],
        "command": "fedrec simulate --clients 50 --seed 0",
        "config": {"privacy": {"epsilon": 8.0, "delta": 1e-5}, "federation": {"rounds": 30}, "seed": 0},
    }


def without_privacy(summary, rounds, context):
    summary["privacy"] = None
    for line in rounds:
        line["epsilon_spent"] = None
    for client in context["clients"]:
        client["epsilon"] = None
    context["epsilon_for_person_at"] = {}
    context["statement"] = "No noise was added: nothing is guaranteed to anyone."
    return summary, rounds, context


@pytest.fixture
def run():
    """(summary, rounds, context) of a private run in which federation helped."""
    return make_summary(), make_rounds(), make_context()


@pytest.fixture
def open_run(run):
    """The same run without noise."""
    return without_privacy(*copy.deepcopy(run))
