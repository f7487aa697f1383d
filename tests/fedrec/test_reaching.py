"""What stands between a client and its server is found, one thing at a time; against real sockets and real TLS."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from clients.node import run_node
from clients.transport import Link
from fedrec.keyfiles import make_authority, make_server
from fedrec.reaching import check_clock, check_reach
from tests.fleet_server import Fleet, StopAfter, served
from tests.tiny_federation import client_app
from tests.tiny_gateway import Authority, running_gateway, running_upstream

NOW = datetime.now(UTC)


def trusting(folder):
    return ssl.create_default_context(cafile=folder / "authority" / "ca.crt")


def certified(folder, *, host="127.0.0.1", days=90, made=NOW):
    """A server's side of TLS, with an authority of its own in ``folder``."""
    make_authority(folder / "authority", days=400, now=made)
    make_server(folder / "keys", folder / "authority", [host], days=days, now=made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "keys" / "tls.crt", folder / "keys" / "tls.key")
    return context


def look(tmp_path, *, status=401, trust=None, now=NOW, name="", **certificate):
    fleet = Fleet()
    fleet.answers["pull-messages"] = lambda body: status
    with served(fleet, tls=certified(tmp_path / "real", **certificate)) as link:
        host, port = link.address.split(":")
        found = check_reach(host, int(port), tls=trusting(trust or tmp_path / "real"), now=now, name=name)
    return [(one.check, one.state.value, one.said, one.mend) for one in found], fleet


def test_server_that_asks_for_a_key_is_reached(tmp_path):
    found, fleet = look(tmp_path)
    assert [(check, state) for check, state, *_ in found] == [("certificate", "ok"), ("server", "ok"), ("clock", "ok")]
    assert fleet.bodies == {"pull-messages": [b""]}, "it says nothing of itself"


def test_slow_checks_before_this_one_are_no_skew_of_the_clock(tmp_path):
    found, _ = look(tmp_path, now=NOW - timedelta(seconds=200))
    assert [one[1] for one in found if one[0] == "clock"] == ["ok"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (502, "the gateway is there, SuperLink behind it is not"),
        (403, "it does not let clients in"),
        (429, "too many requests from this address"),
        (404, "HTTP 404"),
        (200, "HTTP 200"),
    ],
)
def test_any_other_answer_fails_with_what_it_means(tmp_path, status, said):
    found, _ = look(tmp_path, status=status)
    (server,) = [one for one in found if one[0] == "server"]
    assert server[1] == "failed"
    assert server[2].endswith(said)
    assert server[3]


def test_server_that_asks_for_a_client_certificate_is_understood(tmp_path, caplog):
    """It closes the connection after the handshake, and gives no reason."""
    authority = Authority(tmp_path, "authority")
    said = "if it asks for client certificates (mutual_tls), put one by its authority at keys/tls.crt"
    with (
        running_upstream() as behind,
        running_gateway(authority, behind.url, client_ca=authority.certificate) as gateway,
    ):
        for shown, mend in ((None, said), (authority.issue("shop-7"), "is a fedrec server behind this port?")):
            tls = gateway.tls()
            if shown:
                tls.load_cert_chain(*shown)
            found = check_reach("127.0.0.1", gateway.public, tls=tls, now=NOW)
            assert next(one.mend for one in found if one.check == "server").startswith(mend)
        with caplog.at_level("WARNING"):
            link = Link(f"127.0.0.1:{gateway.public}", authority.certificate.read_bytes())
            run_node(client_app(), link, stop=StopAfter(1))
    assert (
        "does the server ask for a certificate, keys/tls.crt?" in caplog.text or "CERTIFICATE_REQUIRED" in caplog.text
    )


def test_another_authoritys_server_is_told_nothing(tmp_path):
    certified(tmp_path / "other")
    found, fleet = look(tmp_path, trust=tmp_path / "other")
    assert [one[:2] for one in found] == [("certificate", "failed")]
    assert found[0][3] == "this is not the server of the authority in ca.crt: compare with the operator"
    assert fleet.asked == []


def test_certificate_for_another_name_fails_unless_that_name_was_meant(tmp_path):
    found, fleet = look(tmp_path, host="fedrec.example.org")
    assert [one[:2] for one in found] == [("certificate", "failed")]
    assert "--host" in found[0][3]
    assert fleet.asked == []
    found, _ = look(tmp_path / "again", host="fedrec.example.org", name="fedrec.example.org")
    assert [one[1] for one in found] == ["ok"] * 3


def test_expired_certificate_fails_and_one_that_soon_will_be_is_a_warning(tmp_path):
    found, _ = look(tmp_path, days=5)
    assert found[0][:2] == ("certificate", "warning")
    assert found[0][3] == "the operator renews it: fedrec keys server --keep"
    found, _ = look(tmp_path / "again", days=5, made=NOW - timedelta(days=10))
    assert [one[:2] for one in found] == [("certificate", "failed")]
    assert "expired" in found[0][2]


def test_nobody_there_and_no_such_name_are_told_apart(tmp_path):
    certified(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (refused,) = check_reach("127.0.0.1", port, tls=trusting(tmp_path), now=NOW)
    assert (refused.check, refused.mend) == ("server", "nobody listens there: is the server started?")
    (unknown,) = check_reach("no-such-host.invalid", port, tls=trusting(tmp_path), now=NOW)
    assert (unknown.check, unknown.mend) == ("server", "is the address right? ask the operator")


def test_plain_http_where_tls_should_be_is_found(tmp_path):
    certified(tmp_path)
    with served(Fleet()) as link:
        (found,) = check_reach("127.0.0.1", int(link.address.split(":")[1]), tls=trusting(tmp_path), now=NOW)
    assert (found.check, found.state.value) == ("certificate", "failed")
    assert "no TLS handshake" in found.said


@pytest.mark.parametrize(
    ("apart_s", "state", "said"),
    [
        (0, "ok", "as the server's"),
        (59, "ok", "59 s ahead of the server's"),
        (-61, "warning", "61 s behind the server's"),
        (300, "warning", "300 s ahead of the server's"),
        (301, "failed", "301 s ahead of the server's: more than 300 s, so every request is refused (401)"),
        (-86_400, "failed", "86400 s behind the server's: more than 300 s, so every request is refused (401)"),
    ],
)
def test_clocks_may_be_five_minutes_apart(apart_s, state, said):
    (found,) = check_clock(
        format_datetime(NOW.replace(microsecond=0), usegmt=True),
        now=NOW.replace(microsecond=0) + timedelta(seconds=apart_s),
    )
    assert (found.state.value, found.said) == (state, said)


def test_date_without_a_zone_is_taken_as_a_date_of_http_is():
    for zone in ("-0000", ""):
        (found,) = check_clock(f"{NOW:%a, %d %b %Y %H:%M:%S} {zone}", now=NOW.replace(microsecond=0))
        assert (found.state.value, found.said) == ("ok", "as the server's")


@pytest.mark.parametrize("shown", [None, "", "yesterday"])
def test_server_without_a_clock_is_a_warning(shown):
    (found,) = check_clock(shown, now=NOW)
    assert (found.state.value, found.check) == ("warning", "clock")
