"""A real gateway in a process of its own, certificates made on the spot, and a small real server to stand behind it."""

import datetime
import hashlib
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[1]
PULL = "/v1/fleet/pull-messages"
PUSH = "/v1/fleet/push-object"
_PROGRAM = """
import json, pathlib, sys
from server.gateway import serve_gateway
from server.gateway_settings import GatewaySettings
paths = ("certificate", "key", "upstream_ca", "client_ca")
settings = {name: pathlib.Path(v) if name in paths else v for name, v in json.loads(sys.argv[1]).items()}
serve_gateway(GatewaySettings(**settings), ready=lambda ports: print(ports.public, ports.private, flush=True))
"""


class Authority:
    """A certificate authority that lives in one folder; ``issue`` gives a certificate and a key for loopback."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.crt"
        self._write(self.certificate, self._sign(self._name, self._key, authority=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_path, key_path = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        self._write(certificate_path, self._sign(subject, key, authority=False))
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        key_path.touch(0o600)
        key_path.write_bytes(pem)
        return certificate_path, key_path

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*unused, "crl_sign", "encipher_only", "decipher_only"), False)
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **usage), critical=True
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(own, critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


class Upstream(ThreadingHTTPServer):
    """Answers with what it got; the header ``x-do`` makes it misbehave. ``seen`` holds (path, headers) of all calls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A gateway that hangs up is what half of the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        self._reply(200, b"{}")

    def do_POST(self) -> None:
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        verb, _, value = self.headers.get("x-do", "").partition(":")
        if verb == "status":
            self._reply(int(value), b"secret of the upstream")
        elif verb == "wait":
            self.server.released.wait(20)
            self._reply(200, b"{}")
        elif verb == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        elif verb == "large":
            self._reply(200, bytes(int(value)))
        else:
            self._reply(200, json.dumps({"sha256": digest.hexdigest()}).encode())

    def _pieces(self) -> Iterator[bytes]:
        if "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left and (piece := self.rfile.read1(min(left, 65536))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline().strip() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Kept": "yes", "X-Hop": "no", "Keep-Alive": "no"}.items():
            self.send_header(name, str(value))
        self.send_header("Connection", "X-Hop")
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@dataclass
class Gateway:
    """A running gateway, and clients that trust its authority."""

    process: subprocess.Popen[str]
    public: int
    private: int
    authority: Path

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)

    def client(self, address: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> httpx.Client:
        """An HTTP client whose own address is ``address``."""
        transport = httpx.HTTPTransport(verify=tls or self.tls(), local_address=address)
        return httpx.Client(base_url=f"https://127.0.0.1:{self.public}", transport=transport, timeout=30)

    @contextmanager
    def socket(self, *, tls: bool = True) -> Iterator[socket.socket]:
        """A bare connection, for what no HTTP client would say."""
        with closing(socket.create_connection(("127.0.0.1", self.public), timeout=20)) as plain:
            if not tls:
                yield plain
                return
            with self.tls().wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                yield wrapped

    def metrics(self) -> dict[str, float]:
        page = httpx.get(f"http://127.0.0.1:{self.private}/metrics", trust_env=False).text
        lines = [line for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_gateway(authority: Authority, upstream: str, **changes: object) -> Iterator[Gateway]:
    """A gateway in a process of its own, ended by SIGTERM, which must end well and have said nothing."""
    certificate, key = authority.issue(f"gateway-{time.monotonic_ns()}")
    settings = {"certificate": certificate, "key": key, "upstream": upstream, "host": "127.0.0.1"}
    settings |= {"port": 0, "private_port": 0, **changes}
    called = [sys.executable, "-c", _PROGRAM, json.dumps(settings, default=str)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            ports = process.stdout.readline().split()
            assert len(ports) == 2, process.stderr.read()
            yield Gateway(process, int(ports[0]), int(ports[1]), authority.certificate)
        finally:
            process.terminate()
            said = process.communicate(timeout=20)
        assert (said, process.returncode) == (("", ""), 0)


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    """A server behind the gateway."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def eventually(holds, *, within_s: float = 10.0) -> bool:
    """Whether ``holds()`` becomes true in time: for what another process does a moment later."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False
