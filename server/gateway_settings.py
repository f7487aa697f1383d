"""What the operator decides about the gateway, and what it publishes whatever the operator decides."""

import ssl
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from fedrec.errors import ConfigError
from fedrec.listening import server_context

PRIVATE_HOST = "127.0.0.1"
# What a SuperNode with a registered key calls. Flower has two more, register-node and unregister-node, by which a node
# without a key enrols itself: enrolment is the operator's, so they are not published.
FLEET_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, what stands behind it, and how much anybody may ask of it.

    ``upstream`` is the SuperLink, ``http://127.0.0.1:PORT`` or ``https://`` with ``upstream_ca``: Flower insists on TLS
    even on loopback as soon as it authenticates nodes. With ``client_ca`` a client must show a certificate which that
    authority issued. Port 0 takes a free one.

    Keep the rate far above what honest nodes need: a SuperNode that is answered 429 stops, while it tries again after
    502, 503 and 504. Merchants behind one address share its limits.
    """

    certificate: Path
    key: Path
    upstream: str
    host: str
    port: int = 8443
    private_port: int = 9464
    upstream_ca: Path | None = None
    client_ca: Path | None = None
    max_body_bytes: int = 8 * 2**20  # Flower sends arrays in objects of 5 MiB
    max_header_bytes: int = 16 * 2**10
    header_timeout_s: float = 10.0  # TLS handshake; then from the first byte of a request to the end of its headers
    idle_timeout_s: float = 30.0  # between requests, and between two pieces of a body
    total_timeout_s: float = 120.0  # 8 MiB at 1 Mbit/s take 67
    upstream_timeout_s: float = 30.0  # what a SuperNode itself waits
    requests_per_s: float = 50.0  # per client address
    burst: int = 200  # per client address
    max_requests: int = 64  # at once
    max_requests_per_address: int = 16
    max_connections: int = 512
    max_connections_per_address: int = 64

    def __post_init__(self) -> None:
        """Refuse an upstream beyond this machine, and numbers that mean nothing.

        Raises:
            ConfigError: as said.
        """
        parts = urlsplit(self.upstream)
        plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
        if parts.scheme not in ("http", "https") or not plain or not _is_loopback(parts.hostname):
            raise ConfigError(
                f"upstream={self.upstream}: expected http(s)://127.0.0.1:PORT, a SuperLink on this machine"
            )
        if parts.scheme == "https" and self.upstream_ca is None:
            raise ConfigError(
                f"upstream={self.upstream}: https needs upstream_ca, the certificate of who signed SuperLink's"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("port", "private_port"):
                if not 0 <= value <= 65535:
                    raise ConfigError(f"{field.name}={value}: expected 0 to 65535")
            elif isinstance(value, int | float) and not 0 < value < float("inf"):
                raise ConfigError(f"{field.name}={value}: expected > 0")


def server_tls(settings: GatewaySettings) -> ssl.SSLContext:
    """TLS 1.2 or newer with the gateway's certificate; with ``client_ca`` the other side must have one too.

    Raises:
        ConfigError: a file is missing or is not what it should be, or others may read the key.
    """
    context = server_context(settings.certificate, settings.key)
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, settings.client_ca)
    return context


def upstream_tls(settings: GatewaySettings) -> ssl.SSLContext:
    """What the gateway checks SuperLink's certificate by: ``upstream_ca`` and no other authority.

    Raises:
        ConfigError: the file is missing or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody yet
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.upstream_ca is not None:
        _trust(context, settings.upstream_ca)
    return context


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        raise ConfigError(f"{authority}: no usable certificate authority: {error.strerror}") from None


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
