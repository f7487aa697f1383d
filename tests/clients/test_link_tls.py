"""A client talks to the server whose certificate its own authority signed, and to nobody else."""

import logging
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.proto.fleet_pb2 import ActivateNodeRequest

from clients.node import run_node
from fedrec.keyfiles import make_authority, make_client, make_server, sign_request
from tests.fedrec.tls import server_context
from tests.fleet_server import Fleet, StopAfter, served
from tests.tiny_federation import client_app


def certified(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    """A server's certificate for 127.0.0.1, its own authority: the server's side, and the PEM for clients."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedrec test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(pem + key.private_bytes(*plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context, pem


def test_node_joins_the_server_of_its_authority_with_its_own_key(tmp_path: Path) -> None:
    tls, pem = certified(tmp_path / "one")
    fleet, key = Fleet(), ec.generate_private_key(ec.SECP384R1())
    with served(fleet, tls=tls) as link:
        run_node(client_app(), replace(link, root_certificates=pem, key=key), stop=StopAfter(1))
    assert {"activate-node", "pull-messages", "deactivate-node"} <= set(fleet.asked)
    assert not {"register-node", "unregister-node"} & set(fleet.asked), "a registered key is not for the node to change"
    shown = ActivateNodeRequest.FromString(fleet.bodies["activate-node"][0]).public_key
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert shown == key.public_key().public_bytes(*public)


def test_node_tells_another_authoritys_server_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tls, _), (_, other) = certified(tmp_path / "one"), certified(tmp_path / "other")
    fleet, key = Fleet(), ec.generate_private_key(ec.SECP384R1())
    with served(fleet, tls=tls) as link, caplog.at_level(logging.WARNING):
        run_node(client_app(), replace(link, root_certificates=other, key=key), stop=StopAfter(2))
    assert fleet.asked == []
    why = "self-signed certificate); expected one for this address by ca.crt's authority"
    assert [line.split(" retry")[0] for line in caplog.messages] == [
        f"unreachable reason=certificate refused ({why}"
    ] * 2


def test_node_says_when_the_certificate_is_for_another_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls, pem = certified(tmp_path / "one")
    fleet = Fleet()
    with served(fleet, tls=tls) as link, caplog.at_level(logging.WARNING):
        elsewhere = replace(link, address=link.address.replace("127.0.0.1", "localhost"), root_certificates=pem)
        run_node(client_app(), elsewhere, stop=StopAfter(1))
    assert fleet.asked == []
    assert "certificate refused (Hostname mismatch, certificate is not valid for 'localhost'.)" in caplog.text


def test_node_lets_no_server_send_it_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls, pem = certified(tmp_path / "one")
    fleet, other = Fleet(), Fleet()
    fleet.answers["activate-node"] = lambda body: 307
    with served(other) as plain, served(fleet, tls=tls) as link, caplog.at_level(logging.WARNING):
        fleet.elsewhere = f"http://{plain.address}/v1/fleet/activate-node"
        run_node(client_app(), replace(link, root_certificates=pem), stop=StopAfter(1))
    assert other.asked == []
    assert "disconnected reason=HTTP 307" in caplog.text


def test_node_shows_its_certificate_to_a_server_that_asks_and_says_when_it_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, fleet = datetime.now(UTC), Fleet()
    authority, server, client = (tmp_path / name for name in ("authority", "server", "client"))
    make_authority(authority, days=2, now=now)
    make_server(server, authority, ["127.0.0.1"], days=1, now=now)
    make_client(client, "shop-7", with_request=True)
    shown = (sign_request(client / "tls.csr", authority, days=1, now=now), client / "tls.key")
    tls = server_context(server, clients_from=authority / "ca.crt")
    with served(fleet, tls=tls) as link, caplog.at_level(logging.WARNING):
        trusting = replace(link, root_certificates=(authority / "ca.crt").read_bytes())
        run_node(client_app(), trusting, stop=StopAfter(1))
        assert fleet.asked == []
        assert "unreachable reason=TLS (TLSV13_ALERT_CERTIFICATE_REQUIRED)" in caplog.text
        run_node(client_app(), replace(trusting, certificate=shown), stop=StopAfter(1))
    assert "activate-node" in fleet.asked
