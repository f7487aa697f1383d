"""The thread that keeps SuperLink in step with the list of clients outlives a list that cannot be read."""

import logging

from server.service import _keep_in_step
from server.settings import ServerSettings
from tests.fleet_server import StopAfter


def test_a_damaged_list_is_said_each_time_and_looked_at_again(tmp_path, caplog):
    settings = ServerSettings(keys=tmp_path, state=tmp_path)
    (tmp_path / "clients.json").write_bytes(b"\xff\xfe")
    with caplog.at_level(logging.WARNING):
        _keep_in_step(settings, StopAfter(3))
    said = f"clients=not in step reason={tmp_path}/clients.json: not a list of clients; restore it from a copy"
    assert caplog.messages == [said] * 2
