"""One gradient per person, by Opacus hooks on the trainable parameters."""

import warnings
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch
from opacus.grad_sample import GradSampleHooks, register_grad_sampler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedrec.errors import PrivacyError
from fedrec.model.parts import Gain

_REFUSED_WHEN_TRAINABLE = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.ParameterDict,
    nn.ParameterList,
)
_EXPECTED_USE = "expected every trainable module to be used, on inputs whose first axis is the people"
_LEFT_BY_HOOKS = ("activations", "max_batch_len", "ft_compute_sample_grad")

GradientRule = Callable[[nn.Module, list[Tensor], Tensor], dict[nn.Parameter, Tensor]]


class PersonGradients:
    """Per-person gradients of a model's trainable parameters, while the context is open.

    Keys and modules stay as they were (no wrapper), and leaving the context removes every trace.
    Hooks mode alone: "ghost" clipping silently breaks the bound on tied weights.

    Raises on entry:
        PrivacyError: the model has nothing to train, is not in training mode, or holds a module whose
            per-person gradient would be wrong or would couple people.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._hooks: GradSampleHooks | None = None

    def __enter__(self) -> Self:
        _refuse_unsupported(self._model)
        for module in self._model.modules():
            _prefer_fast_rule(module)
        self._hooks = GradSampleHooks(self._model, loss_reduction="sum", strict=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hooks is not None:
            self._hooks.cleanup()
            self._hooks = None
        self._forget_batch()

    @property
    def parameters(self) -> int:
        """P, the number of trainable values."""
        return sum(p.numel() for p in self._parameters.values())

    def compute(self, losses: Callable[[], Tensor], *, people: int | None = None) -> Tensor:
        """Gradients of each person's own loss.

        Args:
            losses: runs the model once and returns (B,), the loss of each person from their own data alone.
            people: B where known; 0 returns at once and never calls ``losses``.

        Returns:
            (B, P), float32, columns in the order of ``model.named_parameters()``. Sensitive until released.
            Someone whose loss is not finite has a row that is not finite; others are untouched.

        Raises:
            PrivacyError: used outside its context, losses of another shape, or a trainable parameter
                without exactly one gradient a person.
        """
        if self._hooks is None:
            raise PrivacyError("PersonGradients.compute: expected inside `with PersonGradients(model) as ...`")
        if people == 0:
            return torch.zeros(0, self.parameters)
        try:
            with torch.enable_grad():
                per_person = losses()
                _check_losses(per_person, people)
                self._check_activations(len(per_person))
                _backward(per_person)
            return torch.cat([self._rows(name, p, len(per_person)) for name, p in self._parameters.items()], dim=1)
        finally:
            self._forget_batch()

    def _check_activations(self, people: int) -> None:
        """Whatever a trainable module saw must be one block a person: else one row would hold others' data."""
        for name, module in self._model.named_modules():
            for inputs in vars(module).get("activations", ()):
                if inputs[0].shape[:1] != (people,):
                    raise PrivacyError(f"{name}: ran on something that is not one block a person; {_EXPECTED_USE}")

    def _rows(self, name: str, parameter: nn.Parameter, people: int) -> Tensor:
        rows = getattr(parameter, "grad_sample", None)
        if not isinstance(rows, Tensor) or rows.shape != (people, *parameter.shape):
            raise PrivacyError(f"{name}: no gradient for each of the people in the batch; {_EXPECTED_USE}")
        return rows.detach().reshape(people, -1).float()

    def _forget_batch(self) -> None:
        """Remove all that a batch leaves on parameters and modules, also after an error half-way."""
        for parameter in self._parameters.values():
            parameter.grad = None
            if self._hooks is not None:
                parameter.grad_sample = None  # type: ignore[attr-defined]
                parameter._forward_counter = 0  # type: ignore[attr-defined]
            if hasattr(parameter, "_current_grad_sample"):
                del parameter._current_grad_sample
        for module in self._model.modules():
            for name in _LEFT_BY_HOOKS if self._hooks is None else _LEFT_BY_HOOKS[:2]:
                if name in vars(module):
                    delattr(module, name)


def register_rule(module_class: type[nn.Module], rule: GradientRule) -> None:
    """Give modules of exactly this class a rule for their per-person gradients.

    Not needed for correctness: without a rule the module's forward is differentiated again, which is
    exact and slower. ``verify_person_gradients`` checks every rule against plain autograd.
    """
    register_grad_sampler(module_class)(rule)


def gain_rule(module: nn.Module, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """Rule of a module that computes ``weight * x`` over the last axis of (B, ..., K)."""
    weight = module.get_parameter("weight")
    products = activations[0].to(backprops.dtype) * backprops
    return {weight: products.reshape(len(products), -1, len(weight)).sum(dim=1)}


def norm_rule(module: nn.Module, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """Rule of a Llama-style RMSNorm, ``weight * x / rms(x)`` over the last axis of (B, ..., D)."""
    weight = module.get_parameter("weight")
    inputs = activations[0].float()
    normed = inputs * torch.rsqrt(inputs.square().mean(dim=-1, keepdim=True) + module.variance_epsilon)  # type: ignore[operator]
    products = normed.to(backprops.dtype) * backprops
    return {weight: products.reshape(len(products), -1, len(weight)).sum(dim=1)}


def _prefer_fast_rule(module: nn.Module) -> None:
    """Known classes get their rule; transformers' norm goes by name, so that it is imported only when used."""
    kind = type(module)
    if kind is Gain:
        register_rule(kind, gain_rule)
    elif kind.__name__ == "LlamaRMSNorm" and kind.__module__.startswith("transformers."):
        register_rule(kind, norm_rule)


def _backward(losses: Tensor) -> None:
    """Backward of the sum, whose gradient by each person's loss is one, so rows need no rescaling."""
    with warnings.catch_warnings():  # torch notes that inputs of the first layer need no gradient; they don't
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        losses.sum().backward()  # type: ignore[no-untyped-call]


def _check_losses(losses: Tensor, people: int | None) -> None:
    if losses.dim() != 1 or len(losses) == 0 or (people is not None and len(losses) != people):
        raise PrivacyError(f"losses of shape {tuple(losses.shape)}: expected one loss a person, ({people or 'B'},)")
    if not losses.requires_grad:
        raise PrivacyError("losses do not depend on any trainable parameter: expected a differentiable loss")


def _refuse_unsupported(model: nn.Module) -> None:
    """Refuse what hooks would get wrong or what lets one person's data reach another's gradient."""
    if not any(p.requires_grad for p in model.parameters()):
        raise PrivacyError("the model has no trainable parameter: expected adapters with requires_grad")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) or (isinstance(module, _InstanceNorm) and module.track_running_stats):
            raise PrivacyError(f"{name}: {type(module).__name__} mixes people; expected LayerNorm or RMSNorm")
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        if isinstance(module, _REFUSED_WHEN_TRAINABLE):
            raise PrivacyError(
                f"{name}: {type(module).__name__} must not be trained; expected adapters on linear layers"
            )
        if not module.training:
            raise PrivacyError(f"{name}: in evaluation mode; expected training mode, call model.train()")
        if any(True for _ in module.children()) and type(module) not in GradSampleHooks.GRAD_SAMPLERS:
            raise PrivacyError(f"{name}: {type(module).__name__} has parameters and submodules; expected leaf modules")
    _refuse_shared_memory(model)


def _refuse_shared_memory(model: nn.Module) -> None:
    """Tied weights: one parameter under two names, or two parameters over one memory."""
    named = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.numel() > 0]
    uses = Counter(p.untyped_storage().data_ptr() for _, p in named)
    for name, parameter in named:
        if parameter.requires_grad and uses[parameter.untyped_storage().data_ptr()] > 1:
            raise PrivacyError(f"{name}: shares its memory with another parameter; expected untied weights")
