"""Certificates hold where they should and nowhere else, as Python's own TLS sees it over a real connection."""

import shutil
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrec.certificates import Authority, check_name, new_key, new_request, requested_name
from fedrec.errors import ConfigError
from fedrec.keyfiles import certificate_pem, make_authority, make_client, make_server, read_key, sign_request
from tests.fedrec.tls import client_context, handshake, server_context

NOW = datetime.now(UTC)
HOSTS = ["fedrec.test", "127.0.0.1", "::1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An authority, a server and a certified client; read only."""
    place = tmp_path_factory.mktemp("keys")
    make_authority(place / "authority", days=1825, now=NOW)
    make_server(place / "server", place / "authority", HOSTS, days=398, now=NOW)
    certified_client(place / "client", place / "authority")
    return place


def certified_client(folder, authority, *, now=NOW):
    make_client(folder, "shop-7", with_request=True)
    sign_request(folder / "tls.csr", authority, days=398, now=now)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", HOSTS)
def test_client_who_trusts_the_authority_reaches_the_server_by_each_of_its_names(made, host, version):
    client = client_context(made / "authority" / "ca.crt")
    client.maximum_version = version
    assert handshake(server_context(made / "server"), client, host) == version.name.replace("_", ".")


def test_client_who_trusts_another_authority_is_not_fooled(made, tmp_path):
    make_authority(tmp_path / "other", days=1825, now=NOW)
    client = client_context(tmp_path / "other" / "ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
        handshake(server_context(made / "server"), client, "fedrec.test")


@pytest.mark.parametrize(
    ("host", "complaint"),
    [("other.test", "Hostname mismatch"), ("x.fedrec.test", "Hostname mismatch"), ("127.0.0.2", "IP address mismatch")],
)
def test_certificate_does_not_hold_for_another_host(made, host, complaint):
    client = client_context(made / "authority" / "ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        handshake(server_context(made / "server"), client, host)


@pytest.mark.parametrize(("made_at", "complaint"), [(-399, "certificate has expired"), (2, "not yet valid")])
def test_certificate_does_not_hold_after_its_end_or_before_its_beginning(tmp_path, made_at, complaint):
    make_authority(tmp_path / "authority", days=1825, now=NOW - timedelta(days=400))
    then = NOW + timedelta(days=made_at)
    make_server(tmp_path / "server", tmp_path / "authority", ["fedrec.test"], days=398, now=then)
    client = client_context(tmp_path / "authority" / "ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        handshake(server_context(tmp_path / "server"), client, "fedrec.test")


def test_server_that_asks_for_certificates_takes_a_certified_client_and_no_other(made, tmp_path):
    trusted = made / "authority" / "ca.crt"
    server = server_context(made / "server", clients_from=trusted)
    assert handshake(server, client_context(trusted, keys=made / "client"), "fedrec.test") == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server, client_context(trusted), "fedrec.test")
    make_authority(tmp_path / "other", days=1825, now=NOW)
    certified_client(tmp_path / "stranger", tmp_path / "other")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server, client_context(trusted, keys=tmp_path / "stranger"), "fedrec.test")


def test_client_cannot_pose_as_the_server_nor_the_server_as_a_client(made):
    trusted = made / "authority" / "ca.crt"
    posing = client_context(trusted)
    posing.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(server_context(made / "client"), posing, "fedrec.test")
    server = server_context(made / "server", clients_from=trusted)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server, client_context(trusted, keys=made / "server"), "fedrec.test")


def test_certificate_signed_with_a_clients_key_is_worth_nothing(made, tmp_path):
    """A client's own certificate is no authority, though its chain ends at one."""
    shutil.copytree(made / "client", tmp_path / "chain")
    key = new_key()
    client_certificate = x509.load_pem_x509_certificate((made / "client" / "tls.crt").read_bytes())
    forged = Authority(read_key(made / "client" / "tls.key"), client_certificate).certify_server(
        key.public_key(), ["fedrec.test"], days=30, now=NOW
    )
    (tmp_path / "chain" / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "chain" / "tls.crt").write_text(certificate_pem(forged) + certificate_pem(client_certificate))
    client = client_context(made / "authority" / "ca.crt")
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA certificate"):
        handshake(server_context(tmp_path / "chain"), client, "fedrec.test")


def test_request_gets_a_clients_certificate_whatever_it_asks_for():
    key = new_key()
    greedy = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop-7")])
    )
    greedy = greedy.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    greedy = greedy.add_extension(x509.SubjectAlternativeName([x509.DNSName("fedrec.test")]), critical=False)
    greedy = greedy.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    authority = Authority.create(days=1825, now=NOW)
    given = authority.certify_client(greedy.sign(key, hashes.SHA384()), days=30, now=NOW)
    extensions = given.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert len(extensions) == 5  # and the two key identifiers: no other name
    assert given.public_key() == key.public_key()
    assert given.subject.rfc4514_string() == "CN=shop-7"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)])
def test_request_with_another_kind_of_key_is_refused(key):
    request = new_request(key, "shop-7")
    with pytest.raises(ConfigError, match="certificate request: expected a key on NIST P-384, as fedrec keys client"):
        Authority.create(days=30, now=NOW).certify_client(request, days=3, now=NOW)


def test_request_that_another_key_signed_is_refused():
    one, two = (new_request(new_key(), "shop-7").public_bytes(Encoding.DER) for _ in range(2))
    key, other = (x509.load_der_x509_csr(der).public_key().public_numbers() for der in (one, two))
    stolen = one.replace(key.x.to_bytes(48, "big"), other.x.to_bytes(48, "big"))
    stolen = stolen.replace(key.y.to_bytes(48, "big"), other.y.to_bytes(48, "big"))
    with pytest.raises(ConfigError, match="certificate request: not signed by its own key; ask for it again"):
        requested_name(x509.load_der_x509_csr(stolen))


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_request_for_no_name_or_two_is_refused(names):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    with pytest.raises(ConfigError, match="certificate request: expected one common name and nothing else"):
        requested_name(request)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "-a", "a\n", "é", "a" * 65, "\x1b[2J"])
def test_name_that_is_unsafe_in_a_log_or_a_command_is_refused(name):
    with pytest.raises(ConfigError, match="expected 1 to 64 letters, digits, dots, hyphens or underscores"):
        check_name(name)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "*.fedrec.test",
        "fedrec.test:443",
        "https://a",
        "256.1.1.1",
        "1.2.3",
        "a..b",
        "-a",
        "é",
        "a." * 127 + "a",
    ],
)
def test_host_that_is_neither_a_name_nor_an_address_is_refused(host):
    with pytest.raises(ConfigError, match="expected a host name or an IP address, without port or wildcard"):
        Authority.create(days=30, now=NOW).certify_server(new_key().public_key(), [host], days=3, now=NOW)


def test_server_without_a_host_is_refused():
    with pytest.raises(ConfigError, match="host: expected at least one name or IP address that clients connect to"):
        Authority.create(days=30, now=NOW).certify_server(new_key().public_key(), [], days=3, now=NOW)


@pytest.mark.parametrize("days", [-1, 0, 3651, 10**12])
def test_days_out_of_range_are_refused(days):
    with pytest.raises(ConfigError, match=f"days={days}: expected 1 to 3650"):
        Authority.create(days=days, now=NOW)


def test_no_certificate_outlives_its_authority():
    authority = Authority.create(days=30, now=NOW)
    key = new_key().public_key()
    assert authority.certify_server(key, ["a"], days=29, now=NOW)
    with pytest.raises(ConfigError, match="days=31: expected <= 29, when the authority itself expires"):
        authority.certify_server(key, ["a"], days=31, now=NOW)
    with pytest.raises(
        ConfigError, match=r"authority: expires on \d{4}-\d\d-\d\d; make a new one with fedrec keys auth"
    ):
        authority.certify_server(key, ["a"], days=1, now=NOW + timedelta(days=31))
