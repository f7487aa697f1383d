"""One gradient per person by Opacus hooks: for modules without a rule of ours, and the reference that ours is held to.

Hooks mode alone: "ghost" clipping silently breaks the bound on tied weights.
"""

import warnings

from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.privacy.rules import EXPECTED_USE

_LEFT_BY_HOOKS = ("activations", "max_batch_len", "ft_compute_sample_grad")


class OpacusRecorder:
    """What ``OutputRecorder`` does, for any module that Opacus can differentiate again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._hooks: GradSampleHooks | None = GradSampleHooks(model, loss_reduction="sum", strict=True)

    def close(self) -> None:
        """Remove the hooks, and every trace of them on parameters and modules."""
        if self._hooks is not None:
            self._hooks.cleanup()
            self._hooks = None
        self.forget()

    def forget(self) -> None:
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

    def rows(self, losses: Tensor) -> dict[str, Tensor]:
        """As ``OutputRecorder.rows``."""
        self._check_activations(len(losses))
        with warnings.catch_warnings():  # torch notes that inputs of the first layer need no gradient; they don't
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses.sum().backward()  # type: ignore[no-untyped-call]
        found = {name: getattr(p, "grad_sample", None) for name, p in self._parameters.items()}
        return {name: rows for name, rows in found.items() if isinstance(rows, Tensor)}

    def _check_activations(self, people: int) -> None:
        for name, module in self._model.named_modules():
            for inputs in vars(module).get("activations", ()):
                if inputs[0].shape[:1] != (people,):
                    raise PrivacyError(f"{name}: ran on something that is not one block a person; {EXPECTED_USE}")
