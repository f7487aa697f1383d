"""The service over TLS, as it runs: under certificates that ``fedrec keys`` makes."""

import socket
import ssl
from datetime import UTC, datetime

import httpx
import pytest

from clients.serving.http.tokens import new_token
from fedrec.keyfiles import CA_CRT, TLS_CRT, TLS_KEY, make_authority, make_server
from tests.clients.serving.http.tiny_service import bearer, process
from tests.tiny_run import fedrec


@pytest.fixture
def keys(tmp_path):
    """A server's folder of keys, for 127.0.0.1."""
    make_authority(tmp_path / "authority", days=30, now=datetime.now(UTC))
    make_server(tmp_path / "keys", tmp_path / "authority", ["127.0.0.1"], days=20, now=datetime.now(UTC))
    return tmp_path / "keys"


def flags(keys):
    return "--certificate", keys / TLS_CRT, "--key", keys / TLS_KEY


def test_it_is_asked_over_tls_alone_and_proves_who_it_is(counted_run, keys, store, tmp_path):
    token = new_token(tmp_path / "tokens.txt", "shopfront", ["recommend"])
    trusted = ssl.create_default_context(cafile=keys / CA_CRT)
    with process(counted_run.out, store, "--tokens", tmp_path / "tokens.txt", *flags(keys)) as serving:
        assert serving.address.startswith("https://127.0.0.1:")
        url = f"{serving.address}/v1/recommend"
        with httpx.Client(verify=trusted, trust_env=False, timeout=30) as client:
            assert client.post(url, json={"user": "p007"}, headers=bearer(token)).status_code == 200
            assert client.post(url, json={"user": "p007"}).status_code == 401
            stream = client.get(f"{serving.address}/healthz").extensions["network_stream"]
            assert stream.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(url, json={}, trust_env=False, timeout=30)
        host, port = serving.address.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert b"HTTP" not in plain.recv(1_000)
        assert serving.ask("GET", "/healthz", verify=trusted).status_code == 200
    assert serving.said() == "", "what went wrong in a handshake is no line"


def test_mistakes_with_its_files_are_one_line(counted_run, keys, store, tmp_path):
    def refused(*given):
        said = fedrec("serve", counted_run.out, "--store", store, *given, home=tmp_path)
        assert (said.exit_code, said.stderr.count("\n")) == (2, 1)
        return said.stderr

    assert "--certificate and --key: expected both, or neither" in refused("--certificate", keys / TLS_CRT)
    assert "--certificate and --key: expected both, or neither" in refused("--key", keys / TLS_KEY)
    assert "no usable certificate and key: No such file" in refused(
        "--certificate", tmp_path / "none", *flags(keys)[2:]
    )
    (keys / TLS_KEY).chmod(0o644)
    assert "tls.key: others may read this key (mode 0644); chmod 600 it" in refused(*flags(keys))
    (keys / TLS_KEY).chmod(0o600)
    assert "others can reach it, so give --tokens FILE" in refused("--host", "0.0.0.0", *flags(keys))
