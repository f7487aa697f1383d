"""Hosts are real: they reach one another and nobody else, their cables can be pulled, and nothing is left of them."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.hosts import can_isolate, frames, running_hosts, tcp_streams
from tests.tiny_gateway import eventually

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        connection, (address, _) = listening.accept()
        with connection:
            connection.sendall(connection.recv(100) + b" from " + address.encode())
"""
CALLER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]),
                              source_address=(sys.argv[4], 0)) as one:
    one.sendall(b"a secret")
    print(one.recv(100).decode())
"""
isolated = pytest.mark.skipif(not can_isolate(), reason="making network namespaces is not permitted here")


@pytest.fixture(params=[pytest.param(True, marks=isolated), False], ids=["namespaces", "loopback"])
def hosts(request):
    with running_hosts(3, isolate=request.param) as made:
        assert made.isolated is request.param
        yield made


@contextmanager
def serving(host):
    with host.running([sys.executable, "-c", SERVER, host.address], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()


def call(caller, server, port, *, timeout_s=10.0):
    called = [sys.executable, "-c", CALLER, server.address, port, timeout_s, caller.address]
    return caller.run(called, capture_output=True, text=True)


def test_each_host_reaches_the_others_under_its_own_address(hosts):
    with serving(hosts[0]) as port:
        said = [call(hosts[i], hosts[0], port).stdout for i in (1, 2)]
    assert said == [f"a secret from {hosts[i].address}\n" for i in (1, 2)]


def test_capture_holds_what_was_said_between_two_hosts(hosts, tmp_path):
    if not hosts.isolated and os.geteuid() != 0:
        pytest.skip("capturing on loopback needs root")
    with hosts[0].sniffing(tmp_path / "capture.pcap"), serving(hosts[0]) as port:
        assert call(hosts[1], hosts[0], port).returncode == 0
    assert any(b"a secret" in frame for frame in frames(tmp_path / "capture.pcap"))
    streams = tcp_streams(tmp_path / "capture.pcap")
    asked = [said for key, said in streams.items() if key[::2] == (hosts[1].address, hosts[0].address)]
    answered = [said for key, said in streams.items() if key[:3] == (hosts[0].address, int(port), hosts[1].address)]
    assert (len(asked), len(answered)) == (1, 1)
    assert b"a secret" in asked[0]
    assert f"from {hosts[1].address}".encode() in answered[0]


@isolated
def test_host_reaches_nobody_outside():
    with running_hosts(1) as made:
        assert made.isolated
        routes = made[0].run(["ip", "route"], capture_output=True, text=True).stdout.splitlines()
        links = made[0].run(["ip", "-brief", "link"], capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in routes] == ["10.77.0.0/24"]
    assert sorted(line.split("@")[0].split()[0] for line in links) == ["eth0", "lo"]


@isolated
@pytest.mark.parametrize("way", ["cut_off", "link_down"])
def test_host_without_a_cable_is_reached_again_when_it_is_back(way):
    with running_hosts(2) as made, serving(made[0]) as port:
        with getattr(made[1], way)():
            failed = call(made[1], made[0], port, timeout_s=0.5)
            assert failed.returncode == 1
            reason = {"cut_off": "TimeoutError", "link_down": "OSError"}[way]
            assert reason in failed.stderr or "unreachable" in failed.stderr
        assert eventually(lambda: call(made[1], made[0], port, timeout_s=2).returncode == 0)


@isolated
def test_nothing_is_left_after_a_failure_not_even_a_grandchild():
    grandchild = "import subprocess; print(subprocess.Popen(['sleep', '300']).pid, flush=True)"
    numbers, names = [], []

    def fail_with_hosts_running():
        with running_hosts(2) as made:
            names.extend([host.namespace for host in made.each] + [made[0].port_on_switch[0]])
            process = made[1].popen([sys.executable, "-c", grandchild], stdout=subprocess.PIPE, text=True)
            numbers.append(int(process.stdout.readline()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_with_hosts_running()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert len(names) == 3
    assert not [name for name in names if name in listed]
    assert eventually(lambda: not _lives(numbers[0]))


def test_what_was_started_on_a_stand_in_ends_with_it():
    with running_hosts(1, isolate=False) as made:
        process = made[0].popen(["sleep", "300"])
    assert process.returncode == -9


def _lives(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
