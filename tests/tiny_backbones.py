"""Pretrained models of a few thousand parameters, saved as Hugging Face saves them."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaModel, T5Config, T5Model

SMALL = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}


def _llama() -> LlamaModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaModel(LlamaConfig(**SMALL, **sizes, num_key_value_heads=1, max_position_embeddings=32))


def _gpt2() -> GPT2LMHeadModel:
    """With a language head, in half precision, and with dropout, as the real one comes."""
    return GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=2, n_positions=32)).to(torch.bfloat16)


def _bert() -> BertModel:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertModel(BertConfig(**SMALL, **sizes, max_position_embeddings=32))


def _t5() -> T5Model:
    return T5Model(T5Config(**SMALL, d_model=16, d_ff=24, num_layers=1, num_heads=2, d_kv=8))


BUILD: dict[str, Callable] = {"llama": _llama, "gpt2": _gpt2, "bert": _bert, "t5": _t5}


def save_backbone(kind: str, folder: Path) -> Path:
    """Save a pretrained model of a kind; deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        BUILD[kind]().save_pretrained(folder)
    return folder
