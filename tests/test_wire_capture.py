"""Whoever listens on the line between a server and its merchants sees no update, no header and no name."""

import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from fedrec.agreement import read_agreement
from tests.hosts import can_isolate, running_hosts, tcp_streams
from tests.separate_machines import PORT, SHOPS, prepare, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_isolate(), reason="making network namespaces is not permitted here"),
]
PIECE = 16  # bytes: four float32 in a row, which chance does not repeat
LISTENER = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as listening:
    print("ready", flush=True)
    connection, _ = listening.accept()
    while connection.recv(65536):
        pass
"""
TALKER = """
import pathlib, socket, sys
with socket.create_connection((sys.argv[1], 7000)) as one:
    one.sendall(b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[2:]))
"""


def samples(deployment):
    """Bytes that a merchant's update is made of as it was sent, and words of its header; by what they are."""
    found = {}
    for shop in SHOPS:
        for name, values in load_file(deployment.home(shop) / "replies" / "reply.safetensors").items():
            data = values.tobytes()
            pieces = {at: data[at : at + PIECE] for at in range(0, len(data) - PIECE + 1, PIECE)}
            found |= {f"{shop} {name} {at}": piece for at, piece in pieces.items() if any(piece)}
    agreement = read_agreement(deployment.federation)
    words = {"run": agreement.run_id, "base": agreement.base_digest, "plan": agreement.plan.digest()}
    return found, {name: word.encode() for name, word in words.items()} | {
        "array": b"\x93NUMPY",
        "name": b"head.lora_B",
    }


def told(streams, wanted):
    said = b"".join(streams.values())
    return sorted(name for name, data in wanted.items() if data in said)


def test_capture_of_a_run_holds_no_plaintext(tmp_path):
    with running_hosts(1 + len(SHOPS)) as hosts:
        deployment = prepare(tmp_path, hosts)
        with hosts[0].sniffing(tmp_path / "run.pcap"), running(deployment):
            deployment.fedrec("run", deployment.federation, "--config", deployment.config, "--rounds", "1")
        streams = tcp_streams(tmp_path / "run.pcap")
        updates, header = samples(deployment)
        assert len(updates) > 10
        assert told(streams, updates | header) == []
        (record,) = deployment.events()
        to_server = {key: said for key, said in streams.items() if key[2:] == (hosts[0].address, PORT)}
        assert sum(map(len, to_server.values())) > record["bytes_up"] > 0  # the updates did pass here
        assert {key[3] for key in streams if key[2] == hosts[0].address} == {PORT}
        assert all(said.startswith(b"\x16\x03") for said in to_server.values() if said)  # TLS from the first byte

        replies = [deployment.home(shop) / "replies" / "reply.safetensors" for shop in SHOPS]
        plain = tmp_path / "plain.pcap"
        heard = [sys.executable, "-c", LISTENER, hosts[0].address]
        with hosts[0].sniffing(plain), hosts[0].running(heard, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout.readline() == "ready\n"
            hosts[1].run([sys.executable, "-c", TALKER, hosts[0].address, *replies], check=True)
        assert len(told(tcp_streams(plain), updates)) == len(updates), "the search would have found them"
