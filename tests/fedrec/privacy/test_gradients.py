import copy

import pytest
import torch
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.privacy.gradients import PersonGradients
from fedrec.privacy.opacus_hooks import OpacusRecorder
from fedrec.privacy.rules import OutputRecorder
from tests.fedrec.privacy.loops import one_by_one


def traces(model: nn.Module) -> list[str]:
    """What hooks would leave behind."""
    left = [
        name for name, m in model.named_modules() if m._forward_hooks or m._backward_hooks or hasattr(m, "activations")
    ]
    names = ("grad_sample", "_forward_counter", "_current_grad_sample")
    return left + [
        name for name, p in model.named_parameters() if any(hasattr(p, a) for a in names) or p.grad is not None
    ]


def test_rows_equal_autograd_on_each_person_for_lora_norms_and_gains(small):
    names = [name for name, p in small.model.named_parameters() if p.requires_grad]
    for part in (
        "q_proj.lora_A",
        "v_proj.lora_B",
        "head.lora_A",
        "norm",
        "input_layernorm",
        "gain",
        "bottleneck",
        *(["unknown_scale"] if small.engine == "opacus" else []),
    ):
        assert any(part in name for name in names), part
    with PersonGradients(small.model) as engine:
        rows = engine.compute(lambda: small.losses_of(torch.arange(6)), people=6)
    expected = one_by_one(small.model, small.losses_of, 6)
    assert rows.dtype == torch.float32
    assert rows.shape == expected.shape == (6, engine.parameters)
    sizes = [p.numel() for p in small.model.parameters() if p.requires_grad]
    for name, row, loop in zip(names, rows.split(sizes, 1), expected.split(sizes, 1), strict=True):
        assert loop.abs().max() > 1e-4, name
        assert torch.allclose(row, loop, rtol=1e-4, atol=1e-6), name


def test_a_person_has_the_same_row_alone_and_in_any_batch(small):
    with PersonGradients(small.model) as engine:
        batch = engine.compute(lambda: small.losses_of(torch.arange(6)))
        alone = torch.cat([engine.compute(lambda i=i: small.losses_of(torch.tensor([i]))) for i in range(6)])
        turned = engine.compute(lambda: small.losses_of(torch.arange(6).flip(0)))
    assert torch.allclose(batch, alone, rtol=1e-4, atol=1e-6)
    assert torch.allclose(batch, turned.flip(0), rtol=1e-4, atol=1e-6)


def test_two_batches_do_not_add_up(small):
    with PersonGradients(small.model) as engine:
        first = engine.compute(lambda: small.losses_of(torch.arange(4)))
        again = engine.compute(lambda: small.losses_of(torch.arange(4)))
    assert torch.equal(first, again)


def test_opacus_takes_over_where_a_module_has_no_rule_and_only_there(small):
    with PersonGradients(small.model) as engine:
        expected = OpacusRecorder if small.engine == "opacus" else OutputRecorder
        assert type(engine._recorder) is expected


def test_someone_whose_loss_is_not_finite_spoils_nobody_else(small):
    spoil = torch.tensor([1.0, torch.nan, 1.0, 1.0, 1.0, torch.inf])
    with PersonGradients(small.model) as engine:
        rows = engine.compute(lambda: small.losses_of(torch.arange(6)) * spoil)
        clean = engine.compute(lambda: small.losses_of(torch.arange(6)))
    assert torch.isfinite(rows).all(dim=1).tolist() == [True, False, True, True, True, False]
    assert torch.allclose(rows[[0, 2, 3, 4]], clean[[0, 2, 3, 4]], rtol=1e-4, atol=1e-6)


def test_an_empty_batch_never_runs_the_model(small):
    def never() -> Tensor:
        raise AssertionError("the model was run")

    with PersonGradients(small.model) as engine:
        assert engine.compute(never, people=0).shape == (0, engine.parameters)


def test_nothing_of_the_model_changes_and_no_trace_stays(small):
    before = copy.deepcopy(small.model.state_dict())
    assert traces(small.model) == []
    with PersonGradients(small.model) as engine:
        engine.compute(lambda: small.losses_of(torch.arange(3)))
        trainable = [p for p in small.model.parameters() if p.requires_grad]
        assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in trainable)
    assert traces(small.model) == []
    after = small.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_error_half_way_leaves_no_trace_and_no_wrong_row(small):
    def interrupted() -> Tensor:
        small.losses_of(torch.arange(2))
        raise RuntimeError("out of memory")

    with PersonGradients(small.model) as engine:
        clean = engine.compute(lambda: small.losses_of(torch.arange(3)))
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.compute(interrupted)
        assert torch.equal(engine.compute(lambda: small.losses_of(torch.arange(3))), clean)
    with pytest.raises(RuntimeError, match="out of memory"), PersonGradients(small.model) as engine:
        engine.compute(interrupted)
    assert traces(small.model) == []
    with PersonGradients(small.model) as engine:
        assert torch.equal(engine.compute(lambda: small.losses_of(torch.arange(3))), clean)


def test_the_context_can_be_opened_again_and_is_needed(small):
    engine = PersonGradients(small.model)
    with pytest.raises(PrivacyError, match=r"PersonGradients.compute: expected inside `with PersonGradients"):
        engine.compute(lambda: small.losses_of(torch.arange(2)))
    for _ in range(2):
        with engine:
            engine.compute(lambda: small.losses_of(torch.arange(2)))


def test_gradients_flow_even_when_the_caller_switched_them_off(small):
    with torch.no_grad(), PersonGradients(small.model) as engine:
        assert engine.compute(lambda: small.losses_of(torch.arange(2))).any()


def linear(inputs: int = 3, outputs: int = 3) -> nn.Linear:
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda m, x: m(x).sum(), r"losses of shape \(\): expected one loss a person, \(4,\)"),
        (lambda m, x: m(x), r"losses of shape \(4, 3\): expected one loss a person, \(4,\)"),
        (lambda m, x: m(x)[:3].sum(1), r"losses of shape \(3,\): expected one loss a person, \(4,\)"),
        (lambda m, x: x.sum(1), "losses do not depend on any trainable parameter: expected a differentiable loss"),
    ],
)
def test_losses_that_are_not_one_a_person_are_refused(losses, message):
    model, x = nn.Sequential(linear()), torch.randn(4, 3)
    with PersonGradients(model) as engine, pytest.raises(PrivacyError, match=message):
        engine.compute(lambda: losses(model, x), people=4)


UNUSED = r"1\.\w+: no gradient for each of the people in the batch; expected every trainable module to be used"
NOT_PEOPLE = "1: ran on something that is not one block a person; expected every trainable module to be used"


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda m, x: m[0](x).sum(1), UNUSED),
        (lambda m, x: m[0](x).sum(1) + 0 * m[1](x).detach().sum(1), UNUSED),
        (lambda m, x: nn.functional.linear(m[0](x), m[1].weight).sum(1), UNUSED),  # not through its module
        (lambda m, x: (m[1](m[0](x)) @ m[1](torch.eye(3)[:1]).T).sum(1), NOT_PEOPLE),  # fewer rows than people
        (lambda m, x: (m[0](x) @ m[1](torch.ones(5, 3)).T).sum(1), NOT_PEOPLE),  # more
        (lambda m, x: m[0](x).sum(1) * m[1](torch.ones(3)).sum(), NOT_PEOPLE),  # none
    ],
)
def test_a_weight_that_does_not_see_the_people_is_refused(losses, message):
    model, x = nn.Sequential(linear(), linear()), torch.randn(4, 3)
    with PersonGradients(model) as engine, pytest.raises(PrivacyError, match=message):
        engine.compute(lambda: losses(model, x))


def test_a_module_that_runs_twice_on_the_people_adds_up():
    model, x = nn.Sequential(linear()), torch.randn(4, 3)

    def losses_of(rows: Tensor) -> Tensor:
        return (model(model(x[rows])) * model(x[rows].square())).sum(dim=1)

    with PersonGradients(model) as engine:
        rows = engine.compute(lambda: losses_of(torch.arange(4)))
    assert torch.allclose(rows, one_by_one(model, losses_of, 4), rtol=1e-4, atol=1e-6)


class Composite(nn.Module):
    """A parameter of its own beside a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.inner = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.weight


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(linear(), nn.BatchNorm1d(3)), "1: BatchNorm1d mixes people; expected LayerNorm or RMSNorm"),
        (nn.Sequential(linear(), frozen(nn.BatchNorm1d(3))), "1: BatchNorm1d mixes people"),
        (nn.Sequential(linear(), nn.InstanceNorm1d(3, track_running_stats=True)), "1: InstanceNorm1d mixes people"),
        (
            nn.Sequential(nn.Embedding(3, 3), linear()),
            "0: Embedding must not be trained; expected adapters on linear layers",
        ),
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "0: MultiheadAttention must not be trained"),
        (nn.Sequential(nn.GRU(3, 3)), "0: GRU must not be trained"),
        (nn.Sequential(nn.ParameterDict({"l": nn.Parameter(torch.ones(3))})), "0: ParameterDict must not be trained"),
        (nn.Sequential(linear()).eval(), r"0: in evaluation mode; expected training mode, call model.train\(\)"),
        (nn.Sequential(Composite()), "0: Composite has parameters and submodules; expected leaf modules"),
        (frozen(nn.Sequential(linear())), "the model has no trainable parameter: expected adapters with requires_grad"),
    ],
)
def test_a_model_whose_gradients_would_be_wrong_is_refused(model, message):
    with pytest.raises(PrivacyError, match=message), PersonGradients(model):
        pass
    assert traces(model) == []


@pytest.mark.parametrize("tie", ["parameter", "memory"])
def test_tied_weights_are_refused(tie):
    model = nn.Sequential(linear(), linear())
    model[1].weight = model[0].weight if tie == "parameter" else nn.Parameter(model[0].weight.detach())
    with pytest.raises(PrivacyError, match=r"0\.weight: shares its memory with another parameter; expected untied"):
        PersonGradients(model).__enter__()


def test_frozen_embeddings_and_instance_norms_without_memory_are_fine():
    model = nn.Sequential(frozen(nn.Embedding(4, 3)), linear(), nn.InstanceNorm1d(2))
    with PersonGradients(model) as engine:
        assert engine.compute(lambda: model(torch.tensor([[0, 1], [2, 3]])).square().flatten(1).sum(1)).shape == (2, 12)
