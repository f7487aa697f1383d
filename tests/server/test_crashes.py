"""Kill -9 at any moment, a full disk, a damaged file: the run goes on, and ends as if nothing had happened.

Everything that a run carries from round to round is compared bit for bit: the adapter, Adam's moments, the average,
the best round, who is asked, the epsilon spent, the ends of ledgers.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from server.checkpoint import load_latest
from server.strategy import ServerState
from tests.tiny_crashes import FULL, KILLS, REFUSED, ROUNDS, SHORT, STEPS
from tests.tiny_federation import SIGNER, federation
from tests.tiny_run import ROOT, without_clock


def _crash(mode: str, folder: Path) -> list[str]:
    """Run ``tests.tiny_crashes``; what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.tiny_crashes", mode, str(folder)]
    done = subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=120, capture_output=True, text=True)
    return done.stdout.split("\n")[:-1]


def _final(run: Path, rounds: int) -> dict[str, Any]:
    """All that a finished run has come to, less what a clock wrote and what was signed over that."""
    stem = run / "checkpoints" / f"round-{rounds:05d}"
    manifest = json.loads(stem.with_suffix(".json").read_text())
    del manifest["signature"]
    for record in manifest["records"]:
        del record["seconds"]
    return {
        "vectors": stem.with_suffix(".safetensors").read_bytes(),
        "manifest": manifest,
        "adapter": (run / "adapter.safetensors").read_bytes(),
        "lines": without_clock(run / "events.jsonl"),
        "heads": (run.parent / "heads.json").read_bytes(),
    }


def _asked(run: Path) -> list[tuple[int, int, str]]:
    """Round, client and adapter of each instruction that a client took up, in order, over all processes."""
    lines = (line.split() for line in (run.parent / "asked").read_text().splitlines())
    return [(int(round_index), int(partition), adapter) for round_index, partition, adapter in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all rounds that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    _crash("whole", run)
    return run


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("short") / "run"
    _crash("short", run)
    return run


def _holds(run: Path, unbroken: Path, rounds: int) -> None:
    assert _final(run, rounds) == _final(unbroken, rounds)
    assert [line["round"] for line in without_clock(run / "events.jsonl")] == list(range(1, rounds + 1))
    assert _final(run, rounds)["manifest"]["adam_steps"] == rounds
    # A round that was run again asked the same clients with the same adapter, so that they may repeat their answer.
    assert set(_asked(run)) == set(_asked(unbroken))


def test_run_killed_25_times_at_random_ends_like_an_unbroken_one(whole: Path, tmp_path: Path) -> None:
    assert _crash("random", tmp_path / "run") == [str(KILLS)]
    assert KILLS >= 20
    _holds(tmp_path / "run", whole, ROUNDS)
    lines = without_clock(tmp_path / "run" / "events.jsonl")
    assert [line["epsilon_spent"] for line in lines] == [done / 10 for done in range(1, ROUNDS + 1)]
    repeated = [times for times in Counter(_asked(tmp_path / "run")).values() if times > 1]
    assert repeated  # some deaths came in the middle of a round


def test_unbroken_run_asks_another_three_of_five_each_time(whole: Path) -> None:
    """Otherwise the comparison would not see a selection that starts anew."""
    asked = _asked(whole)
    assert len(asked) == 3 * ROUNDS
    cohorts = {frozenset(p for r, p, _ in asked if r == round_index) for round_index in range(1, ROUNDS + 1)}
    assert len(cohorts) > 5


def test_run_killed_before_each_wait_for_the_disk_ends_like_an_unbroken_one(short: Path, tmp_path: Path) -> None:
    """Within a checkpoint, between its halves, between ledger ends, checkpoint and line, and while publishing."""
    died = _crash("steps", tmp_path / "runs")
    assert died == ["-9"] * len(died)
    assert len(died) == STEPS
    for step in range(1, STEPS + 1):
        _holds(tmp_path / "runs" / str(step) / "run", short, SHORT)


def test_full_disk_ends_a_run_with_one_line_and_it_goes_on_when_there_is_room(whole: Path, tmp_path: Path) -> None:
    said, status = _crash("disk", tmp_path / "run")
    assert said.endswith(".json: cannot be written: File too large; free space or choose another --out")
    assert int(status) == REFUSED
    _holds(tmp_path / "run", whole, ROUNDS)
    assert (tmp_path / "run" / "checkpoints" / f"round-{ROUNDS:05d}.json").stat().st_size > FULL


def _newest(checkpoints: Path) -> ServerState | None:
    from server.measures import Measuring
    from tests.tiny_federation import TinyMerchant

    measuring = Measuring(TinyMerchant.metrics, every=2, noise_std=0.1)
    settings = federation(clients_per_round=3, rounds=SHORT, measuring=measuring)
    return load_latest(checkpoints, federation=settings, signer=SIGNER)


@pytest.mark.parametrize("half", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_checkpoint_cut_or_flipped_anywhere_never_passes_for_another(
    half: str, damage: str, short: Path, tmp_path: Path
) -> None:
    """Either it reads as it was written, as when only its layout changed, or the round before it is taken."""
    shutil.copytree(short / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / f"round-{SHORT:05d}.{half}"
    whole, intact = path.read_bytes(), _newest(tmp_path / "checkpoints")
    assert intact is not None
    rng, fell_back = random.Random(1), 0  # where to damage is no secret
    for _ in range(100):
        at = rng.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        path.write_bytes(whole[:at] if damage == "truncated" else bytes(flipped))
        read = _newest(tmp_path / "checkpoints")
        assert read is not None
        fell_back += read.round_index == SHORT - 1
        if read.round_index == SHORT:
            assert read.records == intact.records
            assert read.adapter.tobytes() == intact.adapter.tobytes()
    assert fell_back >= 95
