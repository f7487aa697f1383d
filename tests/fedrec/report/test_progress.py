"""Progress is for people on stderr: stdout stays clean, a log gets plain lines, and off means silence."""

import threading
import time

import pytest

from fedrec.report import progress as module
from fedrec.report.progress import Progress


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_a_log_gets_key_value_lines_and_stdout_nothing(capsys):
    with Progress() as progress, progress.stage("rounds", total=2) as stage:
        stage.advance(text="panel 0.13")
        stage.advance(text="panel 0.14")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("stage='rounds' step=1/2 seconds=")
    assert lines[-1].startswith("stage='rounds' step=2/2 seconds=")
    assert lines[-1].endswith("panel 0.14")


def test_a_log_is_not_flooded_but_always_hears_of_the_end(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress() as progress, progress.stage("encoding", total=1000) as stage:
        for _ in range(1000):
            now[0] += 0.02
            stage.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 2 + 20 / module.LINE_EVERY_S
    assert "step=1000/1000" in lines[-1]


def test_disabled_says_nothing(capsys):
    with Progress(enabled=False) as progress, progress.stage("rounds", total=1) as stage:
        stage.advance(text="x")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_bars_on_stderr_with_the_last_text(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with Progress() as progress:
        with progress.stage("pretraining", total=2) as stage:
            stage.advance(text="loss 6.1")
            stage.advance()
        with progress.stage("nothing to do", total=0):
            pass
    out, err = capsys.readouterr()
    assert out == ""
    assert "pretraining" in err
    assert "2/2" in err
    assert "loss 6.1" in err
    assert "nothing to do" in err


def test_an_error_inside_passes_through_and_the_bars_are_put_away(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="boom"), Progress() as progress, progress.stage("rounds", total=3):
        raise ValueError("boom")
    for thread in set(threading.enumerate()) - before:  # the display's own, told to stop
        thread.join(timeout=2)
        assert not thread.is_alive()
