import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fedrec.errors import RunError
from fedrec.evaluation.calibration import Calibration
from fedrec.model.clicks import (
    ClickHead,
    click_logits,
    click_schema,
    load_click_head,
    person_gradients,
    start_arrays,
)
from fedrec.model.impressions import Impressions
from fedrec.schema import Arrays, flatten, unflatten
from tests.tiny_clicks import SPEC, impressions, moved

PEOPLE = impressions(3, 1, 0, 7, 2)


def _loss_of(person: int, learned: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of one person's impressions, with the design written out."""
    rows = slice(PEOPLE.offsets[person], PEOPLE.offsets[person + 1])
    slots = torch.from_numpy(PEOPLE.slots[rows])
    design = torch.zeros(len(slots), SPEC.slots + 1, dtype=torch.float64)
    design[:, 0] = 1.0
    design.scatter_(1, slots + 1, 1.0)
    design /= design.norm(dim=1, keepdim=True)
    clicked = torch.from_numpy(PEOPLE.clicked[rows]).double()
    return torch.nn.functional.binary_cross_entropy_with_logits(design @ learned, clicked)


@pytest.mark.parametrize("person", [0, 1, 3, 4])
def test_gradient_of_each_person_equals_autograd_on_that_person_alone(person):
    learned = torch.from_numpy(flatten(moved(), click_schema(SPEC))).requires_grad_()
    (expected,) = torch.autograd.grad(_loss_of(person, learned), learned)
    ours = person_gradients(moved(), PEOPLE)
    assert ours.shape == (5, SPEC.slots + 1)
    assert torch.allclose(ours[person].double(), expected, atol=1e-7)


def test_who_was_shown_nothing_has_no_gradient():
    assert not person_gradients(moved(), PEOPLE)[2].any()
    assert person_gradients(moved(), impressions()).shape == (0, SPEC.slots + 1)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_no_gradient_is_longer_than_one(size):
    """So a clip norm of 1 changes nothing, and what is learned stays calibrated."""
    many = impressions(*[1] * 300, 40, seed=7)
    lengths = person_gradients(moved(size=size), many).norm(dim=1)
    assert (lengths <= 1 + 1e-6).all()
    assert lengths.max() > 0.6


def test_start_gives_everyone_the_public_click_rate():
    head = ClickHead(SPEC, start_arrays(SPEC, click_rate=0.215))
    assert head.probabilities(PEOPLE.slots) == pytest.approx(np.full(13, 0.215), rel=1e-6)


def test_logits_add_up_the_slots_of_an_impression():
    learned: Arrays = {"clicks.bias": np.array([2.0], np.float32), "clicks.weights": np.arange(SPEC.slots, dtype="f4")}
    assert click_logits(learned, np.array([[0, 8, 15, 20]])) == pytest.approx([(2 + 0 + 8 + 15 + 20) / np.sqrt(5)])


def _learned(shown: Impressions) -> Arrays:
    """Two large steps against the gradient: too sure, and in the right direction."""
    learned = start_arrays(SPEC, click_rate=0.6)
    for _ in range(2):
        steps = unflatten(20.0 * person_gradients(learned, shown).mean(dim=0).double().numpy(), click_schema(SPEC))
        learned = {name: values - steps[name] for name, values in learned.items()}
    return learned


def test_calibration_moves_probabilities_and_keeps_their_order():
    shown = impressions(*[1] * 400, seed=3)
    raw = ClickHead(SPEC, _learned(shown))
    better = raw.calibrated(shown.slots, shown.clicked)
    assert better.calibration == Calibration.fit(raw.logits(shown.slots), shown.clicked)
    before, after = raw.probabilities(shown.slots), better.probabilities(shown.slots)
    assert (np.argsort(before, kind="stable") == np.argsort(after, kind="stable")).all()
    assert after.mean() == pytest.approx(shown.clicked.mean(), abs=1e-6)
    assert abs(before.mean() - shown.clicked.mean()) > 0.01


def test_head_is_read_back_as_it_was_written(tmp_path):
    head = ClickHead(SPEC, moved(), Calibration(0.5, -0.25))
    head.save(tmp_path / "head.safetensors", about={"privacy": "epsilon 8"})
    again = load_click_head(tmp_path / "head.safetensors")
    assert (again.spec, again.calibration) == (SPEC, head.calibration)
    assert np.array_equal(again.probabilities(PEOPLE.slots), head.probabilities(PEOPLE.slots))


def _described(**changes) -> dict[str, str]:
    spec = {
        "numbers": ["price", "score"],
        "number_bins": 3,
        "categories": [["x", ["a", "b"]], ["y", ["a", "b", "c", "d"]]],
    }
    calibration = {"slope": 1.0, "intercept": 0.0}
    described = {"format": "fedrec click head 1", "spec": spec, "calibration": calibration}
    return {"head": json.dumps(described | changes)}


@pytest.mark.parametrize(
    ("metadata", "arrays", "why"),
    [
        (None, moved(), "'head'"),
        ({"head": "{"}, moved(), "Expecting property name"),
        (_described(format="other"), moved(), "expected 'fedrec click head 1'"),
        (_described(calibration={"slope": -1.0, "intercept": 0.0}), moved(), "calibration slope=-1.0"),
        (_described(calibration={"slope": "x", "intercept": 0.0}), moved(), "must be real number"),
        (_described(spec={"numbers": [], "number_bins": 1, "categories": []}), moved(), "at least one"),
        (_described(spec=None), moved(), "NoneType"),
        (_described(), {"clicks.bias": moved()["clicks.bias"]}, "its weights do not fit its fields"),
        (_described(), {**moved(), "clicks.bias": np.array([np.nan], np.float32)}, "its weights are not finite"),
    ],
)
def test_file_that_is_no_head_is_refused_in_one_line(metadata, arrays, why, tmp_path):
    path = tmp_path / "head.safetensors"
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(RunError, match=rf"head\.safetensors: not a usable click head: .*{why}") as refused:
        load_click_head(path)
    assert "\n" not in str(refused.value)


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"none\.safetensors: not a usable click head"):
        load_click_head(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    with pytest.raises(RunError, match=r"cut\.safetensors: not a usable click head"):
        load_click_head(tmp_path / "cut.safetensors")


def test_people_are_not_mixed_when_some_are_left_out():
    some = PEOPLE.subset(np.array([3, 0]))
    assert torch.equal(person_gradients(moved(), some), person_gradients(moved(), PEOPLE)[[3, 0]])
    assert isinstance(some, Impressions)
