"""A checkpoint is whole or absent; one that was damaged is never trusted."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedrec.errors import RunError
from fedrec.signing import Purpose, SigningKey
from server.checkpoint import load_latest, save_checkpoint
from server.rounds import Conduct, run_rounds
from server.signer import Signer
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import SCHEMA, SERVER, SIGNER, arrays, client_app, distance, federation

RUN = federation()


def _states(rounds: int) -> list[ServerState]:
    """Real states after rounds 0 to ``rounds``."""
    states = [initial_state(arrays(), SCHEMA, measures=distance(arrays()))]
    run_rounds(
        LocalGrid(client_app(), clients=5),
        federation(rounds=rounds),
        state=states[0],
        conduct=Conduct(SIGNER, judge=distance),
        save=states.append,
    )
    return states


def _save(folder: Path, states: list[ServerState]) -> None:
    for state in states:
        save_checkpoint(folder, state, federation=RUN, signer=SIGNER)


def _load(folder: Path) -> ServerState | None:
    return load_latest(folder, federation=RUN, signer=SIGNER)


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = replace(_states(4)[-1], spent=frozenset({6, 3}))
    _save(tmp_path, [state])
    read = _load(tmp_path)
    assert read is not None
    assert (read.round_index, read.best_round, read.best_loss) == (4, state.best_round, state.best_loss)
    assert read.records == state.records
    assert read.ledger_heads == state.ledger_heads
    assert len(read.ledger_heads) == 5
    assert read.spent == {3, 6}
    assert (read.adam.steps, read.average.count) == (4, 4)
    pairs = [(state.adapter, read.adapter), (state.best, read.best), (state.average.total, read.average.total)]
    for before, after in [*pairs, (state.adam.first, read.adam.first), (state.adam.second, read.adam.second)]:
        np.testing.assert_array_equal(before, after)
        assert after.dtype == np.float64


def test_unjudged_state_keeps_its_infinite_loss(tmp_path: Path) -> None:
    _save(tmp_path, [initial_state(arrays(), SCHEMA, measures={})])
    read = _load(tmp_path)
    assert read is not None
    assert read.best_loss == float("inf")


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    assert _load(tmp_path) is None


def test_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    states = [replace(state, best_round=min(state.round_index, 1)) for state in _states(6)]
    _save(tmp_path, states)
    expected = {f"round-{index:05d}{suffix}" for index in (1, 4, 5, 6) for suffix in (".json", ".safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == expected


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "vectors truncated": lambda folder: (folder / "round-00003.safetensors").write_bytes(b"short"),
    "vectors empty": lambda folder: (folder / "round-00003.safetensors").write_bytes(b""),
    "vectors missing": lambda folder: (folder / "round-00003.safetensors").unlink(),
    "a bit of the vectors": lambda folder: _flip(folder / "round-00003.safetensors", -3),
    "manifest truncated": lambda folder: (folder / "round-00003.json").write_text('{"format": 1,'),
    "manifest empty": lambda folder: (folder / "round-00003.json").write_text(""),
    "manifest a list": lambda folder: (folder / "round-00003.json").write_text("[]"),
    "manifest not text": lambda folder: (folder / "round-00003.json").write_bytes(b"\xff\xfe"),
    "a number of the manifest": lambda folder: (folder / "round-00003.json").write_text(
        (folder / "round-00003.json").read_text().replace('"adam_steps": 3', '"adam_steps": 2')
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_newest_falls_back_to_the_one_before(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, _states(3))
    DAMAGE[damage](tmp_path)
    with caplog.at_level(logging.WARNING):
        read = _load(tmp_path)
    assert read is not None
    assert read.round_index == 2
    assert "round-00003.json damaged=" in caplog.text


def _rewritten(path: Path, *, signer: Signer | None, **changes: object) -> None:
    """The manifest with other content, signed by whoever wrote it, or carrying the old signature."""
    manifest = json.loads(path.read_text())
    kept = manifest.pop("signature")
    manifest |= changes
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps(manifest | {"signature": signer.seal(text) if signer else kept}))


FOREIGN = Signer(SigningKey(Ed25519PrivateKey.generate()))
FORGERIES: dict[str, Callable[[Path], object]] = {
    "without a signature": lambda path: path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "signature"})
    ),
    "an empty signature": lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": ""})),
    "a number as signature": lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": 7})),
    "altered under the old signature": lambda path: _rewritten(path, signer=None, best_round=1),
    "signed by another server": lambda path: _rewritten(path, signer=FOREIGN),
    "another round's": lambda path: _rewritten(path, signer=SIGNER, round=2),
    "nested without end": lambda path: path.write_text("[" * 100_000),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_checkpoint_that_this_server_did_not_sign_is_passed_over(
    forgery: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path, _states(3))
    FORGERIES[forgery](tmp_path / "round-00003.json")
    with caplog.at_level(logging.WARNING):
        read = _load(tmp_path)
    assert read is not None
    assert read.round_index == 2
    assert "round-00003.json damaged=" in caplog.text


def test_own_signature_is_taken_whoever_formats_the_json(tmp_path: Path) -> None:
    """What the forgeries lack is the signature, not the spelling."""
    _save(tmp_path, _states(3))
    _rewritten(tmp_path / "round-00003.json", signer=SIGNER)
    read = _load(tmp_path)
    assert read is not None
    assert read.round_index == 3


def test_server_with_another_key_goes_on_from_nothing_of_the_old_ones(tmp_path: Path) -> None:
    _save(tmp_path, _states(2))
    with pytest.raises(RunError, match="damaged, and so is every older checkpoint"):
        load_latest(tmp_path, federation=RUN, signer=FOREIGN)


def test_signature_over_a_checkpoint_is_for_nothing_else() -> None:
    text = b"{}"
    assert SIGNER.has_sealed(text, SIGNER.seal(text))
    for purpose in Purpose:
        assert SIGNER.has_sealed(text, SERVER.sign(text, purpose=purpose)) == (purpose is Purpose.CHECKPOINT)


def test_when_all_are_damaged_the_newest_is_named(tmp_path: Path) -> None:
    _save(tmp_path, _states(2))
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"round-00002\.json: damaged, and so is every older checkpoint; start again"):
        _load(tmp_path)


def test_another_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("server.checkpoint.FORMAT", 1)
        _save(tmp_path, _states(0))
    with pytest.raises(RunError, match="damaged, and so is every older"):
        _load(tmp_path)


@pytest.mark.parametrize("change", [{"run_id": "run-2"}, {"seed": 9}, {"rounds": 99}, {"base_digest": "c" * 64}])
def test_checkpoint_of_other_settings_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    _save(tmp_path, _states(1))
    with pytest.raises(RunError, match=r"round-00001\.json: belongs to another run or other settings; resume with the"):
        load_latest(tmp_path, federation=federation(**change), signer=SIGNER)


def test_vectors_without_manifest_are_no_checkpoint(tmp_path: Path) -> None:
    """What a crash between the two writes leaves."""
    _save(tmp_path, _states(2))
    (tmp_path / "round-00002.json").unlink()
    read = _load(tmp_path)
    assert read is not None
    assert read.round_index == 1


def test_manifest_is_plain_json_that_names_its_vectors(tmp_path: Path) -> None:
    _save(tmp_path, _states(1))
    manifest = json.loads((tmp_path / "round-00001.json").read_text())
    assert manifest["run_id"] == "run-1"
    assert len(manifest["tensors_sha256"]) == 64
    assert [record["round"] for record in manifest["records"]] == [1]
