"""What is exported scores as the ranker does, in a process that has never heard of fedrec."""

import copy
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import clients.serving.program as program_module
from clients.serving import exporting
from clients.serving.exporting import export_model, int8_quality
from clients.serving.model import load_model
from clients.serving.program import Int8Linear, int8_codes, onnx_program, with_int8_weights
from clients.serving.scoring import score_parts
from fedrec.data.histories import Histories
from fedrec.errors import ConfigError, RunError
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.panel import panel_people
from fedrec.model.base import PANEL
from tests.tiny_ranker import HISTORY, ITEMS, adapted, vectors
from tests.tiny_run import ROOT

CLOSE = 1e-4  # logits
ASK = """
import sys
assert not {"fedrec", "torch", "clients"} & sys.modules.keys()
asked = json.load(open(sys.argv[1]))
np.save(sys.argv[2], np.array([scores(history) for history in asked]))
"""


@pytest.fixture(scope="module")
def model(counted_run):
    return load_model(counted_run.out)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    return folder, export_model(model, folder)


def random_histories(model, count=200):
    """Of every length from none to more than the ranker reads, immediate repeats among them."""
    rng = np.random.default_rng(0)
    longest = model.ranker.spec.history + 4
    return [rng.integers(0, model.ranker.items, length % (longest + 1)) for length in range(count)]


def test_the_documented_lines_score_as_the_ranker_does_without_fedrec(model, exported, tmp_path):
    histories = random_histories(model)
    assert any((history[1:] == history[:-1]).any() for history in histories)
    ids = [[model.catalogue.item_ids[item] for item in history] for history in histories]
    (tmp_path / "asked.json").write_text(json.dumps(ids))
    lines = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    command = [sys.executable, "-P", "-c", lines + ASK, tmp_path / "asked.json", tmp_path / "scores.npy"]
    subprocess.run(command, cwd=exported[0], check=True, timeout=60)
    expected = [np.sum(list(score_parts(model, history).values()), axis=0) for history in histories]
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=CLOSE, rtol=0)
    assert np.ptp(expected, axis=0).min() > 100 * CLOSE


def test_a_batch_of_any_lengths_scores_as_the_ranker_does(model, exported):
    program = onnxruntime.InferenceSession(exported[0] / "ranker.onnx")
    rng, longest = np.random.default_rng(1), model.ranker.spec.history
    for people, length in ((1, 1), (1, longest), (7, 2), (50, longest)):
        items, positions = rng.integers(0, 40, (people, length)), rng.integers(0, length, people)
        expected = scores_of(model.ranker, items, positions)
        np.testing.assert_allclose(ask(program, items, positions), expected, atol=CLOSE, rtol=0)
    before_the_first = ask(program, items, np.full(people, -1))
    np.testing.assert_array_equal(before_the_first, np.tile(model.bias, (people, 1)))


def test_int8_with_another_adapter_is_the_ranker_with_rounded_vectors_and_weights(monkeypatch):
    monkeypatch.setattr(program_module, "_WORTH_ROUNDING", 64)
    ranker = adapted(kind="bottleneck", targets="all-linear").eval()
    codes, scales = int8_codes(vectors())
    written = onnx_program(with_int8_weights(ranker), codes, scales)
    items, positions = np.random.default_rng(2).integers(0, ITEMS, (20, HISTORY)), np.arange(20) % HISTORY
    found, exact = ask(onnxruntime.InferenceSession(written), items, positions), scores_of(ranker, items, positions)
    ranker.vectors = torch.from_numpy(codes * scales[:, None])
    only_vectors = scores_of(ranker, items, positions)
    weights = [layer.weight for layer in ranker.modules() if type(layer) is nn.Linear]
    rounded = [weight for weight in weights if weight.numel() >= 64]
    assert 0 < len(rounded) < len(weights)
    for weight in rounded:
        codes, scales = int8_codes(weight.detach().numpy())
        weight.data = torch.from_numpy(codes * scales[:, None])
    np.testing.assert_allclose(found, scores_of(ranker, items, positions), atol=CLOSE, rtol=0)
    assert np.abs(found - only_vectors).max() > 10 * CLOSE
    assert np.abs(only_vectors - exact).max() > 10 * CLOSE
    stored = onnx.load_from_string(written).graph.initializer
    assert sum(one.data_type == onnx.TensorProto.INT8 for one in stored) == len(rounded) + 1


def test_int8_weights_keep_their_bias_and_leave_the_ranker_as_it_is():
    ranker, features = nn.Linear(40, 30), torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert Int8Linear(ranker)(features) == pytest.approx(ranker(features), abs=0.02)
        ranker.bias += 1.0
        assert Int8Linear(ranker)(features) == pytest.approx(ranker(features), abs=0.02)
    whole = nn.Sequential(ranker)
    assert type(with_int8_weights(whole)[0]) is Int8Linear
    assert whole[0] is ranker


def scores_of(ranker, items, positions):
    with torch.no_grad():
        return ranker(torch.from_numpy(items), torch.from_numpy(positions)[:, None])[:, 0].numpy()


def ask(program, items, positions):
    return program.run(["scores"], {"items": items, "positions": positions})[0]


def test_codes_worked_by_hand():
    codes, scales = int8_codes(np.array([[0.5, -1.27, 0.004], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(codes, [[50, -127, 0], [0, 0, 0]])
    np.testing.assert_allclose(scales, [0.01, 1.0], rtol=1e-6)


def test_codes_are_within_half_a_scale():
    codes, scales = int8_codes(vectors())
    assert codes.dtype == np.int8
    assert (np.abs(codes * scales[:, None] - vectors()) <= scales[:, None] * 0.5001).all()
    assert (np.abs(codes.astype(int)).max(axis=1) == 127).all()


def test_what_int8_changes_is_measured_on_the_same_people_and_leaves_the_model_alone(model, counted_run):
    before = score_parts(model, np.array([3, 9]))
    panel = Histories.load(counted_run.out / "base" / PANEL)
    quality = int8_quality(model, panel, masking=Masking.LAST)
    assert quality.people == (panel.lengths > 1).sum()
    assert quality.change == pytest.approx(quality.int8 - quality.float32)
    assert 0 < quality.float32 <= 1
    assert abs(quality.change) < 0.05
    for name, values in score_parts(model, np.array([3, 9])).items():
        np.testing.assert_array_equal(values, before[name])
    assert not model.ranker.training


def coarse_codes(vectors):
    """Rounded as int8 is, and then to steps of 64, so that it shows."""
    codes, scales = int8_codes(vectors)
    return codes // 64 * 64, scales


def changed(ranker, *, coarse, silent):
    """The ranker with coarse item vectors, with linear layers that say nothing, or both."""
    copied, (codes, scales) = copy.deepcopy(ranker), coarse_codes(ranker.vectors.numpy())
    if coarse:
        copied.vectors = torch.from_numpy(codes * scales[:, None])
    for layer in copied.modules() if silent else ():
        if isinstance(layer, nn.Linear):
            layer.weight.data.zero_()
    return copied.eval()


def test_what_is_measured_as_int8_and_what_is_written_have_both_vectors_and_weights_rounded(
    model, counted_run, tmp_path, monkeypatch
):
    """Coarse vectors and layers of zeros stand for rounded ones: measured and written is the ranker that has both."""
    monkeypatch.setattr(program_module, "_WORTH_ROUNDING", 1)
    monkeypatch.setattr(Int8Linear, "weight", property(lambda self: 0 * self.codes.float()))
    monkeypatch.setattr(exporting, "int8_codes", coarse_codes)
    panel, parts = Histories.load(counted_run.out / "base" / PANEL), list(model.parts.values())
    items, positions = np.array([[3, 9], [30, 1]]), np.array([0, 0])
    measured = int8_quality(model, panel, masking=Masking.LAST).int8
    export_model(model, tmp_path / "model", int8=True)
    written = ask(onnxruntime.InferenceSession(tmp_path / "model" / "ranker.onnx"), items, positions)
    for coarse, silent in ((True, True), (True, False), (False, True)):
        ranker = changed(model.ranker, coarse=coarse, silent=silent)
        off = np.abs(written - scores_of(ranker, items, positions)).max()
        figure = panel_people(ranker, panel, masking=Masking.LAST, parts=parts)[1].mean()
        if coarse and silent:
            assert off < CLOSE
            assert measured == pytest.approx(figure, abs=1e-6)
        else:
            assert off > 10 * CLOSE
            assert measured != pytest.approx(figure, abs=1e-6)


def test_the_manifest_says_what_is_there(model, exported):
    folder, manifest = exported
    assert sorted(path.name for path in folder.iterdir()) == sorted([*manifest["sha256"], "manifest.json"])
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["version"] == model.version
    assert manifest["privacy"] == model.statement
    assert (manifest["items"], manifest["history"], manifest["masking"]) == (40, 6, "last")
    assert (manifest["numbers"], manifest["int8_ndcg@10"]) == ("float32", None)
    assert json.loads((folder / "items.json").read_text(encoding="utf-8")) == list(model.catalogue.item_ids)


def test_an_export_can_be_repeated_and_tells_no_path_of_this_machine(model, exported, tmp_path):
    assert export_model(model, tmp_path / "again") == exported[1]
    for path in (tmp_path / "again").iterdir():
        for told in (ROOT, Path(torch.__file__).parent, Path.home()):
            assert str(told).encode() not in path.read_bytes()


def test_a_folder_that_holds_something_is_left_alone(model, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="exists; choose another place"):
        export_model(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_fails_leaves_nothing(model, exported, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RunError("the disk is full")

    program = (exported[0] / "ranker.onnx").read_bytes()  # made once; what is tried comes after it
    monkeypatch.setattr("clients.serving.exporting.onnx_program", lambda *_: program)
    monkeypatch.setattr("clients.serving.exporting.write_arrays", refuse)
    with pytest.raises(RunError, match="the disk is full"):
        export_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_its_packages_says_what_to_install(model, tmp_path, monkeypatch):
    monkeypatch.setattr("clients.serving.program.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the packages onnx and onnxscript; pip install 'fedrec\[onnx\]'"):
        export_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
