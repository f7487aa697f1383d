"""Frozen text encoders behind one small interface: they read catalogue text and queries, no person's history."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError

from fedrec.errors import ConfigError

Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""


class TextEncoder(Protocol):
    """Turns texts into vectors; the same text always gives the same vector."""

    name: str
    digest: str
    dimension: int

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Encode N texts to (N, dimension) float32, rows of length 1 (zeros for a text without a word)."""
        ...


def resolve_encoder(spec: str, *, local_files_only: bool) -> TextEncoder:
    """The encoder that a setting names.

    Args:
        spec: ``hashing`` (or ``auto``, the same away from the bundled set), a folder, or a Hugging Face name.
        local_files_only: never download.

    Raises:
        ConfigError: no usable model there.
    """
    if spec in ("hashing", "auto"):
        return HashingEncoder()
    return HuggingFaceEncoder(spec, local_files_only=local_files_only)


class HashingEncoder:
    """Words and their letter groups, hashed into a fixed number of signed buckets. Needs no weights and no fitting.

    Source: Weinberger et al. 2009, Feature hashing for large scale multitask learning, equation 1,
    https://arxiv.org/abs/0902.2206; subword groups as in Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606
    """

    name = "hashing"
    dimension = 384
    digest = hashlib.sha256(b"fedrec hashing encoder 1: words, 3-5 letters, 384 buckets").hexdigest()

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """See ``TextEncoder``."""
        known: dict[str, tuple[int, float]] = {}
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float64)
        for row, text in enumerate(texts):
            for feature, count in Counter(_features(text)).items():
                if feature not in known:
                    known[feature] = _bucket(feature, self.dimension)
                bucket, sign = known[feature]
                vectors[row, bucket] += sign * (1.0 + np.log(count)) * _weight(feature)
            if progress is not None and (row % 1024 == 1023 or row == len(texts) - 1):
                progress(row + 1, len(texts))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


_WORD = re.compile(r"\w+")
_WORD_MARK = " "
_LETTER_GROUP_WEIGHT = 0.3


def _features(text: str) -> list[str]:
    """A text's words, each behind a space, and their groups of 3 to 5 letters, the word's ends marked."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    features = [_WORD_MARK + word for word in words]
    for word in words:
        marked = f"<{word}>"
        features += [marked[at : at + size] for size in (3, 4, 5) for at in range(len(marked) - size + 1)]
    return features


def _weight(feature: str) -> float:
    return 1.0 if feature.startswith(_WORD_MARK) else _LETTER_GROUP_WEIGHT


def _bucket(feature: str, dimension: int) -> tuple[int, float]:
    """Bucket and sign of a feature, the same on every machine (``hash`` is salted per process)."""
    number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
    return (number >> 1) % dimension, 1.0 if number & 1 else -1.0


_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
_HUB_NAME = r"[\w.-]*\w(/[\w.-]+)?"  # anything else can only be a folder
_MOST_TOKENS = 256
_TEXTS_AT_A_TIME = 64


class HuggingFaceEncoder:
    """A pretrained Transformer, mean over its tokens' last states, length 1. Frozen, safetensors only, no remote code.

    Source: Reimers and Gurevych 2019, Sentence-BERT, section 3 (mean pooling), https://arxiv.org/abs/1908.10084
    """

    def __init__(self, path_or_name: str | Path, *, local_files_only: bool) -> None:
        """Load a model.

        Args:
            path_or_name: a folder with ``config.json``, tokenizer files and ``*.safetensors``, or a name on the hub.
            local_files_only: a name must be in the local cache already.

        Raises:
            ConfigError: missing, not a model with safetensors, or one that brings its own code.
        """
        folder = _model_folder(str(path_or_name), local_files_only=local_files_only)
        _refuse_code(folder)
        self.name = folder.name if Path(path_or_name).is_dir() else str(path_or_name)
        self.digest = _folder_digest(folder)
        self._tokenizer, self._model = _load(folder)
        config = self._model.config
        if config.is_encoder_decoder or self._tokenizer.pad_token is None or not hasattr(config, "hidden_size"):
            raise ConfigError(f"encoder {folder}: a {config.model_type} is no text encoder; use one such as MiniLM")
        self.dimension = int(config.hidden_size)
        positions = getattr(config, "max_position_embeddings", _MOST_TOKENS)
        self._longest = min(_MOST_TOKENS, self._tokenizer.model_max_length, positions)

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """See ``TextEncoder``. Texts beyond 256 tokens (or what the model can read) are cut."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        # Texts of like length share a batch, so little is spent on padding.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), _TEXTS_AT_A_TIME):
            rows = order[start : start + _TEXTS_AT_A_TIME]
            vectors[rows] = self._encode_batch([texts[row] for row in rows])
            if progress is not None:
                progress(start + len(rows), len(texts))
        return vectors

    def _encode_batch(self, texts: list[str]) -> np.ndarray:
        import torch

        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state  # (B, L, E)
            is_token = tokens["attention_mask"][..., None].to(states.dtype)  # (B, L, 1)
            mean = (states * is_token).sum(1) / is_token.sum(1).clamp(min=1)  # (B, E)
            return torch.nn.functional.normalize(mean, dim=-1).float().numpy()


def _model_folder(path_or_name: str, *, local_files_only: bool) -> Path:
    """The folder of a model; a name is looked up in (or fetched into) the hub's cache, without any code file."""
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    if not re.fullmatch(_HUB_NAME, path_or_name):
        raise ConfigError(f"encoder {path_or_name!r}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(path_or_name, allow_patterns=list(_MODEL_FILES), local_files_only=local_files_only)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        how = "set items.local_files_only = false to allow a download" if local_files_only else "check the name"
        raise ConfigError(f"encoder {path_or_name!r}: no such folder, and no such model at hand; {how}") from None
    return Path(found)


def _refuse_code(folder: Path) -> None:
    """Raise ``ConfigError`` unless the folder is a plain model: configuration, tokenizer and safetensors."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = folder / "tokenizer_config.json"
        settings = [config, json.loads(tokenizer.read_text(encoding="utf-8")) if tokenizer.exists() else {}]
    except (OSError, ValueError):
        raise ConfigError(f"encoder {folder}: no readable config.json; expected a Hugging Face model folder") from None
    if any(not isinstance(setting, dict) or "auto_map" in setting for setting in settings) or any(folder.rglob("*.py")):
        raise ConfigError(f"encoder {folder}: brings its own code (auto_map or .py files); that is never run")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"encoder {folder}: no *.safetensors; other weight formats can run code and are not read")


def _folder_digest(folder: Path) -> str:
    """SHA-256 over weights, configuration and tokenizer, by name and content; the folder's own place does not count."""
    digest = hashlib.sha256(b"fedrec mean pooling 1")
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and frozen model of a checked folder; nothing is fetched."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # reading 90 MB takes no time worth a bar
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype="float32", **safe)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"encoder {folder}: cannot be loaded: {reason}") from None
    finally:
        if had_bar:
            transformers_logging.enable_progress_bar()
    return tokenizer, model.eval().requires_grad_(False)
