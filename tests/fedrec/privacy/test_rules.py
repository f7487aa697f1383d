import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.privacy import gradients
from fedrec.privacy.gradients import PersonGradients
from tests.fedrec.privacy.loops import one_by_one


def linear() -> nn.Linear:
    return nn.Linear(3, 3)


def test_the_rules_are_as_exact_as_opacus(small, monkeypatch):
    def rows_of(people: int) -> Tensor:
        with PersonGradients(small.model) as engine:
            return engine.compute(lambda: small.losses_of(torch.arange(people)))

    ours = rows_of(6)
    monkeypatch.setattr(gradients, "rule_of", lambda module: None)
    assert torch.allclose(ours, rows_of(6), rtol=1e-5, atol=1e-6)


class ChangedInPlace(nn.Module):
    """Trainable modules between operations that overwrite their output, or their input."""

    def __init__(self, *, after: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.after = linear(), linear(), after

    def losses(self, x: Tensor) -> Tensor:
        between = self.first(x)
        out = self.second(between)
        return self.after(between, out).square().sum(dim=1)


@pytest.mark.parametrize(
    "after",
    [
        lambda between, out: out.mul_(2.0),
        lambda between, out: out.unflatten(1, (3, 1))[:, 1:].square_().flatten(1) + out[:, :2],
    ],
    ids=["output", "view of the output"],
)
def test_an_output_that_is_overwritten_later_has_the_gradient_of_what_the_module_gave(after):
    model, x = ChangedInPlace(after=after), torch.randn(4, 3)
    with PersonGradients(model) as engine:
        rows = engine.compute(lambda: model.losses(x))
    assert torch.allclose(rows, one_by_one(model, lambda chosen: model.losses(x[chosen]), 4), rtol=1e-4, atol=1e-6)


def test_an_input_that_is_overwritten_later_is_refused():
    x = torch.randn(4, 3)
    model = nn.Sequential(linear())

    def losses() -> Tensor:
        inputs = x.clone()
        out = model(inputs)
        inputs.zero_()  # autograd would notice on the way to the weight, which the rule does not take
        return out.square().sum(dim=1)

    with PersonGradients(model) as engine, pytest.raises(PrivacyError, match="0: its input was changed in place"):
        engine.compute(losses)


def test_a_run_that_the_losses_never_read_adds_nothing():
    model, x = nn.Sequential(linear()), torch.randn(4, 3)

    def losses_of(rows: Tensor) -> Tensor:
        model(x[rows] + 1)
        with torch.no_grad():
            model(x[rows] + 2)
        return model(x[rows]).square().sum(dim=1)

    with PersonGradients(model) as engine:
        rows = engine.compute(lambda: losses_of(torch.arange(4)))
    assert torch.allclose(rows, one_by_one(model, losses_of, 4), rtol=1e-4, atol=1e-6)


def test_a_call_with_anything_but_one_tensor_is_refused():
    model, x = nn.Sequential(linear()), torch.randn(4, 3)
    with PersonGradients(model) as engine, pytest.raises(PrivacyError, match="0: called with something else than one"):
        engine.compute(lambda: model[0](input=x).sum(dim=1))


class Louder(nn.Linear):
    """A subclass computes something else than its class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 3


@pytest.mark.parametrize(
    "module",
    [Louder(3, 2), nn.LayerNorm((2, 3)), nn.LayerNorm(3, bias=False), nn.LayerNorm(3, eps=0.5), nn.Linear(3, 3)],
    ids=["subclass", "norm over two axes", "norm without bias", "norm with its own epsilon", "linear"],
)
@pytest.mark.parametrize("frozen_part", ["", "weight"])
def test_a_module_has_the_gradient_of_what_it_computes(module, frozen_part):
    model, x = copy.deepcopy(nn.Sequential(linear(), module)), torch.randn(4, 2, 3)
    if frozen_part:
        model[1].weight.requires_grad_(False)

    def losses_of(rows: Tensor) -> Tensor:
        return model(x[rows]).square().flatten(1).sum(dim=1)

    with PersonGradients(model) as engine:
        rows = engine.compute(lambda: losses_of(torch.arange(4)))
    assert torch.allclose(rows, one_by_one(model, losses_of, 4), rtol=1e-4, atol=1e-5)
