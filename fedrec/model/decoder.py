"""The causal decoder inside the ranker: a small Llama from scratch, or a pretrained one by path."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING, AutoModel

from fedrec.errors import ConfigError

_BUILT_IN = (None, "eager", "sdpa")  # ways to compute attention; any other may name a kernel to fetch and run
CAUSALITY_TOLERANCE = 1e-6  # of the past's own gradient; a causal mask gives exactly zero


def small_llama(*, width: int, layers: int, heads: int, feed_forward: int, history: int) -> dict:
    """Return the configuration of a small Llama-family decoder, as JSON values."""
    if width % heads or (width // heads) % 2:
        raise ConfigError(f"model.width={width}: expected an even multiple of model.heads={heads}")
    return {
        "model_type": "llama",
        "vocab_size": 1,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": max(history, 32),
        "bos_token_id": None,
        "eos_token_id": None,
        "use_cache": False,
    }


def build_decoder(values: dict) -> nn.Module:
    """Build an untrained decoder that is fed by ``inputs_embeds``; no token table is kept.

    The configuration may be a stranger's, as an invitation's is: code that it names is never asked for nor run.

    Raises:
        ConfigError: it names code, cannot be built, is of no kind of causal model known here, or is not causal.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or not is_causal_kind(kind):
        raise ConfigError(f"decoder model_type={kind!r}: not a causal model of the installed transformers")
    if names_code(values):
        raise ConfigError(f"decoder {kind!r}: names code of its own, which is never run")
    settings = {name: value for name, value in values.items() if name != "model_type"}
    try:
        decoder = AutoModel.from_config(CONFIG_MAPPING[kind](**settings), trust_remote_code=False)
    except Exception as error:  # whatever a library makes of a stranger's settings
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"decoder {kind!r}: cannot be built: {reason}") from None
    _remove_token_table(decoder)
    return decoder


def is_causal_kind(kind: str) -> bool:
    """Whether a model type is a language model whose code is part of the installed transformers."""
    if kind not in CONFIG_MAPPING:
        return False
    return CONFIG_MAPPING[kind] in MODEL_MAPPING and CONFIG_MAPPING[kind] in MODEL_FOR_CAUSAL_LM_MAPPING


def names_code(values: Any) -> bool:
    """Whether a configuration, at any depth, names code that transformers would fetch and run."""
    if isinstance(values, list):
        return any(map(names_code, values))
    if not isinstance(values, dict):
        return False
    kernels = [value for name, value in values.items() if str(name).endswith("_implementation")]
    return "auto_map" in values or any(one not in _BUILT_IN for one in kernels) or any(map(names_code, values.values()))


def load_backbone(folder: Path) -> tuple[dict, nn.Module]:
    """Read a pretrained Hugging Face decoder from ``folder``: its configuration and the module.

    The configuration switches the decoder's own dropout off: a loss that changes from look to look has no
    per-person gradient, and pretraining brings the ranker's dropout.

    Raises:
        ConfigError: no such folder, not a model, custom code, or not causal.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"model.backbone={folder}: expected a folder with config.json: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"model.backbone={folder}: config.json is not the configuration of a model")
    if names_code(values) or any(folder.glob("*.py")):
        raise ConfigError(f"model.backbone={folder}: ships its own code, which is never run")
    try:
        decoder, loaded = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.backbone={folder}: cannot be loaded: {reason}") from None
    if loaded["missing_keys"]:  # they would be drawn at random
        raise ConfigError(
            f"model.backbone={folder}: lacks the weights of {min(loaded['missing_keys'])}; save all of it"
        )
    config = json.loads(decoder.config.to_json_string(use_diff=False))
    _remove_token_table(decoder)
    if not is_causal_kind(config["model_type"]):  # build_decoder would refuse it
        raise ConfigError(f"model.backbone={folder}: {config['model_type']} is not a causal model; choose another")
    config |= {"vocab_size": 1, "use_cache": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config |= {name: 0.0 for name, value in config.items() if "drop" in name and isinstance(value, float)}
    config["hidden_size"] = decoder.config.hidden_size  # GPT-2 and others spell it differently
    del config["_name_or_path"]  # a path on this machine is nobody else's business
    return config, decoder


def _remove_token_table(decoder: Any) -> None:
    """Drop the token table, which inputs_embeds never reads, and check that the past ignores the future."""
    kind = decoder.config.model_type
    try:
        width = decoder.config.hidden_size
        decoder.set_input_embeddings(nn.Embedding(1, width, _weight=torch.zeros(1, width)))  # equal bases, equal files
        decoder.config.use_cache = False
        decoder.eval()
        leak, own = _slopes(decoder, torch.sin(torch.arange(4.0 * width)).reshape(1, 4, width))
    except Exception as error:  # as above: forward is the library's, and the settings may be a stranger's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"decoder {kind!r}: cannot be fed by inputs_embeds alone: {reason}") from None
    if not leak <= CAUSALITY_TOLERANCE * own:
        raise ConfigError(f"decoder {kind!r}: a later event changes an earlier state; not causal")


def _slopes(decoder: nn.Module, probe: Tensor) -> tuple[float, float]:
    """Size of the gradient of all states but the last by the last event, and by the events before it.

    A gradient, not a difference: an untrained model that looks ahead moves its earlier states by very little.
    """
    with torch.enable_grad():
        probe.requires_grad_()
        earlier = decoder(inputs_embeds=probe).last_hidden_state[:, :-1]
        weights = torch.cos(torch.arange(float(earlier.numel()))).view_as(earlier)
        (slope,) = torch.autograd.grad((earlier * weights).sum(), probe)
    return float(slope[:, -1].norm()), float(slope[:, :-1].norm())
