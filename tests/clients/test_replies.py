import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from clients.replies import ReplyCache
from tests.tiny_federation import arrays, instruction

REPLY = arrays(1.6)


@pytest.fixture(params=[True, False], ids=["durable", "simulated"])
def cache(request, tmp_path):
    return ReplyCache(tmp_path / "client.safetensors", durable=request.param)


def test_same_instruction_gets_the_same_bytes_in_the_same_order(cache, tmp_path):
    cache.keep(instruction(), REPLY)
    for reader in (cache, ReplyCache(tmp_path / "client.safetensors")):
        found = reader.find(instruction())
        assert list(found) == list(REPLY)
        assert all(found[name].tobytes() == values.tobytes() for name, values in REPLY.items())
        assert all(found[name].shape == values.shape for name, values in REPLY.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "run-2"},
        {"round_index": 4},
        {"base_digest": "c" * 64},
        {"agreement_digest": "c" * 64},
        {"adapter": arrays(0.6)},
        {"adapter": arrays(0.5) | {"scale": np.float32(np.nextafter(np.float32(0.5), np.float32(1)))}},
    ],
    ids=["run", "round", "base", "plan", "adapter", "one bit"],
)
def test_any_other_instruction_gets_nothing(cache, changes):
    cache.keep(instruction(), REPLY)
    assert cache.find(replace(instruction(), **changes)) is None
    assert cache.find(instruction()) is not None


def test_only_the_latest_reply_is_kept_and_no_leftover_stays(cache, tmp_path):
    cache.keep(instruction(), REPLY)
    cache.keep(instruction(round_index=4), arrays(2.0))
    assert cache.find(instruction()) is None
    assert cache.find(instruction(round_index=4))["scale"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["client.safetensors"]


def test_another_kind_of_reply_lies_beside_and_neither_displaces_the_other(cache):
    """Metrics are answered under the very same instruction as an update."""
    cache.keep(instruction(), REPLY)
    cache.beside("metrics").keep(instruction(), {"hr@10": np.array(0.5, np.float32)})
    assert list(cache.find(instruction())) == list(REPLY)
    assert cache.beside("metrics").find(instruction()) == {"hr@10": 0.5}


@pytest.mark.parametrize("names", [["b", "a"], ["a", "b"]])
def test_reply_of_other_names_than_the_instructions_keeps_its_order(cache, names):
    cache.keep(instruction(), {name: np.zeros((), np.float32) for name in names})
    assert list(cache.find(instruction())) == names


def test_nothing_kept_or_a_damaged_file_gives_nothing(cache, tmp_path):
    path = tmp_path / "client.safetensors"
    assert cache.find(instruction()) is None
    cache.keep(instruction(), REPLY)
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-3], save(REPLY)):
        path.write_bytes(damaged)
        assert cache.find(instruction()) is None


@pytest.mark.parametrize("before", [arrays(2.0), {"longer": np.zeros(500, np.float32)}], ids=["same", "longer"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_simulated_reply_that_is_cut_short_is_none_at_all(tmp_path, monkeypatch, before, limit):
    """It is stopped in each call of the operating system in turn, a write of the arrays half way."""
    cache, calls = ReplyCache(tmp_path / "client.safetensors", durable=False), []
    cache.keep(instruction(), before)

    def mortal(name):
        real = getattr(os, name)

        def call(descriptor, *rest):
            calls.append(name)
            if len(calls) == limit:
                if name == "pwrite" and len(rest[0]) > 8:
                    real(descriptor, rest[0][: len(rest[0]) // 2], rest[1])
                raise KeyboardInterrupt
            return real(descriptor, *rest)

        return call

    with monkeypatch.context() as patch:
        for name in ("pwrite", "ftruncate"):
            patch.setattr(os, name, mortal(name))
        with suppress(KeyboardInterrupt):
            cache.keep(instruction(round_index=4), REPLY)
    assert calls == ["pwrite", "ftruncate", "pwrite", "pwrite"][:limit]
    assert (cache.find(instruction()) is None) == (limit > 1)
    assert (cache.find(instruction(round_index=4)) is None) == (limit < 5)


def test_simulated_reply_on_a_full_disk_is_an_error_and_nothing_is_kept(tmp_path, monkeypatch):
    cache, real = ReplyCache(tmp_path / "client.safetensors", durable=False), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[:100], at))
    with pytest.raises(OSError, match="No space left on device"):
        cache.keep(instruction(), REPLY)
    assert cache.find(instruction()) is None
