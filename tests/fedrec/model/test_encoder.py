import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from fedrec.errors import ConfigError
from fedrec.model.encoder import HashingEncoder, HuggingFaceEncoder, resolve_encoder

TEXTS = ["white hanging heart t-light holder", "red hanging heart t-light holder", "jumbo bag pink polkadot", "", "42"]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A BERT of random weights with a real tokenizer: small enough to make, like a downloaded folder in every way."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=24, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def model_copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "copy")


@pytest.fixture(params=["hashing", "tiny-bert"])
def encoder(request):
    if request.param == "hashing":
        return HashingEncoder()
    return HuggingFaceEncoder(request.getfixturevalue("tiny_model"), local_files_only=True)


def test_vectors_are_float32_and_of_length_one(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension)
    assert vectors.dtype == np.float32
    has_words = np.array([bool(text) for text in TEXTS])
    np.testing.assert_allclose(np.linalg.norm(vectors[has_words], axis=1), 1.0, rtol=1e-5)


def test_a_text_has_one_vector_in_any_company_and_order(encoder):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[::-1], encoder.encode(TEXTS[::-1]), atol=1e-6)


def test_no_text_gives_no_vector(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_progress_reaches_the_end(encoder):
    seen = []
    encoder.encode(["a text"] * 150, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (150, 150)


def test_digests_tell_encoders_apart(encoder):
    assert len(encoder.digest) == 64
    assert (encoder.digest == HashingEncoder.digest) == (encoder.name == "hashing")


def test_hashing_places_like_texts_near_each_other():
    vectors = HashingEncoder().encode([*TEXTS[:3], "WHITE Hanging Hearts, T-Light holders"])
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.6 > 0.2 > abs(likeness[0, 2])
    assert likeness[0, 3] > 0.6  # case, punctuation and plurals


def test_hashing_of_a_text_without_a_word_is_zero():
    assert (HashingEncoder().encode(["", " -- !"]) == 0).all()


def test_hashing_spreads_over_the_buckets():
    vectors = HashingEncoder().encode([hashlib.sha256(bytes([number])).hexdigest() for number in range(250)])
    assert (vectors != 0).any(axis=0).all()
    assert abs(float(np.sign(vectors).mean())) < 0.02  # signs are balanced


def test_hashing_is_the_same_in_another_process():
    code = (
        "from fedrec.model.encoder import HashingEncoder;"
        "print(HashingEncoder().encode(['white hanging heart']).tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bytes.fromhex(other.stdout.strip()) == HashingEncoder().encode(["white hanging heart"]).tobytes()


def test_hashing_is_pinned():
    vector = HashingEncoder().encode(["mug"])[0]  # the word and its groups <mu, mug, ug>, <mug, mug>, <mug>
    assert np.count_nonzero(vector) == 7
    assert np.sort(np.abs(vector))[-1] == pytest.approx(1 / np.sqrt(1 + 6 * 0.3**2))


def test_mean_pooling_equals_a_plain_loop(tiny_model):
    import torch

    encoder = HuggingFaceEncoder(tiny_model, local_files_only=True)
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        with torch.no_grad():
            tokens = encoder._tokenizer(text, return_tensors="pt")
            mean = encoder._model(**tokens).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_model_is_frozen_and_without_dropout(tiny_model):
    encoder = HuggingFaceEncoder(tiny_model, local_files_only=True)
    assert not encoder._model.training
    assert not any(parameter.requires_grad for parameter in encoder._model.parameters())


def test_a_text_longer_than_the_model_reads_is_cut(tiny_model):
    assert np.isfinite(HuggingFaceEncoder(tiny_model, local_files_only=True).encode(["heart " * 500])).all()


def test_loading_a_folder_opens_no_connection(tiny_model, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    HuggingFaceEncoder(tiny_model, local_files_only=True).encode(TEXTS)
    HuggingFaceEncoder(tiny_model, local_files_only=False)


def test_the_digest_follows_the_weights_and_not_the_place(tiny_model, model_copy):
    original = HuggingFaceEncoder(tiny_model, local_files_only=True)
    assert HuggingFaceEncoder(model_copy, local_files_only=True).digest == original.digest
    config = json.loads((model_copy / "config.json").read_text())
    (model_copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert HuggingFaceEncoder(model_copy, local_files_only=True).digest != original.digest


def test_a_model_is_named_by_its_folder(tiny_model):
    assert HuggingFaceEncoder(tiny_model, local_files_only=True).name == "tiny-bert"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_maps_to_its_own_code_is_refused(model_copy, name):
    settings = json.loads((model_copy / name).read_text())
    (model_copy / name).write_text(json.dumps(settings | {"auto_map": {"AutoModel": "modeling.Evil"}}))
    with pytest.raises(ConfigError, match=r"brings its own code \(auto_map or \.py files\); that is never run"):
        HuggingFaceEncoder(model_copy, local_files_only=True)


def test_a_folder_with_python_files_is_refused(model_copy):
    (model_copy / "deep").mkdir()
    (model_copy / "deep" / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(ConfigError, match=r"brings its own code \(auto_map or \.py files\); that is never run"):
        HuggingFaceEncoder(model_copy, local_files_only=True)


def test_weights_in_another_format_are_refused(model_copy):
    (model_copy / "model.safetensors").rename(model_copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"no \*\.safetensors; other weight formats can run code and are not read"):
        HuggingFaceEncoder(model_copy, local_files_only=True)


@pytest.mark.parametrize("content", [None, "{not json", b"\xff\xfe"])
def test_a_folder_that_is_no_model_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"no readable config\.json; expected a Hugging Face model folder"):
        HuggingFaceEncoder(tmp_path, local_files_only=True)


def test_truncated_weights_are_refused_in_one_line(model_copy):
    weights = (model_copy / "model.safetensors").read_bytes()
    (model_copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ConfigError, match=r"encoder .*copy: cannot be loaded: ") as caught:
        HuggingFaceEncoder(model_copy, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_pad_is_no_text_encoder(model_copy):
    settings = json.loads((model_copy / "tokenizer_config.json").read_text())
    (model_copy / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    with pytest.raises(ConfigError, match=r"a bert is no text encoder; use one such as MiniLM"):
        HuggingFaceEncoder(model_copy, local_files_only=True)


@pytest.mark.parametrize("spec", ["no/such-model", "no-such-model"])
def test_a_name_that_is_not_at_hand_is_refused_in_one_line(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"no such folder, and no such model at hand; set items\.local_files_only"
    ) as caught:
        resolve_encoder(spec, local_files_only=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["/no/such/folder", "../missing/folder", "./nowhere", "one/two/three", "not a name"])
def test_what_can_only_be_a_folder_is_looked_for_nowhere_else(spec):
    with pytest.raises(ConfigError, match=rf"^encoder '{re.escape(spec)}': no such folder$"):
        resolve_encoder(spec, local_files_only=False)


def test_a_spec_names_its_encoder(tiny_model):
    assert resolve_encoder("hashing", local_files_only=True).name == "hashing"
    assert resolve_encoder("auto", local_files_only=True).name == "hashing"
    assert resolve_encoder(str(tiny_model), local_files_only=True).name == "tiny-bert"
