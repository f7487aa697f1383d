"""A run's budget is split by its own base and settings, and the split is on record."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedrec.agreeing import make_agreement, make_plan
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError
from fedrec.model.base import PANEL, save_base
from fedrec.model.pair_profile import pair_buckets
from fedrec.runfolder import RunFolder
from fedrec.splitting import adapter_of, pay_for_counts
from tests.fedrec.test_agreeing import config_of
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import histories, learned

WINDOW = 3
JUDGE = histories(12, 9, 20, 6, 15, 8, seed=12)


@pytest.fixture
def folder(tmp_path: Path):
    """A run folder with a base, the pairs of five people in it, and six others as its panel."""
    with RunFolder.create(tmp_path / "run") as made:
        save_base(learned(), made.base, some_pairs())
        JUDGE.save(made.base / PANEL)
        yield made


def paid(folder: RunFolder, *, clients: int = 4, people: int = 10, **changes):
    config = config_of(**changes)
    plan = make_plan(config, people_per_client=people, is_simulated=True)
    return config, plan, pay_for_counts(config, plan, folder=folder, clients=clients)


def test_a_share_of_the_budget_goes_to_counts_and_the_promise_holds(folder):
    config, plan, both = paid(folder, statistics__noise_share=0.5)
    assert both.statistics_noise_multiplier > 0
    assert both.noise_multiplier > plan.noise_multiplier
    assert both.epsilon_after(both.steps, statistics=True) <= 8.0
    told = json.loads(folder.split.read_text())
    assert (told["share"], told["noise_multiplier"]) == (0.5, both.statistics_noise_multiplier)
    agreed = make_agreement(config, both, run_id="r", base_digest="0" * 64, items=5, server_key="0" * 64)
    assert agreed.statistics.window == config.pairs.window


def test_no_share_is_no_release(folder):
    config, plan, both = paid(folder, statistics__noise_share=0.0)
    assert both is plan
    agreed = make_agreement(config, both, run_id="r", base_digest="0" * 64, items=5, server_key="0" * 64)
    assert agreed.statistics is None
    assert json.loads(folder.split.read_text())["parts"][0]["verdict"].startswith("nothing: ")


@pytest.mark.parametrize(("people", "counts"), [(10, False), (100_000, True)])
def test_left_to_itself_the_split_goes_by_the_people(folder, people, counts):
    _, _, both = paid(folder, people=people, statistics__noise_share=None)
    assert (both.statistics_noise_multiplier is not None) == counts
    assert (json.loads(folder.split.read_text())["share"] > 0) == counts


def test_a_base_without_a_panel_gets_no_release(folder):
    (folder.base / PANEL).unlink()
    _, plan, both = paid(folder, people=100_000, statistics__noise_share=None)
    assert both is plan


@pytest.mark.parametrize(("share", "noise"), [(None, 0.0), (0.5, 0.0), (0.0, None)])
def test_without_privacy_counts_need_no_noise_and_nothing_is_split(folder, share, noise):
    _, _, both = paid(folder, privacy__enabled=False, statistics__noise_share=share)
    assert both.statistics_noise_multiplier == noise
    assert not folder.split.exists()


def test_the_panel_of_the_base_is_who_is_measured_and_the_adapter_is_the_configured_one(folder):
    paid(folder, statistics__noise_share=0.5)
    told = json.loads(folder.split.read_text())["parts"]
    assert told[0]["signal"] > 0
    other = Histories.from_lists([np.array([0, 1]), np.array([1, 0])])
    other.save(folder.base / PANEL)
    paid(folder, statistics__noise_share=0.5)
    assert json.loads(folder.split.read_text())["parts"][0]["signal"] != told[0]["signal"]
    assert pair_buckets(some_pairs(), JUDGE, window=WINDOW)
    small, large = (adapter_of(config_of(adapter__rank=rank), folder.base) for rank in (1, 2))
    assert small.parameters < large.parameters
    assert small.gradient == large.gradient
    assert adapter_of(config_of(adapter__norms=False), folder.base).gradient < small.gradient


def test_a_share_that_is_out_of_range_is_refused(folder):
    config = config_of()
    plan = make_plan(config, people_per_client=10)
    with pytest.raises(PrivacyError, match=r"noise_share=1.5: expected in \[0, 1\)"):
        pay_for_counts(
            config.model_copy(update={"statistics": config.statistics.model_copy(update={"noise_share": 1.5})}),
            plan,
            folder=folder,
            clients=4,
        )
