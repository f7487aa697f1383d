"""The merchant's process: it answers, it is alone on its folder, and it is gone within seconds when told to stop."""

import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from clients.resident import alone, link_of, stay
from clients.settings import load_client_settings
from fedrec.errors import ConfigError, RunError
from fedrec.invitation import read_invitation
from fedrec.keyfiles import make_client
from fedrec.privacy.ledger import Ledger
from fedrec.signed import LIFETIME_S
from fedrec.wire import Address
from tests.fedrec.tls import server_context
from tests.fleet_server import NODE, Fleet, served
from tests.tiny_federation import client_app, message_to, sent, signed
from tests.tiny_invitation import Operator, joined, write_events
from tests.tiny_ranker import instruction, start_arrays
from tests.tiny_run import ROOT, fedrec

DEADLINE_S = 60.0
STOPPED_S = 5.0
FEDREC = [sys.executable, "-c", "from fedrec.cli import main; main()"]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(tmp_path_factory.mktemp("operator"))


@contextmanager
def shop_of(operator: Operator, fleet: Fleet, folder: Path) -> Iterator[Path]:
    """A merchant who joined the federation of a made-up server that has the operator's certificate."""
    tls: ssl.SSLContext = server_context(operator.keys)
    with served(fleet, tls=tls) as link:
        invitation = operator.invite(folder / "invitation", link.address)
        joined(operator, folder / "shop-7", events=write_events(folder / "events.csv"), invitation=invitation)
        yield folder / "shop-7"


@contextmanager
def client(shop: Path) -> Iterator[subprocess.Popen[str]]:
    """``fedrec client``; what it says goes into ``log`` beside the folder."""
    with (
        (shop.parent / "log").open("w") as log,
        subprocess.Popen(
            [*FEDREC, "client", "--config", str(shop / "client.toml")], cwd=ROOT, stderr=log, text=True
        ) as p,
    ):
        try:
            yield p
        finally:
            p.kill()


def log_of(shop: Path) -> str:
    return (shop.parent / "log").read_text()


def until(holds, shop: Path) -> None:
    """Wait for another process, which can be learned of in no other way than by looking."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, log_of(shop)
        time.sleep(0.05)


def ended_in(process: subprocess.Popen[str], *, told: signal.Signals = signal.SIGTERM) -> float:
    """Tell it to stop; the seconds until it had ended well."""
    started = time.monotonic()
    process.send_signal(told)
    assert process.wait(DEADLINE_S) == 0
    return time.monotonic() - started


def asked(operator: Operator, round_index: int) -> Message:
    """What the server asks of the node in a round."""
    wanted = instruction(operator.agreement, start_arrays(operator.agreement), round_index=round_index)
    return sent(signed(wanted, key=operator.key, address=Address("train", NODE, int(time.time()) + LIFETIME_S)))


def charges(shop: Path) -> int:
    ledger = Ledger.open(load_client_settings(shop / "client.toml").ledger_files, dataset=None, policy=None)
    return sum(entry.state == "reserved" for entry in ledger.entries())


def test_a_merchants_process_from_not_enrolled_to_a_polite_end(operator: Operator, tmp_path: Path) -> None:
    fleet = Fleet()
    taken = fleet.answers["activate-node"]
    fleet.answers["activate-node"] = lambda body: 412
    with shop_of(operator, fleet, tmp_path) as shop, client(shop) as process:
        until(lambda: "not enrolled (send node.pub and reply.pub to the operator)" in log_of(shop), shop)
        fleet.answers["activate-node"] = taken
        until(lambda: f"joined node={NODE}" in log_of(shop), shop)
        message = asked(operator, 1)
        fleet.offer(message)
        until(lambda: "push-messages" in fleet.asked, shop)
        with pytest.raises(RunError, match="shop-7: another client is running on it; stop that one first"), alone(shop):
            pass
        assert ended_in(process) < STOPPED_S
        said = log_of(shop)
    (reply,) = PushMessagesRequest.FromString(fleet.bodies["push-messages"][0]).messages_list
    assert not reply.HasField("error")
    assert reply.metadata.reply_to_message_id == get_object_tree(message).object_id
    assert "deactivate-node" in fleet.asked
    assert "Each person at a client has (epsilon = 8, delta = 1e-05)-differential privacy" in said
    assert "epsilon 0 of 8 at delta 1e-05, per person at a client" in said
    lines = [line.split(maxsplit=2)[2] for line in said.splitlines() if " INFO " in line]
    assert lines == [f"INFO joined node={NODE}", "INFO asked=train round=1", "INFO answered", "INFO stopped"]
    assert charges(shop) == 1


@pytest.mark.slow
def test_a_client_that_is_stopped_or_killed_in_a_round_answers_it_the_same_later(
    operator: Operator, tmp_path: Path
) -> None:
    fleet, hold = Fleet(), threading.Event()
    taken = fleet.answers["push-messages"]

    def stuck(body: bytes) -> bytes:
        hold.wait(DEADLINE_S)
        return taken(body)

    fleet.answers["push-messages"] = stuck
    message = asked(operator, 1)
    with shop_of(operator, fleet, tmp_path) as shop:
        fleet.offer(message)
        with client(shop) as process:
            until(lambda: "push-messages" in fleet.asked, shop)
            assert ended_in(process) < STOPPED_S
            assert "stopped in the middle of a round; its charge stays booked" in log_of(shop)
        fleet.offer(message)
        with client(shop) as process:
            until(lambda: fleet.asked.count("push-messages") == 2, shop)
            process.kill()
        hold.set()
        fleet.offer(message)
        with client(shop) as process:
            until(lambda: fleet.asked.count("push-messages") == 3, shop)
            assert ended_in(process, told=signal.SIGINT) < STOPPED_S
    trees = [PushMessagesRequest.FromString(body).message_object_trees for body in fleet.bodies["push-messages"]]
    parts = [{child.object_id for child in tree[0].children} for tree in trees]
    assert parts[0] == parts[1] == parts[2], "the same bytes on one charge, however often it is asked"
    assert charges(shop) == 1


def test_a_second_client_on_the_same_folder_is_one_line(operator: Operator, tmp_path: Path) -> None:
    with shop_of(operator, Fleet(), tmp_path) as shop, alone(shop):
        done = fedrec("client", "--config", shop / "client.toml", home=tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"error: {shop}: another client is running on it; stop that one first\n"


def test_the_link_is_the_invitations_over_tls_with_the_clients_own_keys(operator: Operator, tmp_path: Path) -> None:
    shop = tmp_path / "shop-7"
    joined(operator, shop, events=write_events(tmp_path / "events.csv"))
    settings, invitation = load_client_settings(shop / "client.toml"), read_invitation(shop / "federation")
    link = link_of(settings, invitation)
    assert link.address == invitation.terms.address
    assert link.root_certificates == (operator.authority / "ca.crt").read_bytes(), "never plain HTTP"
    assert link.key is not None
    assert link.certificate is None
    make_client(tmp_path / "other", "other", with_request=True)
    (shop / "keys" / "tls.crt").write_text("made by the operator")
    with pytest.raises(ConfigError, match=r"tls\.key: missing, and tls\.crt is of no use without it"):
        link_of(settings, invitation)
    (shop / "keys" / "tls.key").write_bytes((tmp_path / "other" / "tls.key").read_bytes())
    assert link_of(settings, invitation).certificate == (shop / "keys" / "tls.crt", shop / "keys" / "tls.key")
    (shop / "keys" / "node.key").unlink()
    with pytest.raises(ConfigError, match=r"node\.key: cannot be read: No such file"):
        link_of(settings, invitation)


def test_a_bug_in_the_thread_is_raised_where_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("clients.resident.run_node", broken)
    with served(Fleet()) as link, pytest.raises(ZeroDivisionError):
        stay(client_app(), link, stop=threading.Event())


def test_a_round_that_outlasts_its_grace_is_said_to_be_abandoned() -> None:
    app, begun, go_on = ClientApp(), threading.Event(), threading.Event()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        begun.set()
        go_on.wait(DEADLINE_S)
        raise ValueError

    fleet, stop = Fleet(), threading.Event()
    fleet.offer(message_to(NODE))
    with served(fleet) as link:
        threading.Thread(target=lambda: begun.wait(DEADLINE_S) and stop.set()).start()
        assert not stay(app, link, stop=stop, grace_s=0.05)
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == "fedrec client":
                thread.join()
