"""The few parameters that learn from private data and cross the wire, on an otherwise frozen ranker.

LoRA and FFA-LoRA come from PEFT; PEFT has no serial bottleneck, so that one is two plain linear layers
here. Only kinds whose per-person gradients Opacus gets exactly right are offered.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedrec.errors import ConfigError, WireError
from fedrec.model.ranker import Ranker
from fedrec.schema import AdapterSchema, ArraySpec

_PEFT_PARTS = {"default", "modules_to_save"}


@dataclass(frozen=True)
class AdapterSpec:
    """Which parameters adapt: kind and rank, where, and whether the norms and the parts' gains do too."""

    kind: str
    rank: int
    targets: str
    norms: bool
    gains: bool


class Bottleneck(nn.Module):
    """A frozen linear layer followed by ``y + up(gelu(down(y)))``.

    Source: Houlsby et al. 2019, section 2.1, https://arxiv.org/abs/1902.00751. ``up`` starts at zero.
    """

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.out_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.frozen(x)
        return y + self.up(nn.functional.gelu(self.down(y)))


def attach_adapter(ranker: Ranker, spec: AdapterSpec, *, seed: int) -> None:
    """Freeze the ranker and give it a fresh adapter; its scores do not change until the adapter learns.

    Args:
        ranker: changed in place; once only.
        seed: of the random half of each adapter (LoRA's A, the bottleneck's down).

    Raises:
        ConfigError: the rank exceeds a target's width, or the decoder has no linear layers to adapt.
    """
    ranker.freeze()
    targets = _linear_targets(ranker, spec)
    extra = [name for name, module in ranker.named_modules() if _is_extra(name, module, spec)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.kind == "bottleneck":
            for name in targets:
                ranker.set_submodule(name, Bottleneck(ranker.get_submodule(name), spec.rank), strict=True)  # type: ignore[arg-type]
            for name in extra:
                ranker.get_submodule(name).requires_grad_(True)
        else:
            _inject_lora(ranker, spec, targets=targets, extra=extra)
    for name, parameter in ranker.named_parameters():
        is_frozen_factor = ".lora_A." in name and spec.kind == "ffa-lora"
        parameter.requires_grad_(parameter.requires_grad and not is_frozen_factor and ".frozen." not in name)
    ranker.train()


def _inject_lora(ranker: Ranker, spec: AdapterSpec, *, targets: list[str], extra: list[str]) -> None:
    """Have PEFT wrap every target in place."""
    from peft import LoraConfig, inject_adapter_in_model  # three seconds, which who reads an agreement need not wait

    settings = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.rank,
        lora_dropout=0.0,
        target_modules=targets,
        modules_to_save=extra or None,
    )
    with warnings.catch_warnings():  # PEFT notes that it turns its switch for GPT-2's Conv1D by itself
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        inject_adapter_in_model(settings, ranker)


def trainable_parameters(ranker: Ranker) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by their wire names, in the one order that everything uses."""
    return {_wire_name(name): p for name, p in ranker.named_parameters() if p.requires_grad}


def schema_of(ranker: Ranker) -> AdapterSchema:
    """Return the names and shapes that cross the wire."""
    return tuple(ArraySpec(name, tuple(p.shape)) for name, p in trainable_parameters(ranker).items())


def adapter_arrays(ranker: Ranker) -> dict[str, np.ndarray]:
    """Copy the adapter out as float32 arrays."""
    return {name: p.detach().cpu().numpy().astype(np.float32) for name, p in trainable_parameters(ranker).items()}


def load_adapter_arrays(ranker: Ranker, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into the adapter in place.

    Raises:
        WireError: a name or shape differs from ``schema_of(ranker)``.
    """
    parameters = trainable_parameters(ranker)
    if set(arrays) != set(parameters):
        differing = sorted(set(arrays) ^ set(parameters))[:3]
        raise WireError(f"adapter arrays {differing}: expected exactly {len(parameters)} known names")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if arrays[name].shape != tuple(parameter.shape):
                raise WireError(f"adapter array {name}: shape {arrays[name].shape}, expected {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name], dtype=np.float32)))


def _linear_targets(ranker: Ranker, spec: AdapterSpec) -> list[str]:
    names = ["head"]
    if spec.targets == "all-linear":
        names += ["item_input"]
        names += [
            f"decoder.{name}" for name, m in ranker.decoder.named_modules() if type(m).__name__ in ("Linear", "Conv1D")
        ]
        if len(names) == 2:
            raise ConfigError("adapter.targets='all-linear': the decoder has no linear layers; use 'head'")
    if spec.rank > ranker.head.in_features:
        raise ConfigError(f"adapter.rank={spec.rank}: expected at most model.width={ranker.head.in_features}")
    if spec.kind == "bottleneck":
        names = [name for name in names if isinstance(ranker.get_submodule(name), nn.Linear)]
    return names


def _is_extra(name: str, module: nn.Module, spec: AdapterSpec) -> bool:
    is_norm = name.startswith("decoder.") and type(module).__name__.endswith("Norm")
    return (spec.norms and is_norm) or (spec.gains and name in ("text_gain", "sequence_gain"))


def _wire_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _PEFT_PARTS)
