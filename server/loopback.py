"""How the parts of one server on one machine find and trust each other: a port, a certificate and a secret.

SuperLink answers anybody who reaches its port: it asks for no password before it starts a run. So it listens on
loopback alone, with a certificate that we make for it, because it authenticates clients only where there is TLS; and
whoever wants to take a run's task must know a secret that lies here, where only the operator may read.
"""

import secrets
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives import serialization
from flwr.supercore.protobuf.client import ProtobufClient, ProtobufClientInterceptor

from fedrec.certificates import Authority, new_key
from fedrec.errors import ConfigError, RunError
from fedrec.keyfiles import certificate_pem, read_certificate
from fedrec.privacy.durable import create_file, replace_file

HOST = "127.0.0.1"
CALL_TIMEOUT_S = 30.0
_LASTS_DAYS = 3650
_RENEWED_BEFORE = timedelta(days=365)

Client = TypeVar("Client", bound=ProtobufClient)


@dataclass(frozen=True)
class Loopback:
    """Where SuperLink listens, and the folder of its state.

    Attributes:
        state: 0700; holds what SuperLink, its supervisor and the registry must not forget.
        port: of SuperLink, on 127.0.0.1.
    """

    state: Path
    port: int

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{HOST}:{self.port}"

    @property
    def authority(self) -> Path:
        """The certificate that SuperLink's own is checked by."""
        return self.state / "loopback" / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.state / "loopback" / "tls.crt"

    @property
    def key(self) -> Path:
        return self.state / "loopback" / "tls.key"

    @property
    def secret(self) -> Path:
        """What a process must know to take a run's task."""
        return self.state / "loopback" / "secret"

    @property
    def database(self) -> Path:
        return self.state / "superlink.db"

    @property
    def log(self) -> Path:
        return self.state / "superlink.log"

    def prepare(self, *, now: datetime) -> None:
        """Make the folder, the secret and the certificate, as far as they are missing; renew the latter in time.

        A certificate that holds is kept, so that a run that is under way survives a restart of the server.

        Raises:
            ConfigError: the folder cannot be written, or is open to others.
        """
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            self.state.chmod(0o700)
            self.secret.parent.mkdir(mode=0o700, exist_ok=True)
            if not self.secret.exists():
                create_file(self.secret, secrets.token_hex(32))
            if not self._holds(now):
                self._certify(now)
        except OSError as error:
            raise ConfigError(f"{self.state}: cannot be used as the state folder: {error.strerror}") from None

    def connect(self, kind: type[Client], interceptors: list[ProtobufClientInterceptor] | None = None) -> Client:
        """A client of one of SuperLink's APIs, past any proxy of the environment. It does not repeat anything.

        Raises:
            RunError: no server was ever started with this state, or by another user.
        """
        roots = self._read(self.authority)
        client = kind.from_server_address(self.address, False, roots, interceptors or [])
        trusting = client._client  # Flower has no option for it
        client._client = httpx.Client(verify=_trust(roots), timeout=CALL_TIMEOUT_S, trust_env=False)
        trusting.close()
        return client

    def read_secret(self) -> bytes:
        """The secret itself.

        Raises:
            RunError: as ``connect``.
        """
        return self._read(self.secret)

    def is_up(self) -> bool:
        """Whether SuperLink, ours and nobody else's, answers."""
        try:
            verify = _trust(self.authority.read_bytes())
            return httpx.get(f"https://{self.address}/health", verify=verify, timeout=2.0, trust_env=False).is_success
        except (httpx.HTTPError, OSError):
            return False

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunError(
                f"{path}: cannot be read: {error.strerror}; start fedrec server first, with the same server.toml, "
                "and run this as the same user"
            ) from None

    def _holds(self, now: datetime) -> bool:
        try:
            return self.key.exists() and read_certificate(self.certificate).not_valid_after_utc > now + _RENEWED_BEFORE
        except ConfigError:
            return False

    def _certify(self, now: datetime) -> None:
        """An authority that signs this one certificate; its key is never written."""
        authority, key = Authority.create(days=_LASTS_DAYS, now=now), new_key()
        certificate = authority.certify_server(key.public_key(), [HOST], days=_LASTS_DAYS - 1, now=now)
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        replace_file(self.key, key.private_bytes(serialization.Encoding.PEM, form, plain).decode("ascii"))
        replace_file(self.authority, certificate_pem(authority.certificate))
        replace_file(self.certificate, certificate_pem(certificate))


def _trust(roots: bytes) -> ssl.SSLContext:
    """TLS that believes one authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=roots.decode("ascii"))
    return context
