"""Telemetry is off, even when Flower was imported first."""

import logging
import os
import sys

import flwr.supercore.telemetry as telemetry
import pytest

from fedrec.quiet import SETTINGS, silence


def test_silence_turns_off_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    silence()
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert {logging.getLogger(name).level for name in ("ray", "flwr", "httpx")} == {logging.WARNING}


def test_silence_does_not_need_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "flwr.supercore.telemetry")
    silence()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
