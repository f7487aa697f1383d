"""The gateway as a process, with TLS, in front of a real server: what passes, what does not, and what nobody learns."""

import hashlib
import socket
import ssl

import httpx
import pytest

from fedrec.errors import ConfigError
from server.gateway import serve_gateway
from server.gateway_settings import FLEET_PATHS, GatewaySettings
from tests.tiny_gateway import PULL, PUSH, Authority, eventually, running_gateway, running_upstream


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(authority, upstream):
    with running_gateway(authority, upstream.url, burst=100_000) as running:
        yield running


@pytest.fixture
def client(gateway):
    with gateway.client() as one:
        yield one


def test_the_published_paths_are_flowers_own_without_self_enrolment():
    from flwr.superlink.routers.fleet.router import router

    flowers = {route.path for route in router.routes}
    assert flowers - FLEET_PATHS == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert flowers > FLEET_PATHS


@pytest.mark.parametrize("path", sorted(FLEET_PATHS))
def test_a_fleet_call_passes_byte_for_byte(client, upstream, path):
    body = bytes(range(256)) * 1000
    answer = client.post(path, content=body, headers={"flwr-signature": "abc"})
    assert (answer.status_code, answer.json()) == (200, {"sha256": hashlib.sha256(body).hexdigest()})
    seen_path, headers = upstream.seen[-1]
    assert (seen_path, headers["flwr-signature"], headers["content-length"]) == (path, "abc", "256000")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/unregister-node"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleet/anything-new"),
        ("POST", f"{PULL}/"),
        ("POST", f"{PULL}?x=1"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet%2fpull-messages"),
        ("POST", "//v1/fleet/pull-messages"),
        ("POST", "/V1/FLEET/PULL-MESSAGES"),
        ("POST", "http://127.0.0.1/v1/fleet/pull-messages"),
        ("GET", PULL),
        ("PUT", PULL),
        ("OPTIONS", PULL),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/"),
    ],
)
def test_everything_else_is_forbidden_without_a_call_to_the_upstream(gateway, upstream, method, path):
    before = len(upstream.seen)
    with gateway.socket() as one:  # a client library would tidy up the path first
        one.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        answer = one.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"\r\n\r\nnot published")
    assert len(upstream.seen) == before


def test_neither_side_sees_the_others_connection_and_nobody_can_claim_an_address(client, upstream):
    sent = {
        "connection": "keep-alive, x-mine",
        "x-mine": "1",
        "te": "trailers",
        "proxy-authorization": "x",
        "upgrade": "websocket",
        "forwarded": "for=10.0.0.1",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-proto": "http",
        "x-real-ip": "10.0.0.1",
        "x-end-to-end": "1",
    }
    answer = client.post(PULL, content=b"x", headers=sent)
    _, seen = upstream.seen[-1]
    assert set(seen) & set(sent) == {"x-end-to-end"}
    assert seen["host"] == upstream.url.removeprefix("http://")
    assert answer.headers["x-kept"] == "yes"
    assert not {"x-hop", "keep-alive", "connection", "server"} & set(answer.headers)


def test_two_framings_of_one_body_smuggle_nothing(gateway, upstream):
    """Chunks count and the length does not (RFC 9112, 6.3): no second request hides in the first one's body."""
    before = len(upstream.seen)
    hidden = "POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    text = f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: {5 + len(hidden)}\r\n"
    with gateway.socket() as one:
        one.sendall(f"{text}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}".encode())
        answer = one.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 403 " in answer
    assert [path for path, _ in upstream.seen[before:]] == [PULL]
    assert "content-length" not in upstream.seen[-1][1]


@pytest.mark.parametrize("status", [302, 500, 501, 503])
def test_what_goes_wrong_upstream_is_a_502_without_its_text(client, status):
    answer = client.post(PULL, headers={"x-do": f"status:{status}"})
    assert (answer.status_code, answer.text) == (502, "upstream")
    assert "location" not in answer.headers


def test_an_answer_meant_for_the_node_keeps_its_text(client):
    answer = client.post(PULL, headers={"x-do": "status:401"})
    assert (answer.status_code, answer.text) == (401, "secret of the upstream")


def test_half_an_answer_is_never_taken_for_a_whole_one(client):
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        client.post(PULL, headers={"x-do": "cut"})


def test_plain_http_gets_no_answer_from_the_tls_port(gateway, upstream):
    before = len(upstream.seen)
    with pytest.raises(httpx.RemoteProtocolError), httpx.Client(trust_env=False) as plain:
        plain.post(f"http://127.0.0.1:{gateway.public}{PULL}")
    assert len(upstream.seen) == before


def test_a_client_that_trusts_another_authority_sends_nothing(gateway, upstream, tmp_path):
    before = len(upstream.seen)
    stranger = Authority(tmp_path, "stranger").certificate
    refused = pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED")
    with gateway.client(tls=ssl.create_default_context(cafile=stranger)) as client, refused:
        client.post(PULL)
    assert len(upstream.seen) == before


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(gateway):
    old = gateway.tls()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with gateway.client(tls=old) as client, pytest.raises(httpx.ConnectError):
        client.post(PULL)


def test_mutual_tls_lets_in_only_whom_the_authority_knows(authority, upstream, tmp_path):
    members = Authority(tmp_path, "members")
    with running_gateway(authority, upstream.url, client_ca=members.certificate) as gateway:
        known, unknown = gateway.tls(), gateway.tls()
        known.load_cert_chain(*members.issue("merchant"))
        unknown.load_cert_chain(*authority.issue("other"))
        with gateway.client(tls=known) as client:
            assert client.post(PULL).status_code == 200
        before = len(upstream.seen)
        for tls in (unknown, gateway.tls()):
            with gateway.client(tls=tls) as client, pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                client.post(PULL)
        assert len(upstream.seen) == before


def test_the_upstreams_certificate_is_checked_when_it_has_one(authority, tmp_path):
    strangers = Authority(tmp_path, "strangers")
    for issuer, status, health in ((authority, 200, 200), (strangers, 502, 503)):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*issuer.issue("superlink"))
        with running_upstream() as behind:
            behind.socket = tls.wrap_socket(behind.socket, server_side=True)
            url = behind.url.replace("http", "https")
            with running_gateway(authority, url, upstream_ca=authority.certificate) as gateway:
                with gateway.client() as client:
                    assert client.post(PULL).status_code == status
                private = f"http://127.0.0.1:{gateway.private}"
                assert httpx.get(f"{private}/health", trust_env=False).status_code == health


def test_health_and_metrics_are_on_the_private_port_alone(authority, upstream):
    with running_gateway(authority, upstream.url) as gateway, gateway.client() as client:
        answer = httpx.get(f"http://127.0.0.1:{gateway.private}/health", trust_env=False)
        assert (answer.status_code, answer.json()) == (200, {"gateway": "ok", "upstream": "ok"})
        with pytest.raises(ConnectionRefusedError):  # another address of this machine
            socket.create_connection(("127.0.0.2", gateway.private), timeout=5)
        client.post(PUSH, content=bytes(1000), headers={"x-do": "large:5000"})
        assert eventually(lambda: gateway.metrics().get('fedrec_gateway_bytes_total{direction="out"}') == 5000)
        client.get("/a/path/of/the/clients/choice")
        other = 'fedrec_gateway_requests_total{path="other",status="403"}'
        assert eventually(lambda: gateway.metrics().get(other) == 1)
        metrics = gateway.metrics()
    assert metrics[f'fedrec_gateway_requests_total{{path="{PUSH}",status="200"}}'] == 1
    assert metrics['fedrec_gateway_refused_total{reason="not published"}'] == 1
    assert metrics['fedrec_gateway_bytes_total{direction="in"}'] == 1000
    assert metrics["fedrec_gateway_open_connections"] in (0, 1)
    assert metrics["fedrec_gateway_upstream_seconds_count"] == 1
    assert not [name for name in metrics if "choice" in name]


def test_without_an_upstream_calls_are_answered_502_and_health_503(authority):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with running_gateway(authority, nobody) as gateway, gateway.client() as client:
        answer = client.post(PULL)
        assert (answer.status_code, answer.text) == (502, "upstream")
        health = httpx.get(f"http://127.0.0.1:{gateway.private}/health", trust_env=False)
        assert (health.status_code, health.json()) == (503, {"gateway": "ok", "upstream": "unreachable"})


def test_a_taken_port_is_an_error_that_names_it(tmp_path):
    certificate, key = Authority(tmp_path, "one").issue("gateway")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = GatewaySettings(certificate, key, "http://127.0.0.1:1", "127.0.0.1", port=port, private_port=0)
        with pytest.raises(ConfigError, match=f"^127.0.0.1:{port}: cannot listen there: Address already in use"):
            serve_gateway(settings)
