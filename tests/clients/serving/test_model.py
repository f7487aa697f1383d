"""A run's published model is loaded whole and checked whole, or refused in one line that names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clients.serving.model import load_model
from clients.serving.scoring import score_parts
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.data.catalogue import read_catalogue, write_catalogue
from fedrec.errors import RunError
from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays
from fedrec.runfolder import ADAPTER, STATISTICS, write_arrays


@pytest.fixture
def run(counted_run, tmp_path):
    """A copy of a finished run, to damage."""
    return Path(shutil.copytree(counted_run.out, tmp_path / "run"))


def about(run):
    agreement = read_agreement(run)
    data = (run / ADAPTER).read_bytes()
    said = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert said["run_id"] == agreement.run_id
    return said


def rewrite(run, name, *, says=None, **arrays):
    """Write a published file anew, with other arrays or another account of itself."""
    write_arrays(run / name, load_file(run / name) | arrays, metadata=about(run) | (says or {}))


def replace_in(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_number_not_finite(run):
    name, values = next(iter(load_file(run / ADAPTER).items()))
    broken = values.copy()
    broken.flat[0] = np.nan
    rewrite(run, ADAPTER, **{name: broken})


def one_array_missing(run):
    arrays = load_file(run / ADAPTER)
    arrays.popitem()
    write_arrays(run / ADAPTER, arrays, metadata=about(run))


def settings_cut_short(run):
    """All that is left means something, and the rest has defaults."""
    path = run / "config.toml"
    path.write_text(path.read_text().partition("[federation]")[0])


def catalogue_moved(run):
    replace_in(run / "config.toml", "items.csv", "elsewhere.csv")


def other_title(run):
    """The run's settings lead to a catalogue of which one title was changed."""
    source = Path(next(line for line in (run / "config.toml").read_text().splitlines() if "items.csv" in line)[13:-1])
    (run / "items2.csv").write_text(source.read_text().replace("red mug", "red cup"))
    replace_in(run / "config.toml", str(source), str(run / "items2.csv"))


DAMAGE = {
    "no adapter": (lambda run: (run / ADAPTER).unlink(), rf"{ADAPTER}: not there; .* finish the run with --resume"),
    "half an adapter": (lambda run: cut(run / ADAPTER), rf"{ADAPTER}: damaged: .* --resume"),
    "empty adapter": (lambda run: (run / ADAPTER).write_bytes(b""), rf"{ADAPTER}: damaged"),
    "adapter is a folder": (
        lambda run: ((run / ADAPTER).unlink(), (run / ADAPTER).mkdir()),
        rf"{ADAPTER}: cannot be read: Is a directory",
    ),
    "another run's": (
        lambda run: rewrite(run, ADAPTER, says={"run_id": "0" * 32}),
        rf"{ADAPTER}: run_id is 000000000000, expected .*; put the run's own file back",
    ),
    "another base's": (
        lambda run: rewrite(run, ADAPTER, says={"base": "0" * 64}),
        rf"{ADAPTER}: base is 000000000000, expected",
    ),
    "NaN": (one_number_not_finite, rf"{ADAPTER}: .* holds a value that is not finite"),
    "an array too few": (one_array_missing, rf"{ADAPTER}: not the adapter that the run agreed on"),
    "half the counts": (lambda run: cut(run / STATISTICS), rf"{STATISTICS}: damaged"),
    "counts of another round": (
        lambda run: rewrite(run, STATISTICS, says={"round": "77"}),
        rf"{STATISTICS}: of another round than {ADAPTER}",
    ),
    "counts without pairs": (
        lambda run: rewrite(run, STATISTICS, first=np.zeros(3, np.int32)),
        rf"{STATISTICS}: not a list of pairs: ",
    ),
    "counts of more items": (
        lambda run: rewrite(run, STATISTICS, items=np.array(41)),
        rf"{STATISTICS}: for 41 items, the base has 40",
    ),
    "half a base": (lambda run: cut(run / "base" / "ranker.safetensors"), r"base: differs from the base"),
    "no agreement": (lambda run: (run / "agreement.json").unlink(), r"agreement\.json: not a usable agreement"),
    "half an agreement": (lambda run: cut(run / "agreement.json"), r"agreement\.json: not a usable agreement"),
    "no settings": (lambda run: (run / "config.toml").unlink(), r"config\.toml: cannot be read.*own config\.toml back"),
    "half the settings": (settings_cut_short, r"config\.toml: cut short: .*; put the run's own config\.toml back$"),
    "other settings": (
        lambda run: replace_in(run / "config.toml", "merge_repeats = true", "merge_repeats = false"),
        r"config\.toml: data\.merge_repeats is not what the run agreed on",
    ),
    "catalogue gone": (catalogue_moved, r"elsewhere\.csv.*give the run's items with --catalogue FILE"),
    "another title": (other_title, r"items2\.csv: other items, texts or another order than .*base was made for"),
    "no digest of items": (
        lambda run: (run / "base" / "catalogue.sha256").unlink(),
        r"catalogue\.sha256: cannot be read; put the run's own base back",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_missing_damaged_or_foreign_is_refused_by_name(run, damage):
    harm, expected = DAMAGE[damage]
    harm(run)
    with pytest.raises(RunError, match=expected):
        load_model(run)


def test_the_run_folder_that_was_never_one_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"agreement\.json: not a usable agreement.*expected a run folder"):
        load_model(tmp_path / "nowhere")


def test_the_published_adapter_is_what_scores_and_nothing_can_train_it(run):
    model, agreement = load_model(run), read_agreement(run)
    published = load_file(run / ADAPTER)
    base = agreed_ranker(agreement, run)
    assert any(np.abs(values - published[name]).max() > 1e-4 for name, values in adapter_arrays(base).items())
    load_adapter_arrays(base, published)
    base.eval()
    items, last = torch.tensor([[3, 9, 1]]), torch.tensor([[2]])
    with torch.no_grad():
        expected = base(items, last)[0, 0].numpy()
    parts = score_parts(model, np.array([3, 9, 1]))
    np.testing.assert_allclose(parts["sequence"] + parts["text"] + parts["bias"], expected, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.ranker.parameters())
    assert not any(module.training for module in model.ranker.modules())


def test_the_model_says_what_it_is(run):
    model = load_model(run)
    assert set(model.parts) == {"pairs", "counted"}
    assert model.parts["counted"].weight == 1.0
    assert model.statement == read_agreement(run).plan.statement()
    assert model.masking is Masking.LAST
    assert len(model.catalogue) == 40
    assert "price" in model.catalogue.attributes.columns


def test_the_version_is_the_same_for_the_same_files_and_another_for_others(run):
    first = load_model(run).version
    assert first == load_model(run).version
    assert len(first) == 12
    name, values = next(iter(load_file(run / ADAPTER).items()))
    rewrite(run, ADAPTER, **{name: values + np.float32(1e-6)})
    second = load_model(run).version
    (run / STATISTICS).unlink()
    third = load_model(run)
    assert len({first, second, third.version}) == 3
    assert set(third.parts) == {"pairs"}


def test_loading_leaves_no_trace_and_a_refused_model_does_not_disturb_the_one_in_use(run):
    serving = load_model(run)
    before = score_parts(serving, np.array([1, 2, 3]))
    state = torch.get_rng_state()
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    load_model(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    assert torch.equal(torch.get_rng_state(), state)
    one_number_not_finite(run)
    with pytest.raises(RunError):
        load_model(run)
    for name, values in score_parts(serving, np.array([1, 2, 3])).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_catalogue_that_moved_is_read_from_where_it_is_said_to_be(run, counted_run):
    catalogue_moved(run)
    assert len(load_model(run, catalogue=counted_run.catalogue).catalogue) == 40


def test_a_federation_on_separate_machines_is_served_with_the_catalogue_of_its_invitation(run, counted_run):
    catalogue_moved(run)
    (run / "invitation").mkdir()
    items = read_catalogue(counted_run.catalogue, columns={}).text_only()
    write_catalogue(items, run / "invitation" / "catalogue.parquet")
    assert load_model(run).catalogue.digest() == items.digest()
