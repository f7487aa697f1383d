"""From a table of impressions to a calibrated head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedrec.config_clicks import ClicksConfig
from fedrec.data.click_table import ClickTable
from fedrec.errors import DataError
from fedrec.evaluation.calibration import area_under_curve, reliability
from simulations.clicks import Parted, click_plan, part, train_clicks
from tests.tiny_clicks import clicks, columns

CONFIG = ClicksConfig(panel_fraction=0.3, rounds=12, server_learning_rate=0.3, clip_norm=1.0, least_seen=3)
FIELDS = {"numbers": ("price", "score"), "categories": ("device", "brand")}


def table(impressions: int = 1_200, people: int = 400, *, seed: int = 0) -> ClickTable:
    """Three impressions a person."""
    shown = columns(impressions, seed=seed)
    ids = np.array([f"p{number % people:03d}" for number in range(impressions)])
    return ClickTable(ids, pl.DataFrame(shown, strict=False), clicks(shown, seed=seed + 1))


def _parted(**changes) -> Parted:
    return part(table(), CONFIG.model_copy(update=changes), **FIELDS, clients=3, seed=0)


def test_everyone_is_public_or_at_one_client_with_all_of_their_impressions():
    parted = _parted()
    assert [len(parted.panel), *map(len, parted.clients)] == [120, 94, 93, 93]
    everywhere = (parted.panel, *parted.clients)
    assert sum(len(one.clicked) for one in everywhere) == 1_200
    assert all((np.diff(one.offsets) == 3).all() for one in everywhere)
    assert sum(int(one.clicked.sum()) for one in everywhere) == int(table().clicked.sum())


def test_the_panel_alone_says_which_values_there_are():
    """A value that only clients' people have must not show in what is public."""
    everyone, parted = table(), _parted()
    ids = np.unique(everyone.people)
    public = ids[np.random.default_rng(0).permutation(400)[:120]]
    secret = everyone.fields.with_columns(
        pl.when(pl.Series(np.isin(everyone.people, public)))
        .then(pl.col("brand"))
        .otherwise(pl.lit("secret"))
        .alias("brand")
    )
    told = part(replace(everyone, fields=secret), CONFIG, **FIELDS, clients=3, seed=0)
    assert told.spec == parted.spec
    assert "secret" not in str(told.spec)
    assert len(parted.spec.categories[1].values) == 7  # six brands, and none


def test_head_tells_clicks_apart_and_is_calibrated_on_people_it_has_not_seen(tmp_path: Path) -> None:
    parted, others = _parted(), table(6_000, 2_000, seed=70)
    trained = train_clicks(parted, CONFIG, private=False, folder=tmp_path / "run", seed=0)
    held_out = others.read(parted.spec)
    said = trained.head.probabilities(held_out.slots)
    assert area_under_curve(said, held_out.clicked) > 0.77
    assert reliability(said, held_out.clicked).error < 0.06
    assert "NOT PRIVATE" in trained.plan.statement()
    assert len(trained.federated.records) == 12


def test_private_head_says_what_was_promised(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"rounds": 3, "epsilon": 50.0, "trust": "distributed"})
    trained = train_clicks(_parted(), config, private=True, folder=tmp_path / "run", seed=0)
    assert trained.plan.noise_sharers == 3
    assert trained.plan.expected_people == 93
    assert trained.federated.records[-1].epsilon_spent == pytest.approx(trained.plan.epsilon, abs=0.1)
    assert "epsilon = 50, delta = 1e-05" in trained.plan.statement()


def test_settings_reach_the_plan():
    config = ClicksConfig(epsilon=3.0, delta=1e-6, clip_norm=0.25, sampling_rate=0.5, rounds=7)
    plan = click_plan(config, clients=4, people_per_client=100, private=True)
    assert (plan.epsilon, plan.delta, plan.clip_norm, plan.sampling_rate) == (3.0, 1e-6, 0.25, 0.5)
    assert (plan.rounds, plan.local_steps, plan.clipping, plan.noise_sharers) == (7, 1, "flat", 1)
    assert plan.trust == "local"


def test_too_few_people_are_refused():
    with pytest.raises(DataError, match="400 people: too few for a panel and 300 clients; bring more or ask for fewer"):
        part(table(), CONFIG, **FIELDS, clients=300, seed=0)


def test_panel_that_clicked_nothing_is_refused(tmp_path: Path) -> None:
    parted = _parted()
    panel = replace(parted.panel, clicked=np.zeros(360, dtype=bool))
    with pytest.raises(DataError, match="the panel: all or none of its impressions are clicked"):
        train_clicks(parted._replace(panel=panel), CONFIG, private=False, folder=tmp_path / "run", seed=0)


def test_field_that_the_table_lacks_is_refused():
    with pytest.raises(DataError, match="impressions: no column 'colour', which the head reads"):
        part(table(), CONFIG, numbers=("price",), categories=("colour",), clients=3, seed=0)
