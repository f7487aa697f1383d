"""A lock keeps every other process and thread out, and goes with whoever holds it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedrec.locks import alone, take
from tests.test_docs import ROOT

HOLDER = """
import sys
from pathlib import Path
from fedrec.locks import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_another_process_is_kept_out_until_it_ends_however_that_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], text=True, cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            take(path, waits=False)
        waiting = threading.Thread(target=lambda: alone(path).__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        holder.send_signal(signal.SIGKILL)
        waiting.join(30)
        assert not waiting.is_alive()


def test_two_of_one_process_are_kept_apart_too_and_the_file_is_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with alone(path):
        with pytest.raises(BlockingIOError), alone(path, waits=False):
            pass
        assert path.stat().st_mode & 0o777 == 0o600
    with alone(path, waits=False):
        pass
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "none" / "lock", waits=False)
