"""A run of Flower's without its processes: a grid here, a node there, SuperLink and the gateway between them."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient

from fedrec.certificates import new_key
from fedrec.errors import RunError
from server.control import open_control
from server.flower_run import open_grid
from server.settings import ServerSettings
from tests.tiny_gateway import ROOT, eventually
from tests.tiny_superlink import Site, free_port, message_of, running_site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


def is_online(site: Site, *nodes: int) -> bool:
    with open_control(site.settings.loopback) as control:
        online = {node.node_id for node in control.nodes() if node.status == "online"}
    return online >= set(nodes)


def test_a_registered_node_behind_the_gateway_answers_the_grid(site):
    node_id, key = site.enrolled()
    with site.node(key), open_grid(site.settings) as grid:
        assert eventually(lambda: node_id in grid.get_node_ids())
        (reply,) = grid.send_and_receive([message_of(node_id)], timeout=20)
    assert reply.content["asked"]["word"] == "hello"
    assert reply.content["said"]["node"] == str(node_id)
    assert reply.metadata.src_node_id == node_id


def test_two_runs_follow_each_other_over_the_same_node(site):
    node_id, key = site.enrolled()
    runs = set()
    with site.node(key):
        for word in ("first", "second"):
            with open_grid(site.settings) as grid:
                assert eventually(lambda grid=grid: node_id in grid.get_node_ids())
                (reply,) = grid.send_and_receive([message_of(node_id, word)], timeout=20)
                assert reply.content["asked"]["word"] == word
                runs.add(grid.run.run_id)
    assert len(runs) == 2


STARTER = """
import pathlib, sys
from server.flower_run import open_grid
from server.settings import ServerSettings
folder = pathlib.Path(sys.argv[1])
settings = ServerSettings(keys=folder, state=folder, superlink_port=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    with open_grid(settings):
        pass
"""


def test_processes_that_start_runs_at_once_take_no_task_of_each_other(site):
    called = [sys.executable, "-c", STARTER, str(site.settings.state), str(site.settings.superlink_port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    starters = [subprocess.Popen(called, env=environment, **pipes) for _ in range(3)]
    assert [one.stdout.readline() for one in starters] == ["ready\n"] * 3
    for one in starters:
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=60)[1] for one in starters]
    assert [one.returncode for one in starters] == [0, 0, 0], said


def test_a_key_that_is_not_registered_or_no_longer_never_becomes_a_node(site, caplog):
    node_id, revoked = site.enrolled()
    known, key = site.enrolled()
    with open_control(site.settings.loopback) as control:
        control.unregister(node_id)
    with site.node(revoked), site.node(new_key()), site.node(key), open_grid(site.settings) as grid:
        assert eventually(lambda: known in grid.get_node_ids())
        assert eventually(lambda: caplog.text.count("disconnected reason=HTTP 412") >= 2)
        assert list(grid.get_node_ids()) == [known]


def test_the_control_api_is_not_reachable_through_the_gateway(site):
    roots = site.gateway.authority.read_bytes()
    address = f"127.0.0.1:{site.gateway.public}"
    outside = ControlHttpClient.from_server_address(address, False, roots, interceptors=[])
    with outside, pytest.raises(httpx.HTTPStatusError) as refused:
        outside.StartRun(StartRunRequest())
    assert (refused.value.response.status_code, refused.value.response.text) == (403, "not published")


def test_a_proxy_of_the_environment_is_passed_by(site, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with open_grid(site.settings) as grid:
        assert grid.get_node_ids() == []


def test_a_task_whose_process_died_before_it_was_taken_is_passed_over(site):
    with open_control(site.settings.loopback) as control:
        stray = control.start_run()
    with open_grid(site.settings) as grid:
        assert grid.run.run_id != stray
        assert grid.get_node_ids() == []


def test_a_run_needs_a_server(tmp_path):
    words = r"state/loopback/secret: cannot be read: No such file or directory; start fedrec server first"
    settings = ServerSettings(keys=tmp_path, state=tmp_path / "state", superlink_port=free_port())
    with pytest.raises(RunError, match=words), open_grid(settings):
        pass
    settings.loopback.prepare(now=datetime.now(UTC))
    words = (
        rf"127\.0\.0\.1:{settings.superlink_port}: no SuperLink answers \(ConnectError\); is fedrec server running\?"
    )
    with pytest.raises(RunError, match=words), open_grid(settings):
        pass
