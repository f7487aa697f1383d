"""Kill -9 in the middle, resume: the same rounds, each once, and the adapter of an unbroken run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedrec.runfolder import RunFolder

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys
from pathlib import Path
from fedrec.runfolder import RunFolder
from server.app import build_app
from simulations.engines import run_local
from tests.tiny_federation import TinyMerchant, client_app, job

path, kill_at = Path(sys.argv[1]), sys.argv[2]

class Mortal(TinyMerchant):
    def train_round(self, instruction):
        if kill_at == f"{instruction.round_index}/{self.partition}":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_round(instruction)

folder = RunFolder.open_for_resume(path) if path.exists() else RunFolder.create(path)
run_local(build_app(lambda context: job(folder)), client_app(Mortal), clients=5)
"""


def _run(path: Path, kill_at: str = "never") -> int:
    """Run the tiny federation in a process of its own; a client kills it when its round comes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(path), kill_at]
    return subprocess.run(command, check=False, env=environment, cwd=ROOT).returncode


def _facts(path: Path) -> list[dict[str, object]]:
    """All lines of a run, less the one field that a clock writes."""
    with RunFolder.open_for_resume(path) as folder:
        return [{name: value for name, value in line.items() if name != "seconds"} for line in folder.read_events()]


@pytest.mark.parametrize("kills", [["4/2"], ["1/0", "2/4", "8/4"]])
def test_killed_run_resumes_to_the_same_rounds_and_adapter(kills: list[str], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert _run(whole) == 0
    for kill_at in kills:
        assert _run(broken, kill_at) == -9
    assert _run(broken) == 0
    assert _facts(broken) == _facts(whole)
    assert [line["round"] for line in _facts(broken)] == list(range(1, 9))
    assert (broken / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()
