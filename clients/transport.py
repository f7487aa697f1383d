"""How to reach a server, whom to trust there, and what to say when that fails."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.errors import ConfigError

MAX_ANSWER_BYTES = 16 * 2**20  # Flower cuts what it sends into parts of 5 MiB


@dataclass(frozen=True, eq=False)
class Link:
    """How to reach a server.

    Attributes:
        address: ``HOST:PORT``.
        root_certificates: PEM of the authority that signed the server's certificate; None speaks plain HTTP, for
            tests on the loopback interface.
        key: this client's key, registered with the server; None makes a new one each time, which only a server
            without node authentication takes.
        certificate: files of this client's own certificate and its key (PEM), for a server that asks for one.
    """

    address: str
    root_certificates: bytes | None = None
    key: ec.EllipticCurvePrivateKey | None = None
    certificate: tuple[Path, Path] | None = None


def url_of(link: Link) -> str:
    """Where requests go; a path is still to be added."""
    return f"{'http' if link.root_certificates is None else 'https'}://{link.address}"


def tls_of(link: Link) -> ssl.SSLContext | None:
    """Trust the link's authority and no other; None for plain HTTP.

    Raises:
        ConfigError: one of the certificates is none, or not that of its key.
    """
    if link.root_certificates is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=link.root_certificates.decode("ascii"))
    except (ValueError, ssl.SSLError):
        raise ConfigError("ca.crt: expected a certificate (PEM); ask the operator for a whole invitation") from None
    if link.certificate:
        try:
            context.load_cert_chain(*link.certificate)
        except (ValueError, OSError):  # SSLError is one
            crt, key = link.certificate
            raise ConfigError(f"{crt}: not a certificate for {key.name}; have tls.csr signed again") from None
    return context


def bound(client: httpx.Client) -> None:
    """Let a server send this client nowhere else, and fill its memory with no answer, packed or not.

    What goes beyond is an ``httpx.RequestError`` of the request.
    """
    client.follow_redirects = False  # least of all without TLS
    client.headers["accept-encoding"] = "identity"
    client.event_hooks = {"response": [_bound_answer]}


def _bound_answer(response: httpx.Response) -> None:
    """Called with each answer before its body is read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.DecodingError("packed, and nobody asked for that", request=response.request)
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Counted(response.stream, response.request)


class _Counted(httpx.SyncByteStream):
    """A body that ends in an error when there is too much of it."""

    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request) -> None:
        self._stream, self._request = stream, request

    def __iter__(self) -> Iterator[bytes]:
        left = MAX_ANSWER_BYTES
        for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise httpx.ReadError(f"more than {MAX_ANSWER_BYTES} bytes", request=self._request)
            yield chunk

    def close(self) -> None:
        self._stream.close()


def reason_of(error: Exception) -> str:
    """What is wrong, in words of this machine's TLS library, or by name alone."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate refused ({cause.verify_message}); expected one for this address by ca.crt's authority"
        if isinstance(cause, ssl.SSLError):
            return f"TLS ({cause.reason})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.RemoteProtocolError):  # restarting, or a certificate that is missing: it does not say
        return "closed without an answer (if it stays so: does the server ask for a certificate, keys/tls.crt?)"
    return type(error).__name__
