import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedrec.errors import ConfigError
from fedrec.model.decoder import build_decoder, load_backbone, small_llama
from tests.tiny_backbones import save_backbone


@pytest.mark.parametrize(("width", "heads"), [(16, 3), (6, 2), (10, 4)])
def test_width_that_the_heads_cannot_share_is_refused(width, heads):
    message = f"model.width={width}: expected an even multiple of model.heads={heads}"
    with pytest.raises(ConfigError, match=message):
        small_llama(width=width, layers=1, heads=heads, feed_forward=8, history=4)


def test_small_decoder_keeps_no_token_table_and_sees_no_later_event():
    decoder = build_decoder(small_llama(width=16, layers=2, heads=2, feed_forward=24, history=40))
    assert decoder.get_input_embeddings().num_embeddings == 1
    assert not decoder.config.use_cache
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    states = decoder(inputs_embeds=x).last_hidden_state
    (slope,) = torch.autograd.grad(states[:, 2].square().sum() + states[:, 2, 0].sum(), x)
    assert not slope[:, 3:].any()
    assert slope[:, :3].any(dim=2).all()


def test_decoder_is_checked_wherever_it_is_built():
    """As in inference code, where gradients are off."""
    with torch.no_grad():
        build_decoder(small_llama(width=16, layers=1, heads=2, feed_forward=8, history=4))


def test_unknown_model_type_is_refused():
    with pytest.raises(ConfigError, match="decoder model_type='no-such': not a causal model of the installed"):
        build_decoder({"model_type": "no-such"})


CODE = {"AutoModel": "evil/repository--modeling.Evil"}


@pytest.mark.parametrize(
    "named",
    [
        {"auto_map": CODE},
        {"model_type": "align_text_model", "auto_map": CODE},  # transformers has no model of this kind, and would ask
        {"text_config": {"auto_map": CODE}},
        {"layers": [{"auto_map": CODE}]},
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": {"": "evil/kernel"}},
        {"experts_implementation": "evil/kernel"},
    ],
)
def test_configuration_that_names_code_is_refused_and_nobody_is_asked_whether_to_run_it(named, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    monkeypatch.setattr("socket.getaddrinfo", lambda *place, **options: asked.append(place) or [])
    values = small_llama(width=16, layers=1, heads=2, feed_forward=8, history=4)
    with pytest.raises(ConfigError, match=r"names code of its own, which is never run|not a causal model"):
        build_decoder(values | named)
    assert not asked


def test_configuration_that_cannot_run_is_refused_in_one_line():
    values = {"model_type": "codegen", "hidden_size": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 1}
    with pytest.raises(ConfigError, match=r"^decoder 'codegen': cannot be fed by inputs_embeds alone: .+$"):
        build_decoder(values)


@pytest.mark.parametrize("wrong", [{"dtype": "load"}, {"hidden_act": "none"}, {"rope_parameters": 5}])
def test_configuration_that_means_nothing_is_refused_in_one_line(wrong):
    values = small_llama(width=16, layers=1, heads=2, feed_forward=8, history=4)
    with pytest.raises(ConfigError, match=r"^decoder 'llama': cannot be built: .+$"):
        build_decoder(values | wrong)


def test_model_that_looks_ahead_is_refused(tmp_path):
    """Untrained it moves earlier states by 1e-5, which a comparison of states would wave through."""
    folder = save_backbone("bert", tmp_path)
    with pytest.raises(ConfigError, match="decoder 'bert': a later event changes an earlier state; not causal"):
        load_backbone(folder)
    with pytest.raises(ConfigError, match="not causal"):
        build_decoder(json.loads((folder / "config.json").read_text()))


def test_model_that_needs_tokens_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="decoder 't5': cannot be fed by inputs_embeds alone"):
        load_backbone(save_backbone("t5", tmp_path))


def test_custom_code_is_refused_and_never_run(tmp_path):
    folder = save_backbone("llama", tmp_path / "model")
    ran = tmp_path / "ran"
    code = folder / "modeling_own.py"
    code.write_text(f"open({str(ran)!r}, 'w').close()")
    with pytest.raises(ConfigError, match="ships its own code, which is never run"):
        load_backbone(folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModel": "modeling_own.Own"}}))
    with pytest.raises(ConfigError, match="ships its own code"):
        load_backbone(folder)
    code.unlink()
    with pytest.raises(ConfigError, match="ships its own code"):
        load_backbone(folder)
    assert not ran.exists()


@pytest.mark.parametrize("content", [None, "", "{", b"\xff\xfe"])
def test_folder_without_a_readable_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"model.backbone=.*: expected a folder with config.json"):
        load_backbone(tmp_path)


def test_config_that_is_no_model_is_refused(tmp_path):
    for content in ("[]", "{}", '{"model_type": "no-such"}', '"auto_map"'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=r"model\.backbone="):
            load_backbone(tmp_path)


def test_weights_must_be_safetensors_and_whole(tmp_path):
    folder = save_backbone("llama", tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ConfigError, match=r"model.backbone=.*: cannot be loaded: "):
        load_backbone(folder)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle is never opened")
    with pytest.raises(ConfigError, match=r"model.backbone=.*: cannot be loaded: "):
        load_backbone(folder)


def test_backbone_without_all_its_weights_is_refused(tmp_path):
    """They would be drawn at random, and nobody would know."""
    folder = save_backbone("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: values for name, values in weights.items() if name != "layers.1.mlp.up_proj.weight"}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks the weights of layers\.1\.mlp\.up_proj\.weight; save all of it"):
        load_backbone(folder)


def test_backbone_with_weights_of_another_size_is_refused(tmp_path):
    folder = save_backbone("llama", tmp_path)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"intermediate_size": 32}))
    with pytest.raises(ConfigError, match=r"model.backbone=.*: cannot be loaded: "):
        load_backbone(folder)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_configuration_of_a_backbone_builds_the_same_module_elsewhere(tmp_path, kind):
    config, backbone = load_backbone(save_backbone(kind, tmp_path))
    config = json.loads(json.dumps(config))
    rebuilt = build_decoder(config)
    rebuilt.load_state_dict(backbone.state_dict())
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = backbone.eval()(inputs_embeds=x).last_hidden_state
        again = rebuilt.train()(inputs_embeds=x).last_hidden_state  # training mode: its own dropout must be off
    assert states.dtype == torch.float32
    assert torch.equal(states, again)
    assert config["hidden_size"] == 16
    assert str(tmp_path) not in json.dumps(config)
