"""SuperLink as our child: it is started again when it dies, it never outlives us, and it opens nothing but its port."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedrec.errors import ConfigError, RunError
from fedrec.keyfiles import read_certificate
from server import superlink as module
from server.control import open_control
from server.flower_run import open_grid
from server.loopback import Loopback
from server.superlink import SuperLink
from tests.tiny_gateway import ROOT, eventually
from tests.tiny_superlink import free_port, message_of, running_site

slow = pytest.mark.slow
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PARENT = """
import sys, pathlib
from server.loopback import Loopback
from server.superlink import SuperLink
with SuperLink(Loopback(pathlib.Path(sys.argv[1]), int(sys.argv[2]))) as link:
    print(link.pid, flush=True)
    sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_superlink_is_started_with_lets_nobody_else_in(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")  # opens a second port, on all addresses
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    loopback = Loopback(tmp_path, 9465)
    words, environment = module._command(loopback), module._environment(loopback)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--isolation") + 1] == "process"
    assert {"--enable-supernode-auth", "--superexec-auth-secret-file", "--disable-runtime-dependency-installation"} <= {
        *words
    }
    assert "--insecure" not in words
    assert "FLWR_INTERNAL_GRPC_FLEET_API" not in environment
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")


def test_the_loopback_certificate_is_kept_while_it_holds_and_renewed_before_it_ends(tmp_path):
    loopback = Loopback(tmp_path / "state", 9465)
    loopback.prepare(now=NOW)
    first, secret = loopback.authority.read_bytes(), loopback.secret.read_bytes()
    loopback.prepare(now=NOW + timedelta(days=1000))
    assert loopback.authority.read_bytes() == first
    loopback.prepare(now=NOW + timedelta(days=3649))
    assert loopback.authority.read_bytes() != first
    assert loopback.secret.read_bytes() == secret
    loopback.certificate.write_text("damaged")
    loopback.prepare(now=NOW)
    read_certificate(loopback.certificate)
    modes = {path.stat().st_mode & 0o777 for path in loopback.secret.parent.iterdir()}
    assert modes == {0o600}
    assert loopback.state.stat().st_mode & 0o777 == 0o700


def test_a_taken_port_is_said_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = f"superlink_port={port}: cannot listen there: Address already in use; is another fedrec server running"
        with pytest.raises(ConfigError, match=words), SuperLink(Loopback(tmp_path, port)):
            pass


def test_a_state_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot be used as the state folder: Not a directory"),
        SuperLink(Loopback(tmp_path / "file" / "state", free_port())),
    ):
        pass


def test_a_superlink_that_does_not_start_points_to_its_log(tmp_path):
    loopback = Loopback(tmp_path / "state", free_port())
    (tmp_path / "state" / "superlink.db").mkdir(parents=True)
    words = "superlink.log: SuperLink did not start; its last words are in this file"
    with pytest.raises(RunError, match=words), SuperLink(loopback):
        pass
    assert eventually(lambda: "unable to open database file" in loopback.log.read_text())


@slow
def test_what_it_leaves_on_disk_is_for_its_owner_alone_and_its_log_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 500)
    loopback = Loopback(tmp_path / "state", free_port())
    with SuperLink(loopback), open_control(loopback) as control:
        for _ in range(20):
            control.nodes()
        assert loopback.database.stat().st_mode & 0o777 == 0o600
    assert loopback.log.stat().st_size <= 500
    assert sorted(path.name for path in loopback.state.glob("superlink.log*")) == ["superlink.log", "superlink.log.1"]


@slow
def test_a_killed_superlink_comes_back_and_so_do_its_node_and_the_run(tmp_path):
    with running_site(tmp_path) as site:
        node_id, key = site.enrolled()
        with site.node(key), open_grid(site.settings) as grid:
            assert eventually(lambda: node_id in grid.get_node_ids())
            before = site.superlink.pid
            os.kill(before, signal.SIGKILL)
            began = time.monotonic()
            (reply,) = grid.send_and_receive([message_of(node_id)], timeout=60)
            assert reply.content["asked"]["word"] == "hello"
            assert reply.metadata.src_node_id == node_id
            assert site.superlink.pid != before
            assert time.monotonic() - began < 30


@slow
def test_a_superlink_that_lives_and_says_nothing_is_replaced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "PROBE_S", 0.2)
    monkeypatch.setattr(module, "SILENT_S", 3.0)
    with SuperLink(Loopback(tmp_path / "state", free_port())) as link:
        before = link.pid
        assert not eventually(lambda: link.pid != before, within_s=4)  # one that answers is left alone
        os.kill(before, signal.SIGSTOP)
        assert eventually(lambda: link.pid != before and link._loopback.is_up(), within_s=40)
    assert not is_alive(before)
    assert "superlink=silent" in caplog.text


@slow
def test_a_machine_that_can_start_nothing_for_a_moment_does_not_end_the_watch(tmp_path, monkeypatch):
    real, refusals = subprocess.Popen, []

    def refused(*arguments, **options):
        refusals.append(arguments)
        raise OSError(12, "Cannot allocate memory")

    with SuperLink(Loopback(tmp_path / "state", free_port())) as link:
        before = link.pid
        monkeypatch.setattr(module.subprocess, "Popen", refused)
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: refusals)
        monkeypatch.setattr(module.subprocess, "Popen", real)
        assert eventually(lambda: link.pid != before and link._loopback.is_up(), within_s=30)


@slow
def test_a_killed_parent_takes_superlink_along(tmp_path):
    called = [sys.executable, "-c", PARENT, str(tmp_path / "state"), str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(called, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    assert eventually(lambda: not is_alive(child), within_s=module.STOP_S + 2)


@slow
def test_who_does_not_know_the_secret_gets_no_task(tmp_path):
    import httpx
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.runtime import RuntimeHttpClient

    loopback = Loopback(tmp_path / "state", free_port())
    with SuperLink(loopback):
        with open_control(loopback) as control:
            control.start_run()
        with loopback.connect(RuntimeHttpClient) as client, pytest.raises(httpx.HTTPStatusError) as refused:
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
    assert refused.value.response.status_code == 401


def test_the_wait_before_each_restart_doubles_up_to_a_minute():
    waits = module._delays()
    assert [next(waits) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
