"""The ranker as an ONNX program: what it computes, with no need of the code that made it.

ONNX is protocol buffers: opening a program runs no code of its author's. PyTorch's own ``.pt2`` archives hold pickles.
"""

import copy
import logging
import warnings
from importlib.util import find_spec
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec.errors import ConfigError
from fedrec.model.ranker import Ranker

OPSET = 18  # of ONNX: the version that the exporter writes without converting
_LARGEST = 127  # of a code
_WORTH_ROUNDING = 1024  # weights of a layer; below, scales and the exporter's own folding leave nothing to gain


def int8_codes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round rows to whole numbers, with one scale a row.

    Args:
        vectors: (I, K) float32: item vectors, or the weights of a linear layer.

    Returns:
        Codes (I, K) int8 in [-127, 127], and scales (I,) float32, > 0; ``codes * scales[:, None]`` is within half a
        scale of the vectors.
    """
    scales = np.abs(vectors).max(axis=1) / _LARGEST
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8, with one scale an output; it computes in float32."""

    codes: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        codes, scales = int8_codes(linear.weight.detach().numpy())
        self.register_buffer("codes", torch.from_numpy(codes))
        self.register_buffer("scales", torch.from_numpy(scales))
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """(out, in) float32, within half a scale of what it was."""
        return self.codes.float() * self.scales[:, None]

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return functional.linear(features, self.weight, self.bias)


def with_int8_weights(ranker: Ranker) -> Ranker:
    """A copy whose linear layers are int8, but for those of few numbers."""
    rounded = copy.deepcopy(ranker)
    for module in list(rounded.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear) and layer.weight.numel() >= _WORTH_ROUNDING:
                setattr(module, name, Int8Linear(layer))
    return rounded


class Program(nn.Module):
    """Transformer, text and bias of a ranker, summed, after one event of each history.

    Args:
        ranker: with its adapter, in evaluation mode.
        codes: item vectors, (I, K), float32 or int8.
        scales: by which each row of them is multiplied, (I,) float32.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, ranker: Ranker, codes: np.ndarray, scales: np.ndarray) -> None:
        super().__init__()
        self.ranker = ranker
        self.register_buffer("codes", torch.from_numpy(codes))
        self.register_buffer("scales", torch.from_numpy(scales))

    def forward(self, items: Tensor, positions: Tensor) -> Tensor:
        """Score the catalogue.

        Args:
            items: item indices, oldest first, (B, L) int64, padded at the end with any valid index.
            positions: after which event, (B,) int64, from -1, before the first, to L - 1.

        Returns:
            (B, I) float32 logits.
        """
        ranker = self.ranker
        events = self.codes[items].float() * self.scales[items][..., None]  # (B, L, K)
        hidden = ranker.decoder(inputs_embeds=ranker.item_input(events)).last_hidden_state
        place = positions.clamp(min=0)[:, None, None].expand(-1, 1, hidden.shape[-1])
        sequence = ranker.sequence_gain(ranker.head(torch.gather(hidden, 1, place)[:, 0]))  # (B, K)
        sequence = sequence * (positions >= 0)[:, None]
        wanted = sequence + ranker.text_gain(self._text(events, positions))
        return (wanted @ self.codes.float().T) * self.scales + ranker.bias

    def _text(self, events: Tensor, positions: Tensor) -> Tensor:
        """``TextProfile`` at one position, (B, K), without its loop over ages, which would fix L."""
        age = positions[:, None] - torch.arange(events.shape[1])  # (B, L)
        is_read = (age >= 0) & (age < self.ranker.text.window)
        shares = torch.where(is_read, self.ranker.text.decay ** age.float(), 0.0)
        return functional.normalize((shares[..., None] * events).sum(dim=1), dim=-1)


def onnx_program(ranker: Ranker, codes: np.ndarray, scales: np.ndarray) -> bytes:
    """Translate ``Program`` to ONNX: inputs ``items`` and ``positions``, output ``scores``; any B, L up to the window.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
    """
    if not all(map(find_spec, ("onnx", "onnxscript"))):
        raise ConfigError("export: needs the packages onnx and onnxscript; pip install 'fedrec[onnx]'")
    history = ranker.spec.history
    batch = torch.export.Dim("batch", min=1)
    length = torch.export.Dim("length", min=1, max=history) if history > 1 else torch.export.Dim.STATIC
    example = torch.zeros(2, min(history, 3), dtype=torch.long), torch.zeros(2, dtype=torch.long)
    loggers = logging.getLogger("torch.onnx")
    level = loggers.level
    loggers.setLevel(logging.ERROR)  # it tells which packages are not installed that nobody asked for
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own: about its own deprecations and axis names
            program = torch.onnx.export(
                Program(ranker, codes, scales).eval(),
                example,
                input_names=["items", "positions"],
                output_names=["scores"],
                opset_version=OPSET,
                dynamic_shapes={"items": {0: batch, 1: length}, "positions": {0: batch}},
                dynamo=True,
                verbose=False,
                optimize=False,  # it would unfold int8 weights
            )
    finally:
        loggers.setLevel(level)
    return _without_traces(cast(torch.onnx.ONNXProgram, program))


def _without_traces(program: torch.onnx.ONNXProgram) -> bytes:
    """The program's bytes, less the stack traces that name paths on this machine."""
    proto = program.model_proto
    for part in (
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.initializer,
        *proto.functions,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    return proto.SerializeToString(deterministic=True)
