"""The causal decoder inside the ranker: a small Llama from scratch, or a pretrained one by path."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel

from fedrec.errors import ConfigError

CAUSALITY_TOLERANCE = 1e-4


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

    Raises:
        ConfigError: the model type is unknown or attention is not causal.
    """
    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"decoder model_type={kind!r}: unknown to the installed transformers")
    settings = {name: value for name, value in values.items() if name != "model_type"}
    decoder = AutoModel.from_config(CONFIG_MAPPING[kind](**settings))
    return _without_token_table(decoder)


def load_backbone(folder: Path) -> tuple[dict, nn.Module]:
    """Read a pretrained Hugging Face decoder from ``folder``: its configuration and the module.

    Raises:
        ConfigError: no such folder, not a model, custom code, or not causal.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"model.backbone={folder}: expected a folder with config.json: {error}") from None
    if "auto_map" in values or any(folder.glob("*.py")):
        raise ConfigError(f"model.backbone={folder}: ships its own code, which is never run")
    try:
        decoder = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.backbone={folder}: cannot be loaded: {reason}") from None
    config = json.loads(decoder.config.to_json_string(use_diff=False))
    config |= {"vocab_size": 1, "use_cache": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return config, _without_token_table(decoder)


def _without_token_table(decoder: nn.Module) -> nn.Module:
    """Drop the token table, which inputs_embeds never reads, and check that the past ignores the future."""
    width = decoder.config.hidden_size
    decoder.set_input_embeddings(nn.Embedding(1, width))
    decoder.config.use_cache = False
    decoder.eval()
    probe = torch.linspace(-1, 1, 4 * width).reshape(1, 4, width)
    changed = probe.clone()
    changed[:, -1] += 1
    with torch.no_grad():
        before, after = (decoder(inputs_embeds=x).last_hidden_state[:, :-1] for x in (probe, changed))
    if not torch.allclose(before, after, atol=CAUSALITY_TOLERANCE):
        raise ConfigError(f"decoder {decoder.config.model_type!r}: a later event changes an earlier state; not causal")
    return decoder
