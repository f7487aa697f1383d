"""One server and three merchants on hosts of their own, by the commands that people type."""

import json
import signal
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.agreement import read_agreement
from tests.hosts import running_hosts, tcp_streams
from tests.separate_machines import PORT, SHOPS, final_vectors, prepare, running, shop_rows
from tests.tiny_run import fedrec, write_csv

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


@pytest.fixture(scope="module")
def hosts():
    with running_hosts(1 + len(SHOPS)) as made:
        yield made


@pytest.fixture(scope="module")
def trained(hosts, tmp_path_factory):
    """A federation without noise after its five rounds, what was said, and every frame of its server's card."""
    folder = tmp_path_factory.mktemp("without-noise")
    deployment = prepare(folder, hosts)
    sniffing = hosts[0].sniffing(folder / "wire.pcap") if hosts.isolated else nullcontext()
    with sniffing, running(deployment):
        said = deployment.fedrec("run", deployment.federation, "--config", deployment.config)
        status = deployment.status()
    return deployment, said, status


def test_the_adapter_equals_the_simulations_on_the_same_partition(trained):
    deployment, _, _ = trained
    folder, rows = deployment.folder, shop_rows()
    everyone = write_csv(folder / "everyone.csv", [row for shop in SHOPS for row in rows[shop]])
    inputs = ["--data", everyone, "--catalogue", folder / "items.csv", "--config", folder / "settings.toml"]
    same = ["--base", folder / "base", "--partition", "by-column:shop", "--clients", 3, "--panel-fraction", 0]
    out = folder / "simulation"
    simulated = fedrec("simulate", "--out", out, *inputs, *same, "--people-per-client", 20, "--no-dp", home=folder)
    assert simulated.exit_code == 0, simulated.stderr
    theirs, ours = final_vectors(out), final_vectors(deployment.federation)
    assert np.abs(ours["adapter"]).max() > 1e-3  # it did learn
    np.testing.assert_allclose(ours["adapter"], theirs["adapter"], rtol=0, atol=1e-6)  # what is published a panel says


def test_the_operator_is_told_what_happened(trained):
    deployment, said, status = trained
    assert "rounds    5 of 5, 0 void" in said
    assert "replies   15 counted; set aside: none" in said
    assert "NOT PRIVATE" in said
    assert [line["admitted"] for line in deployment.events()] == [3] * 5
    assert (status["gateway"], status["superlink"]) == ("up", "up")
    assert {one["name"]: (one["state"], one["online"]) for one in status["clients"]} == dict.fromkeys(
        SHOPS, ("active", True)
    )
    assert status["traffic"]["bytes_in"] > status["federation"]["bytes_up"] > 0
    assert status["federation"]["quarantined"] == {}


def test_capture_of_a_run_holds_no_plaintext(trained, hosts, tmp_path):
    if not hosts.isolated:
        pytest.skip("listening on a line needs network namespaces, which are not permitted here")
    deployment, _, _ = trained
    streams, wanted = tcp_streams(deployment.folder / "wire.pcap"), updates_sent(deployment)
    assert len(wanted) > 10
    assert told(streams, wanted | header_words(deployment)) == []
    to_server = {key: said for key, said in streams.items() if key[3] == PORT}
    sent = sum(line["bytes_up"] for line in deployment.events())
    assert sum(map(len, to_server.values())) > sent > 0  # the updates did pass here
    assert all(said.startswith(b"\x16\x03") for said in to_server.values() if said)  # TLS from the first byte
    replies = [reply_of(deployment, shop) for shop in SHOPS]
    plain, heard = tmp_path / "plain.pcap", [sys.executable, "-c", LISTENER, hosts[0].address]
    with hosts[0].sniffing(plain), hosts[0].running(heard, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout.readline() == "ready\n"
        hosts[1].run([sys.executable, "-c", TALKER, hosts[0].address, *replies], check=True)
    assert len(told(tcp_streams(plain), wanted)) == len(wanted), "the search would have found them"


def reply_of(deployment, shop):
    """What a merchant keeps of its last update."""
    (kept,) = (deployment.home(shop) / "ledger.replies").glob("*.safetensors")
    return kept


def updates_sent(deployment):
    """Bytes that each merchant's last update is made of as it was sent, by what they are."""
    found = {}
    for shop in SHOPS:
        for name, values in load_file(reply_of(deployment, shop)).items():
            data = values.tobytes()
            pieces = {at: data[at : at + PIECE] for at in range(0, len(data) - PIECE + 1, PIECE)}
            found |= {f"{shop} {name} {at}": piece for at, piece in pieces.items() if any(piece)}
    return found


def header_words(deployment):
    """Words that a message in plain text would hold, by what they are."""
    agreed = read_agreement(deployment.federation)
    words = {"run": agreed.run_id, "base": agreed.base_digest, "agreement": agreed.digest(), "path": "pull-messages"}
    return {name: word.encode() for name, word in words.items()} | {"array": b"\x93NUMPY", "name": b"head.lora_B"}


def told(streams, wanted):
    said = b"".join(streams.values())
    return sorted(name for name, data in wanted.items() if data in said)


def test_no_round_is_lost_or_applied_twice_when_the_server_and_its_run_are_killed(hosts, tmp_path):
    # A message that was on its way when the server died is never handed out again: its round is asked once more.
    changes = {"federation.min_replies": 1.0, "federation.deadline_s": 45.0}
    deployment = prepare(tmp_path, hosts, flags=("--epsilon", 8), changes=changes)
    run = ["run", deployment.federation, "--config", deployment.config]
    with running(deployment) as processes:
        first = deployment.start(*run, log="run.log")
        deployment.wait(lambda: len(deployment.events()) >= 1, "a round", first, *processes.values())
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        assert "rounds were run; go on with --resume" in deployment.fedrec(*run, code=2)
        second = deployment.start(*run, "--resume", log="run.log")
        done = len(deployment.events())
        deployment.wait(lambda: len(deployment.events()) > done, "another round", second, *processes.values())
        processes["server"].send_signal(signal.SIGKILL)
        processes["server"].wait(10)
        processes["server"] = deployment.start_server()
        deployment.wait(lambda: second.poll() is not None, "the run's end", within_s=200)
        assert second.returncode == 0, deployment.logs()
    lines = deployment.events()
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert all((line["admitted"], line["void"]) == (3, False) for line in lines), lines
    for shop in SHOPS:  # every round was charged once, however often it was asked
        shown = fedrec("privacy", "ledger", "show", deployment.home(shop) / "ledger.sqlite", "--json", home=tmp_path)
        (ledger,) = json.loads(shown.stdout)["ledgers"]
        assert (ledger["charged"], ledger["released"]) == (5, 5)
        assert 7.9 < ledger["epsilon"] <= 8
