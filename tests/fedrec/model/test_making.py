from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from clients.opening import check_person_gradients
from clients.training import LocalTraining
from fedrec.config import Config, parse_config
from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories
from fedrec.errors import ConfigError, RunError
from fedrec.model.adapters import attach_adapter
from fedrec.model.base import FILES, PANEL, base_digest, load_base, save_base
from fedrec.model.decoder import load_backbone
from fedrec.model.making import adopt_base, build_ranker, item_table, make_base, negatives_for
from fedrec.model.pairs import PAIRS, PublicPairs, best_next, with_weight
from fedrec.model.transitions import count_transitions
from fedrec.report.progress import Progress
from tests.tiny_backbones import save_backbone
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import (
    DIMENSIONS,
    HISTORY,
    ITEMS,
    KINDS,
    adapter_spec,
    histories,
    learned,
    nudge,
    scores,
    vectors,
)

TITLES = tuple(f"{colour} {thing}" for colour in ("red", "blue", "green", "grey") for thing in "abcdefghij")


def _catalogue(*titles: str) -> Catalogue:
    return Catalogue(tuple(f"i{n}" for n in range(len(titles))), titles, pl.DataFrame())


CATALOGUE = _catalogue(*TITLES)
FIT, JUDGE = histories(5, 8, 3, 12, seed=1), histories(4, 6, seed=2)
HISTORIES = torch.randint(0, ITEMS, (3, HISTORY), generator=torch.Generator().manual_seed(0))
SILENT = Progress(enabled=False)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """The vector cache lives at home."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


def _config(**model) -> Config:
    values = {
        "items": {"encoder": "hashing", "dimensions": DIMENSIONS},
        "model": {"width": 16, "heads": 2, "feed_forward": 24, "history": HISTORY} | model,
        "pretraining": {"epochs": 2, "batch_people": 2},
    }
    return parse_config(values, source="test")


def _make(folder: Path, config: Config, **people) -> None:
    make_base(config, CATALOGUE, folder, **({"fit": FIT, "judge": JUDGE} | people), progress=SILENT)


def test_made_base_is_pretrained_and_keeps_the_judges_aside(tmp_path):
    config = _config()
    _make(tmp_path, config)
    ranker = load_base(tmp_path)
    fresh = build_ranker(config, item_table(config, CATALOGUE, on_item=lambda done: None))
    assert torch.equal(ranker.vectors, fresh.vectors)
    assert not torch.equal(ranker.head.weight, fresh.head.weight)
    assert ranker.spec == fresh.spec
    judges = Histories.load(tmp_path / PANEL)
    assert np.array_equal(judges.items, JUDGE.items)
    assert np.array_equal(judges.offsets, JUDGE.offsets)


def test_judges_have_no_say_in_the_base_but_for_the_weights_of_its_parts(tmp_path):
    for name, judge in (("one", JUDGE), ("other", histories(9, 9, seed=7))):
        config = _config()
        plain = config.model_copy(update={"pairs": config.pairs.model_copy(update={"suggestions": 0})})
        _make(tmp_path / name, plain, judge=judge)
    one, other = (dict(load_base(tmp_path / name).state_dict()) for name in ("one", "other"))
    for name in ("sequence_gain.weight", "text_gain.weight", "bias"):
        mine, yours = one.pop(name), other.pop(name)
        factor = mine.norm() / yours.norm().clamp(min=1e-9)  # a part may weigh nothing
        assert torch.allclose(mine, factor * yours, rtol=1e-4), "one factor for the part"
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (PublicPairs.load(tmp_path / name) for name in ("one", "other"))
    with_weight(second, first.spec.weight).save(tmp_path)
    assert (tmp_path / PAIRS).read_bytes() == (tmp_path / "one" / PAIRS).read_bytes()


def test_the_weights_of_parts_are_in_the_base_and_suggestions_are_those_of_the_ranker_as_it_is_used(tmp_path):
    nobody = Histories.from_lists([])
    for name, judge in (("plain", nobody), ("weighed", JUDGE)):
        _make(tmp_path / name, _config(), judge=judge)
    plain, weighed = (load_base(tmp_path / name) for name in ("plain", "weighed"))
    assert not torch.allclose(plain.sequence_gain.weight, weighed.sequence_gain.weight, rtol=1e-3)
    assert not torch.allclose(plain.text_gain.weight, weighed.text_gain.weight, rtol=1e-3)
    suggested, others = (best_next(ranker, most=10) for ranker in (weighed, plain))
    assert not np.array_equal(suggested, others)
    pairs = PublicPairs.load(tmp_path / "weighed")
    listed = set(zip(pairs.first.tolist(), pairs.then.tolist(), strict=True))
    assert all((first, int(then)) in listed for first, row in enumerate(suggested) for then in row)


def test_pairs_are_counted_from_the_people_the_base_is_trained_on(tmp_path):
    _make(tmp_path, _config())
    pairs = PublicPairs.load(tmp_path)
    table = count_transitions(FIT, items=ITEMS, gap_weights=[1, 1 / 2, 1 / 3], shrinkage=0.0)
    counted = pairs.part().transitions
    for item in range(ITEMS):
        expected = table.after(np.array([item]), decay=1.0)
        expected[item] = 0  # no pair of an item with itself
        found = counted.after(np.array([item]), decay=1.0)
        assert found / max(found.sum(), 1e-9) == pytest.approx(expected / max(expected.sum(), 1e-9), abs=1e-6)
    assert len(pairs) >= 10 * ITEMS  # ten suggestions an item besides


WALKS = [[(start + step) % ITEMS for step in range(10)] for start in range(0, ITEMS, 2)]
FORTH, BACK = Histories.from_lists(WALKS), Histories.from_lists([walk[::-1] for walk in WALKS])


@pytest.mark.parametrize(("judge", "helps"), [(FORTH, True), (BACK, False)])
def test_pairs_weigh_what_they_are_worth_to_people_who_were_not_counted(judge, helps, tmp_path):
    _make(tmp_path, _config(), fit=FORTH, judge=judge)
    assert (PublicPairs.load(tmp_path).spec.weight > 0) == helps


@pytest.mark.parametrize(
    ("settings", "people", "weight"),
    [
        ({"pretraining": {"epochs": 0}}, {}, 0.0),
        ({}, {"fit": Histories.from_lists([])}, 0.0),
        ({}, {"judge": Histories.from_lists([])}, 0.0),
        ({}, {"judge": Histories.from_lists([[3], [5]])}, 0.0),
        ({"pairs": {"weight": 0.75}}, {}, 0.75),
        ({"pairs": {"weight": 0.75}}, {"judge": Histories.from_lists([])}, 0.75),
        ({"pairs": {"weight": 0.0}}, {}, 0.0),
    ],
)
def test_weight_is_nothing_where_it_cannot_be_fitted_unless_it_is_set(settings, people, weight, tmp_path):
    config = parse_config({**_config().model_dump(exclude_none=True, mode="json"), **settings}, source="test")
    _make(tmp_path, config, **({"fit": FORTH, "judge": FORTH} | people))
    assert PublicPairs.load(tmp_path).spec.weight == weight


def test_settings_reach_the_pairs(tmp_path):
    values = {"window": 1, "suggestions": 0, "sharpness": 7.0, "recent": 2, "decay": 0.5, "shrinkage": 1.5}
    config = parse_config({**_config().model_dump(exclude_none=True, mode="json"), "pairs": values}, source="test")
    _make(tmp_path, config, fit=Histories.from_lists([[0, 1, 2]]))
    pairs = PublicPairs.load(tmp_path)
    assert list(zip(pairs.first.tolist(), pairs.then.tolist(), strict=True)) == [(0, 1), (1, 2)]
    spec = pairs.spec
    assert (spec.sharpness, spec.recent, spec.decay, spec.shrinkage) == (7.0, 2, 0.5, 1.5)


def test_without_public_people_the_base_is_the_frozen_text_ranker(tmp_path):
    nobody = Histories.from_lists([])
    _make(tmp_path, _config(), fit=nobody, judge=nobody)
    assert not load_base(tmp_path).head.weight.any()
    assert not (tmp_path / PANEL).exists()


def test_settings_reach_the_ranker():
    config = _config(text_window=3, text_decay=0.25, text_scale=4.0, layers=3)
    ranker = build_ranker(config, vectors())
    spec = ranker.spec
    assert (spec.history, spec.text_window, spec.text_decay, spec.text_scale) == (HISTORY, 3, 0.25, 4.0)
    assert spec.dropout == config.pretraining.dropout
    assert len(ranker.decoder.layers) == 3
    assert ranker.text_gain.weight.tolist() == [4.0] * DIMENSIONS


def test_item_table_tells_how_far_it_is_and_has_unit_rows():
    told = []
    table = item_table(_config(), CATALOGUE, on_item=told.append)
    assert table.shape == (ITEMS, DIMENSIONS)
    assert np.linalg.norm(table, axis=1) == pytest.approx(1, abs=1e-5)
    assert told[-1] == ITEMS


def test_base_made_elsewhere_is_adopted_bit_for_bit(tmp_path):
    save_base(learned(), tmp_path / "source", some_pairs())
    adopt_base(tmp_path / "source", tmp_path / "run", catalogue=CATALOGUE, judge=JUDGE)
    assert all((tmp_path / "run" / name).read_bytes() == (tmp_path / "source" / name).read_bytes() for name in FILES)
    assert len(Histories.load(tmp_path / "run" / PANEL)) == len(JUDGE)


def test_base_of_another_catalogue_is_not_adopted(tmp_path):
    save_base(learned(), tmp_path)
    with pytest.raises(RunError, match="made for 40 items, the catalogue has 41; pretrain with this catalogue"):
        adopt_base(tmp_path, tmp_path / "run", catalogue=_catalogue("one", *TITLES), judge=JUDGE)
    with pytest.raises(RunError, match="not a usable base"):
        adopt_base(tmp_path / "nowhere", tmp_path / "run", catalogue=CATALOGUE, judge=JUDGE)


def test_base_of_as_many_other_items_is_not_adopted_either(tmp_path):
    _make(tmp_path / "base", _config(), fit=histories())
    with_price = Catalogue(CATALOGUE.item_ids, TITLES, pl.DataFrame({"price": np.arange(ITEMS, dtype=float)}))
    adopt_base(tmp_path / "base", tmp_path / "run", catalogue=with_price, judge=JUDGE)  # a price is no text
    adopt_base(tmp_path / "run", tmp_path / "again", catalogue=CATALOGUE, judge=JUDGE)
    for other in (_catalogue(*TITLES[::-1]), Catalogue(CATALOGUE.item_ids[::-1], TITLES, pl.DataFrame())):
        with pytest.raises(RunError, match="made for 40 other items, texts or another order; pretrain with this"):
            adopt_base(tmp_path / "run", tmp_path / "never", catalogue=other, judge=JUDGE)


@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_pretrained_backbone_works_end_to_end(tmp_path, backbone):
    """Built, fitted, saved, read back, adapted with every kind, and its per-person gradients checked."""
    folder = save_backbone(backbone, tmp_path / "backbone")
    config = _config(backbone=folder)
    ranker = build_ranker(config, vectors())
    _, decoder = load_backbone(folder)
    assert all(torch.equal(p, ranker.decoder.state_dict()[name]) for name, p in decoder.state_dict().items())
    for name in ("again", "base"):
        _make(tmp_path / name, config)
    assert base_digest(tmp_path / "again") == base_digest(tmp_path / "base")
    for kind in KINDS:
        adapted = load_base(tmp_path / "base")
        before = scores(adapted.eval(), HISTORIES)
        attach_adapter(adapted, adapter_spec(kind=kind, targets="all-linear"), seed=0)
        assert (scores(adapted, HISTORIES) - before).abs().max() <= 1e-5  # logits of a trained base reach ten
        check_person_gradients(adapted, LocalTraining(mask_last=True, negatives=None, seed=0))
        nudge(adapted, size=0.1)
        assert (scores(adapted, HISTORIES) - before).abs().max() > 0.01


def test_history_longer_than_the_backbone_reads_is_refused(tmp_path):
    folder = save_backbone("gpt2", tmp_path)
    build_ranker(_config(backbone=folder, history=32), vectors())
    with pytest.raises(ConfigError, match=r"model\.history=33: expected at most 32, what model\.backbone can read"):
        build_ranker(_config(backbone=folder, history=33), vectors())


def test_backbone_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a folder with config\.json"):
        build_ranker(_config(backbone=tmp_path / "nowhere"), vectors())


def test_a_catalogue_above_the_bound_is_stood_for_by_negatives():
    config = parse_config({"model": {"full_softmax": 50, "negatives": 7}}, source="test")
    assert [negatives_for(config, items=items) for items in (50, 51)] == [None, 7]
