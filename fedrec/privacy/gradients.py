"""One gradient per person, by our own rules where every trainable module has one, else by Opacus hooks."""

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedrec.errors import PrivacyError
from fedrec.privacy.rules import EXPECTED_USE, OutputRecorder, rule_of

if TYPE_CHECKING:
    from fedrec.privacy.opacus_hooks import OpacusRecorder

_REFUSED_WHEN_TRAINABLE = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.ParameterDict,
    nn.ParameterList,
)


class PersonGradients:
    """Per-person gradients of a model's trainable parameters, while the context is open.

    Keys and modules stay as they were (no wrapper), and leaving the context removes every trace. The model is walked
    once: what is trainable when the context opens stays so until it closes.

    Raises on entry:
        PrivacyError: the model has nothing to train, is not in training mode, or holds a module whose
            per-person gradient would be wrong or would couple people.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._recorder: OutputRecorder | OpacusRecorder | None = None

    def __enter__(self) -> Self:
        self._recorder = _recorder(self._model, _trainable_modules(self._model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

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
        if self._recorder is None:
            raise PrivacyError("PersonGradients.compute: expected inside `with PersonGradients(model) as ...`")
        if people == 0:
            return torch.zeros(0, self.parameters)
        try:
            with torch.enable_grad():
                per_person = losses()
                _check_losses(per_person, people)
                found = self._recorder.rows(per_person)
            return torch.cat([self._rows(name, p, found, len(per_person)) for name, p in self._parameters.items()], 1)
        finally:
            self._recorder.forget()

    def _rows(self, name: str, parameter: nn.Parameter, found: dict[str, Tensor], people: int) -> Tensor:
        rows = found.get(name)
        if rows is None or rows.shape != (people, *parameter.shape):
            raise PrivacyError(f"{name}: no gradient for each of the people in the batch; {EXPECTED_USE}")
        return rows.detach().reshape(people, -1).float()


def _recorder(model: nn.Module, modules: dict[str, nn.Module]) -> "OutputRecorder | OpacusRecorder":
    """Our own where every trainable module has a rule."""
    if all(rule_of(module) is not None for module in modules.values()):
        return OutputRecorder(modules)
    from fedrec.privacy.opacus_hooks import OpacusRecorder  # two seconds, which nobody with rules need wait

    return OpacusRecorder(model)


def _check_losses(losses: Tensor, people: int | None) -> None:
    if losses.dim() != 1 or len(losses) == 0 or (people is not None and len(losses) != people):
        raise PrivacyError(f"losses of shape {tuple(losses.shape)}: expected one loss a person, ({people or 'B'},)")
    if not losses.requires_grad:
        raise PrivacyError("losses do not depend on any trainable parameter: expected a differentiable loss")


def _trainable_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with trainable parameters of their own; refuse what would be wrong or lets people reach each other."""
    modules = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) or (isinstance(module, _InstanceNorm) and module.track_running_stats):
            raise PrivacyError(f"{name}: {type(module).__name__} mixes people; expected LayerNorm or RMSNorm")
        if any(p is not None and p.requires_grad for p in module._parameters.values()):
            _refuse_unsupported(name, module)
            modules[name] = module
    if not modules:
        raise PrivacyError("the model has no trainable parameter: expected adapters with requires_grad")
    _refuse_shared_memory(model)
    return modules


def _refuse_unsupported(name: str, module: nn.Module) -> None:
    """Refuse a trainable module whose gradient hooks would get wrong."""
    kind = type(module).__name__
    if isinstance(module, _REFUSED_WHEN_TRAINABLE):
        raise PrivacyError(f"{name}: {kind} must not be trained; expected adapters on linear layers")
    if not module.training:
        raise PrivacyError(f"{name}: in evaluation mode; expected training mode, call model.train()")
    if module._modules and rule_of(module) is None:
        raise PrivacyError(f"{name}: {kind} has parameters and submodules; expected leaf modules")


def _refuse_shared_memory(model: nn.Module) -> None:
    """Tied weights: one parameter under two names, or two parameters over one memory."""
    named = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.numel() > 0]
    uses = Counter(p.untyped_storage().data_ptr() for _, p in named)
    for name, parameter in named:
        if parameter.requires_grad and uses[parameter.untyped_storage().data_ptr()] > 1:
            raise PrivacyError(f"{name}: shares its memory with another parameter; expected untied weights")
