"""Real TLS handshakes over loopback, for whoever makes certificates."""

import socket
import ssl
from pathlib import Path
from threading import Thread

GREETING = b"hello"
TIMEOUT_S = 10


def client_context(trusted: Path, *, keys: Path | None = None) -> ssl.SSLContext:
    """As strict as Python can be: host name, chain, purposes, RFC 5280."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(trusted)
    if keys:
        context.load_cert_chain(keys / "tls.crt", keys / "tls.key")
    return context


def server_context(keys: Path, *, clients_from: Path | None = None) -> ssl.SSLContext:
    """With ``clients_from``, only clients whom that authority certified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(keys / "tls.crt", keys / "tls.key")
    if clients_from:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(clients_from)
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Shake hands and send a greeting; the protocol spoken.

    Raises whatever stopped the side that refused.
    """
    refused: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = Thread(target=_serve, args=(listening, server, refused))
        serving.start()
        failure: Exception | None = None
        spoken = ""
        try:
            plain = socket.create_connection(listening.getsockname(), timeout=TIMEOUT_S)
            with plain, client.wrap_socket(plain, server_hostname=host) as wrapped:
                spoken = wrapped.version() or ""
                if wrapped.recv(len(GREETING)) != GREETING:
                    raise ConnectionError("no greeting")
        except OSError as error:
            failure = error
        serving.join(TIMEOUT_S)
    if isinstance(failure, ssl.SSLCertVerificationError) or (failure and not refused):
        raise failure
    if refused:
        raise refused[0]
    return spoken


def _serve(listening: socket.socket, context: ssl.SSLContext, refused: list[Exception]) -> None:
    try:
        listening.settimeout(TIMEOUT_S)
        plain, _ = listening.accept()
        with plain:
            plain.settimeout(TIMEOUT_S)
            with context.wrap_socket(plain, server_side=True) as wrapped:
                wrapped.sendall(GREETING)
    except OSError as error:
        refused.append(error)
