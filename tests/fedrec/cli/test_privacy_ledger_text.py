"""What ``fedrec privacy ledger show`` states: by the right accountant, and never rounded towards less."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrec.cli.privacy_ledger import ledger_app
from fedrec.cli.privacy_ledger_text import line_of
from fedrec.privacy.accounting import composed_epsilon, round_up
from fedrec.privacy.filter import filter_epsilon, renyi_order
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import write_policy
from tests.fedrec.privacy.ledgers import DATA, generous


@pytest.fixture
def plan() -> PrivacyPlan:
    return PrivacyPlan(
        epsilon=8.0,
        delta=1e-5,
        noise_multiplier=2.0,
        sampling_rate=0.25,
        steps=30,
        local_steps=2,
        clip_norm=1.0,
        clipping="flat",
        expected_people=80,
    )


def show(path: Path, *flags: str) -> str:
    return CliRunner().invoke(ledger_app, ["show", str(path), *flags]).stdout


def test_several_runs_under_an_adaptive_policy_are_stated_by_the_filter(tmp_path, plan):
    adaptive = generous(plan, parameters="adaptive", max_delta=2e-5)
    write_policy(adaptive, tmp_path / "policy.toml")
    files = LedgerFiles.beside(tmp_path / "ledger.sqlite")
    ledger = Ledger.create(files, dataset=DATA, policy=adaptive)
    ledger.charge("run/1", plan.training(2), plan=plan)

    def at_half() -> float:
        return round_up(composed_epsilon(ledger.spendings(), 1e-5))

    one_run = json.loads(show(files.ledger, "--json"))["ledgers"][0]
    assert (one_run["epsilon"], one_run["epsilon_if_fixed"]) == (at_half(), None)
    assert one_run["accountant"].endswith("PLD, at half of that delta")
    ledger.charge("later/1", plan.training(2), plan=plan)
    (facts,) = json.loads(show(files.ledger, "--json"))["ledgers"]
    order = renyi_order(8.0, 1e-5)
    assert facts["epsilon"] == round_up(filter_epsilon(ledger.spendings(), 1e-5, order=order))
    assert facts["epsilon"] > facts["epsilon_if_fixed"] == at_half()
    text = show(files.ledger)
    assert text.startswith(f"spent          at most epsilon {facts['epsilon']} of 8 at delta 2e-05, ")
    assert f"by the Renyi filter of order {order}, at half of that delta; {facts['epsilon_if_fixed']} if the" in text


@pytest.mark.parametrize("epsilon", [100.0004, 1234567.8912, 0.0001])
def test_a_shown_epsilon_is_never_less_than_it_is(epsilon):
    facts = {"private": True, "delta": 1e-5, "max_epsilon": 200.0, "epsilon": epsilon, "epsilon_if_fixed": None}
    facts |= {"unit": "u", "relation": "r", "accountant": "a", "ledger": "x", "charged": 1}
    shown = line_of(facts).partition("epsilon ")[2].partition(" of 200 at delta 1e-05")[0]
    assert float(shown) == epsilon
