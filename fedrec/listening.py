"""A port of ours: opened in one way, and TLS as it is spoken there."""

import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.errors import ConfigError


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Hold a port open inside the block; 0 takes a free one.

    Raises:
        ConfigError: it is taken, or no address of this machine.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: cannot listen there: {error.strerror}; choose another port") from None
    with listener:
        yield listener


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer for HTTP/1.1, under a certificate of our own; the other side needs none.

    Args:
        certificate: PEM, with those of intermediate authorities after it.
        key: its private key, PEM, without a password.

    Raises:
        ConfigError: a file is missing or is not what it should be, or others may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(f"{key}: others may read this key (mode {mode:04o}); chmod 600 it")
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # SSLError is one; neither shows what is in the files
        raise ConfigError(f"{certificate}, {key}: no usable certificate and key: {error.strerror}") from None
    return context
