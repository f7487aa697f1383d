"""``fedrec server`` and ``fedrec enrol`` as an operator meets them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fedrec.keyfiles import make_client
from server.deployment import enrolled
from server.flower_run import open_grid
from server.registry import change_registry
from tests.tiny_gateway import ROOT, eventually
from tests.tiny_server import PROGRAM, Operator
from tests.tiny_superlink import message_of, resident

slow = pytest.mark.slow


@pytest.fixture
def operator(tmp_path):
    return Operator.at(tmp_path)


def rows(result) -> dict[str, dict]:
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return {row["name"]: row for row in json.loads(result.stdout)["clients"]}


def log_of(operator: Operator) -> str:
    return (operator.folder / "server.log").read_text()


def test_check_reads_everything_and_starts_nothing(operator):
    result = operator.fedrec("server", "--check", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["in_order"] == "yes"
    assert told["server_key"] == (operator.folder / "keys" / "server.pub").read_text().strip()
    assert not (operator.folder / "state").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "keys" / "tls.key").unlink(), "no tls.key there; make it with fedrec keys server"),
        (lambda folder: (folder / "keys" / "tls.crt").write_text("x"), "tls.crt: expected a certificate (PEM)"),
        (lambda folder: (folder / "server.toml").write_text("keys = 3"), "server.toml: keys: "),
    ],
)
def test_what_is_not_in_order_is_one_line_and_exit_2(operator, spoil, words):
    spoil(operator.folder)
    result = operator.fedrec("server", "--check")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_enrolling_needs_no_running_server_and_shows_no_key_of_ours(operator):
    operator.client("shop-7")
    added = rows(operator.enrol("shop-7", "--weight", "2", "--json"))["shop-7"]
    assert (added["state"], added["weight"], added["online"], added["node_id"]) == ("active", 2.0, None, None)
    assert added["days_left"] == 398
    refused = operator.enrol("shop-7")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: shop-7: enrolled already; revoke it first to enrol it with other keys\n",
    )
    shown = operator.fedrec("enrol", "list")
    assert shown.stdout.splitlines()[0].split() == ["name", "state", "online", "expires", "weight", "node", "key"]
    assert shown.stdout.splitlines()[1].split()[:3] == ["shop-7", "active", "no"]
    assert rows(operator.fedrec("enrol", "revoke", "shop-7", "--json"))["shop-7"]["state"] == "revoked"
    again = operator.fedrec("enrol", "revoke", "shop-7")
    assert (again.exit_code, again.stderr) == (2, "error: shop-7: no such client is enrolled; see fedrec enrol list\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--days", "0"), "days=0: expected 1 to 3650"),
        (("--weight", "-1"), "weight=-1.0: expected a number > 0"),
        (("--node-key", "/nowhere"), "/nowhere: cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_number_or_file_is_one_line(operator, words, said):
    operator.client("shop-7")
    result = operator.enrol("shop-7", *words)
    assert (result.exit_code, result.stderr) == (2, f"error: {said}\n")


def test_a_private_key_in_place_of_a_public_one_is_refused_and_not_shown(operator):
    keys = operator.client("shop-7")
    result = operator.enrol("shop-7", "--node-key", keys / "node.key")
    assert result.exit_code == 2
    assert "expected an ECDSA public key on NIST P-384 in OpenSSH form" in result.stderr
    secret = (keys / "node.key").read_text().splitlines()[3]
    assert secret not in result.output


def test_expiry_is_warned_about_a_month_before(operator):
    operator.client("shop-7")
    assert "warning: shop-7: expires in 29 days" in operator.enrol("shop-7", "--days", "29").stderr
    operator.client("shop-8")
    assert operator.enrol("shop-8", "--days", "31").stderr == ""


def test_two_operators_at_once_lose_nothing(operator):
    for number in range(4):
        make_client(operator.folder / f"c{number}", f"c{number}", with_request=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    called = [sys.executable, "-c", PROGRAM, "enrol", "add", "--config", str(operator.config)]
    started = [
        subprocess.Popen(
            [
                *called,
                name,
                "--node-key",
                operator.folder / name / "node.pub",
                "--reply-key",
                operator.folder / name / "reply.pub",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for name in ("c0", "c1", "c2", "c3")
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    assert set(rows(operator.fedrec("enrol", "list", "--json"))) == {"c0", "c1", "c2", "c3"}


@slow
def test_an_enrolled_client_takes_part_until_it_is_revoked(operator, caplog):
    for name in ("shop-7", "shop-8", "stranger"):
        operator.client(name)
    operator.enrol("shop-7")

    def online() -> set[str]:
        return {name for name, row in rows(operator.fedrec("enrol", "list", "--json")).items() if row["online"]}

    with operator.running() as process, ExitStack() as nodes:
        assert rows(operator.enrol("shop-8", "--json"))["shop-8"]["online"] is False
        for name in ("shop-7", "shop-8", "stranger"):
            nodes.enter_context(resident(operator.link(name)))
        assert eventually(lambda: online() == {"shop-7", "shop-8"})
        numbers = {name: int(row["node_id"]) for name, row in rows(operator.fedrec("enrol", "list", "--json")).items()}
        with open_grid(operator.settings) as grid:
            assert set(grid.get_node_ids()) == set(numbers.values())
            (reply,) = grid.send_and_receive([message_of(numbers["shop-7"])], timeout=20)
            assert reply.metadata.src_node_id == numbers["shop-7"]
            operator.fedrec("enrol", "revoke", "shop-7")
            assert list(grid.get_node_ids()) == [numbers["shop-8"]]
            assert list(grid.send_and_receive([message_of(numbers["shop-7"])], timeout=20)) == []
            (reply,) = grid.send_and_receive([message_of(numbers["shop-8"])], timeout=20)
            assert reply.metadata.src_node_id == numbers["shop-8"]
        assert eventually(lambda: "disconnected reason=HTTP 401" in caplog.text)  # of who was revoked
        assert "disconnected reason=HTTP 412" in caplog.text  # of the stranger
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)  # while both nodes go on asking
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_who_has_expired_or_is_revoked_is_asked_nothing(operator):
    for number, name in enumerate(("stays", "expires", "leaves"), start=1):
        operator.client(name)
        operator.enrol(name)

        def number_it(registry, number=number):
            *others, last = registry.members
            return replace(registry, members=(*others, replace(last, node_id=number)))

        change_registry(operator.settings.state, number_it)
    assert set(enrolled(operator.settings)) == {1, 2, 3}

    def expire(registry):
        first, second, third = registry.members
        return replace(registry, members=(first, replace(second, expires_on=second.enrolled_at.date()), third))

    change_registry(operator.settings.state, expire)
    operator.fedrec("enrol", "revoke", "leaves")
    assert set(enrolled(operator.settings)) == {1}


@slow
def test_health_fails_while_superlink_is_dead_and_a_second_server_is_refused(operator):
    with operator.running():
        health = f"http://127.0.0.1:{operator.settings.private_port}/health"
        assert httpx.get(health).json() == {"gateway": "ok", "upstream": "ok"}
        second = subprocess.run(
            [sys.executable, "-c", PROGRAM, "server", "--config", str(operator.config)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        state = operator.folder / "state"
        assert second.returncode == 2
        assert second.stderr.endswith(f"error: {state}: another fedrec server uses this state folder; stop it first\n")
        pid = int(log_of(operator).partition("superlink=up pid=")[2].split()[0])
        os.kill(pid, signal.SIGSTOP)
        status = operator.fedrec("status")
        assert status.exit_code == 2
        assert "SuperLink down; the server starts it again within two minutes" in status.stderr
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: httpx.get(health).status_code == 503)
        assert eventually(lambda: httpx.get(health).status_code == 200, within_s=60)
        assert "superlink=dead status=-9 restart_in_s=1" in log_of(operator)


@slow
def test_a_run_goes_on_after_its_server_was_killed_and_started_again(operator):
    operator.client("shop-7")
    with operator.running() as first:
        node_id = int(rows(operator.enrol("shop-7", "--json"))["shop-7"]["node_id"])
        with resident(operator.link("shop-7")), open_grid(operator.settings) as grid:
            assert eventually(lambda: grid.get_node_ids() == [node_id])
            first.kill()
            with operator.running():
                (reply,) = grid.send_and_receive([message_of(node_id)], timeout=60)
                assert reply.metadata.src_node_id == node_id
                assert reply.has_content()


@slow
def test_a_sigterm_while_the_server_starts_ends_it_and_what_it_started(operator):
    called = [sys.executable, "-c", PROGRAM, "server", "--config", str(operator.config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(called, env=environment, stderr=subprocess.DEVNULL) as process:
        assert eventually(lambda: children(process.pid), within_s=30)
        (child,) = children(process.pid)
        process.terminate()
        assert process.wait(5) == 0
    assert eventually(lambda: not Path(f"/proc/{child}").exists())


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@slow
def test_a_client_that_an_older_list_forgot_is_not_enrolled_again_as_if_it_could_join(operator):
    for name in ("first", "second"):
        operator.client(name)
    clients = operator.folder / "state" / "clients.json"
    with operator.running():
        operator.enrol("first")
        older = clients.read_bytes()
        operator.enrol("second")
        clients.write_bytes(older)
        operator.fedrec("enrol", "revoke", "first")  # tells SuperLink, which gives up the second's key for ever
        result = operator.enrol("second")
    assert result.exit_code == 2
    assert "error: second: SuperLink takes no key again that it once gave up; fedrec enrol revoke" in result.stderr
