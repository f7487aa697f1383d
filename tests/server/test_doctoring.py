"""An operator's doctor finds what would stop the server, and what is wrong with one that runs."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest

from fedrec.doctor import Finding, examine
from server.doctoring import server_checks
from tests.tiny_server import NOW, Operator


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator.at(tmp_path)
    made.client("shop-1")
    assert made.enrol("shop-1").exit_code == 0
    return made


def found(operator: Operator, *, days: int = 0) -> dict[str, Finding]:
    return {one.check: one for one in examine(server_checks(operator.settings, now=NOW + timedelta(days=days)))}


def states(checks: dict[str, Finding]) -> dict[str, str]:
    return {name: one.state.value for name, one in checks.items()}


def test_server_that_is_ready_to_start_is_fine(operator):
    checks = found(operator)
    assert states(checks) == dict.fromkeys(("keys", "state", "clients", "ports"), "ok")
    assert checks["clients"].said == "1 enrolled"
    assert checks["ports"].said.endswith("are free; no server runs")


def test_port_that_another_program_holds_is_named(operator):
    with socket.create_server(("127.0.0.1", operator.settings.superlink_port)):
        one = found(operator)["ports"]
    assert one.state.value == "failed"
    assert one.said == f"cannot listen: superlink_port={operator.settings.superlink_port} on 127.0.0.1"


def test_state_that_others_can_look_into_fails(operator):
    operator.settings.state.chmod(0o755)
    one = found(operator)["state"]
    assert (one.state.value, one.mend) == ("failed", f"chmod 700 {operator.settings.state}")


def test_clients_that_expire_soon_and_nobody_enrolled_are_warnings(operator, tmp_path):
    one = found(operator, days=380)["clients"]
    assert one.state.value == "warning"
    assert one.said.startswith("1 enrolled; expire soon: shop-1 on ")
    (tmp_path / "other").mkdir()
    empty = found(Operator.at(tmp_path / "other"))
    assert (empty["clients"].state.value, empty["clients"].said) == ("warning", "nobody is enrolled")
    assert empty["state"].said.endswith("made at the first start")


def test_expired_certificate_fails(operator):
    one = found(operator, days=399)["keys"]
    assert one.state.value == "failed"
    assert one.said.startswith("tls.crt: expired on ")


def test_damaged_list_of_clients_fails(operator):
    (operator.settings.state / "clients.json").write_text("{")
    assert found(operator)["clients"].state.value == "failed"


@pytest.mark.slow
def test_server_that_runs_is_asked_as_a_client_would(operator):
    with operator.running():
        checks = found(operator)
        assert states(checks) == dict.fromkeys(
            ("keys", "state", "clients", "ports", "health", "certificate", "server", "clock"), "ok"
        )
        assert checks["ports"].said == "in use by the server that runs"
        assert checks["server"].said == f"127.0.0.1:{operator.settings.port} answers, and asks for a key"
