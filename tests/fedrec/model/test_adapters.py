import numpy as np
import pytest
import torch
from torch import nn

from fedrec.errors import ConfigError, WireError
from fedrec.model.adapters import (
    adapter_arrays,
    attach_adapter,
    load_adapter_arrays,
    schema_of,
    trainable_parameters,
)
from fedrec.model.base import new_ranker
from fedrec.model.decoder import load_backbone
from tests.tiny_backbones import save_backbone
from tests.tiny_ranker import (
    DIMENSIONS,
    HISTORY,
    ITEMS,
    KINDS,
    TARGETS,
    WIDTH,
    adapted,
    adapter_spec,
    learned,
    nudge,
    ranker_spec,
    scores,
    vectors,
)

EVERY = pytest.mark.parametrize(("kind", "targets"), [(kind, targets) for kind in KINDS for targets in TARGETS])
HISTORIES = torch.randint(0, ITEMS, (3, HISTORY), generator=torch.Generator().manual_seed(0))


@EVERY
def test_fresh_adapter_changes_no_score_and_a_moved_one_does(kind, targets):
    ranker = learned()
    before = scores(ranker, HISTORIES)
    attach_adapter(ranker, adapter_spec(kind=kind, targets=targets), seed=0)
    for mode in (True, False):
        assert (scores(ranker.train(mode), HISTORIES) - before).abs().max() <= 1e-6
    for name, parameter in trainable_parameters(nudge(ranker)).items():
        moved = scores(ranker, HISTORIES)
        with torch.no_grad():
            parameter.add_(1.0)
        assert not torch.equal(moved, scores(ranker, HISTORIES)), name


@EVERY
def test_base_is_frozen_and_only_the_adapter_is_trained(kind, targets):
    base = dict(learned().named_parameters())
    ranker = adapted(kind=kind, targets=targets)
    for name, parameter in ranker.named_parameters():
        if not parameter.requires_grad:
            plain = name.replace(".base_layer", "").replace(".original_module", "").replace(".frozen", "")
            assert plain in base or ".lora_A." in name
            assert plain not in base or torch.equal(parameter, base[plain])
    assert not {"bias", "item_input.weight", "head.weight"} & set(trainable_parameters(ranker))


@EVERY
def test_size_of_the_adapter_does_not_depend_on_the_catalogue(kind, targets):
    spec = adapter_spec(kind=kind, targets=targets)
    small, large = (new_ranker(vectors(items), ranker_spec(), seed=0) for items in (40, 70))
    for ranker in (small, large):
        attach_adapter(ranker, spec, seed=0)
    assert schema_of(small) == schema_of(large)


NORMS = [f"decoder.layers.{n}.{name}_layernorm.weight" for n in (0, 1) for name in ("input", "post_attention")]
GAINS = ["sequence_gain.weight", "text_gain.weight"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("lora", ["head.lora_A.weight", "head.lora_B.weight"]),
        ("ffa-lora", ["head.lora_B.weight"]),
        ("bottleneck", ["head.down.weight", "head.up.weight"]),
    ],
)
def test_wire_names_say_what_learns(kind, names):
    def wire_names(**extras):
        return {spec.name for spec in schema_of(adapted(kind=kind, **extras))}

    assert wire_names(norms=False, gains=False) == set(names)
    assert wire_names(norms=False, gains=True) == {*names, *GAINS}
    assert wire_names(norms=True, gains=False) == {*names, *NORMS, "decoder.norm.weight"}


def test_shapes_by_hand():
    lora = {spec.name: spec.shape for spec in schema_of(adapted(rank=3))}
    assert lora["head.lora_A.weight"] == (3, WIDTH)
    assert lora["head.lora_B.weight"] == (DIMENSIONS, 3)
    assert lora["text_gain.weight"] == (DIMENSIONS,)
    bottleneck = {spec.name: spec.shape for spec in schema_of(adapted(kind="bottleneck", rank=3))}
    assert bottleneck["head.down.weight"] == (3, DIMENSIONS)
    assert bottleneck["head.up.weight"] == (DIMENSIONS, 3)


def test_all_linear_reaches_every_linear_layer():
    names = {spec.name for spec in schema_of(adapted(kind="ffa-lora", targets="all-linear", norms=False, gains=False))}
    layers = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    layers += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    expected = {f"decoder.layers.{n}.{layer}" for n in (0, 1) for layer in layers} | {"item_input", "head"}
    assert names == {f"{layer}.lora_B.weight" for layer in expected}


def test_lora_scales_its_product_by_one():
    """Head: W + B·A, with alpha equal to the rank."""
    ranker = adapted(norms=False, gains=False)
    arrays = adapter_arrays(ranker)
    change = torch.from_numpy(arrays["head.lora_B.weight"] @ arrays["head.lora_A.weight"])
    hidden = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ranker.head(hidden), hidden @ (learned().head.weight + change).T, atol=1e-5)


@EVERY
def test_arrays_go_out_and_come_back_bit_for_bit(kind, targets):
    ranker = adapted(kind=kind, targets=targets)
    kept = adapter_arrays(ranker)
    assert list(kept) == [spec.name for spec in schema_of(ranker)]
    assert all(array.dtype == np.float32 and array.shape == dict(schema_of(ranker))[n] for n, array in kept.items())
    moved = scores(ranker, HISTORIES)
    fresh = learned()
    attach_adapter(fresh, adapter_spec(kind=kind, targets=targets), seed=0)
    load_adapter_arrays(fresh, kept)
    assert torch.equal(scores(fresh, HISTORIES), moved)


def test_arrays_are_copies_both_ways():
    ranker = adapted()
    taken = adapter_arrays(ranker)
    name = "text_gain.weight"
    before = taken[name].copy()
    nudge(ranker)
    assert np.array_equal(taken[name], before)
    load_adapter_arrays(ranker, taken)
    taken[name][:] = 9
    assert np.array_equal(adapter_arrays(ranker)[name], before)


def test_arrays_that_do_not_fit_are_refused():
    ranker = adapted()
    arrays = adapter_arrays(ranker)
    with pytest.raises(WireError, match=r"adapter arrays \['extra'\]: expected exactly 9 known names"):
        load_adapter_arrays(ranker, arrays | {"extra": np.zeros(1)})
    with pytest.raises(WireError, match=r"adapter arrays \['text_gain.weight'\]: expected exactly 9 known names"):
        load_adapter_arrays(ranker, {name: array for name, array in arrays.items() if name != "text_gain.weight"})
    with pytest.raises(WireError, match=r"adapter array text_gain.weight: shape \(3,\), expected \(12,\)"):
        load_adapter_arrays(ranker, arrays | {"text_gain.weight": np.zeros(3, np.float32)})


@pytest.mark.parametrize("kind", KINDS)
def test_start_depends_on_the_seed_alone_and_torchs_own_numbers_are_left_alone(kind):
    starts = []
    for seed in (0, 0, 1):
        ranker = learned()
        torch.manual_seed(len(starts))
        before = torch.random.get_rng_state()
        attach_adapter(ranker, adapter_spec(kind=kind, targets="all-linear"), seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())
        starts.append({name: p for name, p in ranker.named_parameters() if "lora_A" in name or "down.weight" in name})
    assert starts[0]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not any(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


@pytest.mark.parametrize("kind", KINDS)
def test_rank_beyond_the_width_is_refused(kind):
    with pytest.raises(ConfigError, match=r"adapter\.rank=17: expected at most model\.width=16"):
        attach_adapter(learned(), adapter_spec(kind=kind, rank=17), seed=0)


def test_decoder_without_linear_layers_is_refused():
    ranker = learned()
    ranker.decoder = nn.Module()
    with pytest.raises(ConfigError, match=r"adapter\.targets='all-linear': the decoder has no linear layers"):
        attach_adapter(ranker, adapter_spec(targets="all-linear"), seed=0)


@EVERY
@pytest.mark.parametrize("backbone", ["llama", "gpt2"])
def test_fresh_adapter_on_a_pretrained_backbone_changes_no_score(tmp_path, backbone, kind, targets):
    config, decoder = load_backbone(save_backbone(backbone, tmp_path))
    ranker = new_ranker(vectors(), ranker_spec(decoder=config, dropout=0.0), seed=0)
    ranker.decoder.load_state_dict(decoder.state_dict())
    nudge(ranker, size=0.1)
    before = scores(ranker, HISTORIES)
    attach_adapter(ranker, adapter_spec(kind=kind, targets=targets), seed=0)
    assert (scores(ranker, HISTORIES) - before).abs().max() <= 1e-6
