import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from fedrec.config import Config
from fedrec.errors import RunError
from fedrec.model.base import FILES, LONGEST_HISTORY, base_digest, load_base, new_ranker, save_base
from fedrec.model.pairs import PAIRS, PublicPairs, no_pairs
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import HISTORY, ITEMS, learned, ranker_spec, scores, vectors

HISTORIES = torch.randint(0, ITEMS, (3, HISTORY), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    save_base(learned(), tmp_path / "base")
    return tmp_path / "base"


def test_base_comes_back_bit_for_bit(folder):
    saved, loaded = learned(), load_base(folder)
    assert loaded.spec == saved.spec
    assert torch.equal(loaded.vectors, saved.vectors)
    weights = loaded.state_dict()
    assert list(weights) == list(saved.state_dict())
    assert all(torch.equal(values, weights[name]) for name, values in saved.state_dict().items())
    assert torch.equal(scores(loaded.eval(), HISTORIES), scores(saved, HISTORIES))


def test_pairs_come_back_with_the_base_and_none_are_an_empty_list(folder, tmp_path):
    assert len(PublicPairs.load(folder)) == 0
    save_base(learned(), tmp_path / "with", some_pairs())
    assert np.array_equal(PublicPairs.load(tmp_path / "with").then, some_pairs().then)
    assert base_digest(tmp_path / "with") != base_digest(folder)


def test_pairs_over_another_catalogue_are_refused(folder):
    no_pairs(ITEMS + 1).save(folder)
    with pytest.raises(RunError, match=r"not a usable base: pairs\.safetensors: for 41 items, the ranker has 40"):
        load_base(folder)


def test_saving_twice_gives_the_same_digest_and_every_file_counts(folder, tmp_path):
    save_base(load_base(folder), tmp_path / "again")
    digest = base_digest(folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)  # a file that nobody counts could be swapped
    assert base_digest(tmp_path / "again") == digest
    assert len(digest) == 64
    for name in FILES:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert base_digest(folder) != digest
        (folder / name).write_bytes(content)
    assert base_digest(folder) == digest


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_missing_or_cut_short_is_refused(folder, name):
    content = (folder / name).read_bytes()
    for damaged in (content[: len(content) // 2], b"", None):
        (folder / name).unlink()
        if damaged is not None:
            (folder / name).write_bytes(damaged)
        with pytest.raises(RunError, match=rf"base(/{PAIRS})?: not a usable base: "):
            load_base(folder)
        (folder / name).write_bytes(content)
    load_base(folder)


@pytest.mark.parametrize("change", [{"extra": 1}, {"decoder": {}}, {"decoder": None}, {"history": None}])
def test_settings_that_no_ranker_has_are_refused(folder, change):
    path = folder / "ranker.json"
    values = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "history" or value}))
    with pytest.raises(RunError, match="not a usable base"):
        load_base(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"history": 0}, "history: expected a whole number from 1 to 4096"),
        ({"history": 10**9}, "history: expected a whole number from 1 to 4096"),
        ({"history": 6.0}, "history: expected a whole number from 1 to 4096"),
        ({"text_window": -1}, "text_window: expected a whole number from 1 to 4096"),
        ({"text_decay": float("nan")}, "text_decay: expected a finite number"),
        ({"dropout": "0"}, "dropout: expected a finite number"),
    ],
)
def test_number_that_no_ranker_has_is_refused(folder, change, expected):
    path = folder / "ranker.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=f"not a usable base: {expected}"):
        load_base(folder)


@pytest.mark.parametrize("name", ["history", "text_window"])
def test_settings_and_bases_have_the_same_longest_window(name):
    assert getattr(Config.model_validate({"model": {name: LONGEST_HISTORY}}).model, name) == LONGEST_HISTORY
    with pytest.raises(ValidationError, match=f"less than or equal to {LONGEST_HISTORY}"):
        Config.model_validate({"model": {name: LONGEST_HISTORY + 1}})


def test_files_of_two_bases_are_refused(folder):
    save_file({"vectors": torch.from_numpy(vectors(30))}, folder / "items.safetensors")
    with pytest.raises(RunError, match="not a usable base"):
        load_base(folder)


def test_weights_without_one_parameter_are_refused(folder):
    weights = load_file(folder / "ranker.safetensors")
    del weights["bias"]
    save_file(weights, folder / "ranker.safetensors")
    with pytest.raises(RunError, match="not a usable base"):
        load_base(folder)


def test_new_ranker_depends_on_the_seed_alone_and_torchs_own_numbers_are_left_alone():
    rankers = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(rankers))
        before = torch.random.get_rng_state()
        rankers.append(new_ranker(vectors(), ranker_spec(), seed=seed).item_input.weight)
        assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(rankers[0], rankers[1])
    assert not torch.equal(rankers[0], rankers[2])


def test_new_ranker_keeps_vectors_of_its_own():
    table = vectors().astype(np.float64)
    ranker = new_ranker(table, ranker_spec(), seed=0)
    table[:] = 0
    assert ranker.vectors.dtype == torch.float32
    assert torch.equal(ranker.vectors, torch.from_numpy(vectors()))
