"""Rules for one gradient per person, each for modules of exactly one class, and the recorder that feeds them.

The recorder asks autograd for the gradient of what trainable modules put out and stops there: the ordinary gradient
of their weights, which nobody needs, is never computed. A rule turns a module's input and that gradient into rows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fedrec.errors import PrivacyError
from fedrec.model.parts import Gain

EXPECTED_USE = "expected every trainable module to be used, on inputs whose first axis is the people"

Rule = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def linear_rule(module: nn.Module, inputs: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Rule of ``x @ weight.T + bias``: inputs (B, ..., i), gradient of the output (B, ..., o)."""
    inputs, slope = (x.reshape(len(x), -1, x.shape[-1]) for x in (inputs.to(slope.dtype), slope))
    rows = {}
    if _trains(module, "weight"):
        rows["weight"] = torch.bmm(slope.transpose(1, 2), inputs)  # (B, o, i)
    if _trains(module, "bias"):
        rows["bias"] = slope.sum(dim=1)
    return rows


def gain_rule(module: nn.Module, inputs: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Rule of ``weight * x`` over the last axis of (B, ..., K)."""
    del module
    return {"weight": (inputs.to(slope.dtype) * slope).reshape(len(slope), -1, slope.shape[-1]).sum(dim=1)}


def norm_rule(module: nn.Module, inputs: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Rule of a Llama-style RMSNorm, ``weight * x / rms(x)`` over the last axis of (B, ..., D)."""
    inputs = inputs.float()
    normed = inputs * torch.rsqrt(inputs.square().mean(dim=-1, keepdim=True) + module.variance_epsilon)  # type: ignore[operator]
    return gain_rule(module, normed, slope)


def layer_norm_rule(module: nn.Module, inputs: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Rule of ``weight * (x - mean) / deviation + bias`` over the last axis of (B, ..., D)."""
    normed = nn.functional.layer_norm(inputs.float(), inputs.shape[-1:], eps=module.eps)  # type: ignore[arg-type]
    both = {"weight": gain_rule(module, normed, slope)["weight"]}
    both["bias"] = slope.reshape(len(slope), -1, slope.shape[-1]).sum(dim=1)
    return {name: rows for name, rows in both.items() if _trains(module, name)}


def rule_of(module: nn.Module) -> Rule | None:
    """Return the rule for modules of exactly this class, if there is one; a subclass may compute something else."""
    kind = type(module)
    if kind.__name__ == "LlamaRMSNorm" and kind.__module__.startswith("transformers."):
        return norm_rule  # by name, so that transformers is imported only when used
    if kind is nn.LayerNorm and len(module.normalized_shape) != 1:  # type: ignore[arg-type]
        return None
    return _RULES.get(kind)


def _trains(module: nn.Module, name: str) -> bool:
    parameter = module._parameters.get(name)
    return parameter is not None and parameter.requires_grad


_RULES: dict[type[nn.Module], Rule] = {nn.Linear: linear_rule, nn.LayerNorm: layer_norm_rule, Gain: gain_rule}


class _Use(NamedTuple):
    """One run of a module: what came in, its version then, and where its output sits in the graph."""

    inputs: Tensor
    version: int
    output: GradientEdge


class OutputRecorder:
    """Hooks on trainable modules that note each run, and the rows that follow from a batch's losses.

    Args:
        modules: by name; each has a rule and is the only place where its parameters are used.
    """

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self._modules = modules
        self._uses: dict[str, list[_Use]] = {name: [] for name in modules}
        self._handles = [m.register_forward_hook(partial(self._note, name)) for name, m in modules.items()]

    def close(self) -> None:
        """Remove the hooks and forget the batch."""
        for handle in self._handles:
            handle.remove()
        self.forget()

    def forget(self) -> None:
        """Drop what is kept of a batch; it holds people's data."""
        for uses in self._uses.values():
            uses.clear()

    def rows(self, losses: Tensor) -> dict[str, Tensor]:
        """Return each trainable parameter's gradient for each person, (B, *shape), by its full name.

        Args:
            losses: one a person, (B,), of the runs noted since the last ``forget``.

        Raises:
            PrivacyError: a module ran on something else than one block a person, or its input changed since.
        """
        used = [(name, use) for name, uses in self._uses.items() for use in uses]
        for name, use in used:
            _check_use(name, use, len(losses))
        slopes: tuple[Tensor | None, ...] = ()
        if used:
            slopes = torch.autograd.grad(losses.sum(), [use.output for _, use in used], allow_unused=True)
        rows: dict[str, Tensor] = {}
        with torch.no_grad():
            for key, row in self._of_each_run(used, slopes):
                rows[key] = rows[key] + row if key in rows else row
        return rows

    def _of_each_run(
        self, used: list[tuple[str, _Use]], slopes: tuple[Tensor | None, ...]
    ) -> Iterator[tuple[str, Tensor]]:
        for (name, use), slope in zip(used, slopes, strict=True):
            module = self._modules[name]
            rule = rule_of(module)
            if slope is None or rule is None:  # a run whose output the losses never read adds nothing
                continue
            for parameter, row in rule(module, use.inputs, slope).items():
                yield f"{name}.{parameter}" if name else parameter, row

    def _note(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        del module
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            raise PrivacyError(f"{name}: called with something else than one tensor; {EXPECTED_USE}")
        if output.requires_grad:
            of = inputs[0].detach()
            self._uses[name].append(_Use(of, of._version, get_gradient_edge(output)))


def _check_use(name: str, use: _Use, people: int) -> None:
    """Whatever a trainable module saw must be one block a person: else one row would hold others' data."""
    if use.inputs.dim() < 2 or len(use.inputs) != people:
        raise PrivacyError(f"{name}: ran on something that is not one block a person; {EXPECTED_USE}")
    if use.inputs._version != use.version:
        raise PrivacyError(f"{name}: its input was changed in place after it ran; expected modules that leave it")
