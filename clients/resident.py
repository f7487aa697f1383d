"""The client as a service: one for each folder, answering until it is told to stop, and gone within seconds then."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.clientapp import ClientApp

from clients.node import POLL_S, run_node
from clients.settings import ClientSettings
from clients.transport import Link
from fedrec.errors import ConfigError, RunError
from fedrec.invitation import Invitation
from fedrec.keyfiles import NODE_KEY, TLS_CRT, TLS_KEY, read_file, read_key
from fedrec.locks import take

log = logging.getLogger(__name__)

GRACE_S = 4.0  # to finish the round at hand, once told to stop


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one client at a time use a merchant's folder.

    Raises:
        RunError: another process uses it, or it cannot be written.
    """
    try:
        lock = take(folder / ".lock", waits=False)
    except BlockingIOError:
        raise RunError(f"{folder}: another client is running on it; stop that one first") from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(lock)


def link_of(settings: ClientSettings, invitation: Invitation) -> Link:
    """Reach the invitation's server, over TLS alone, under this client's own keys.

    Raises:
        ConfigError: a key is missing or malformed, or a certificate has no key.
    """
    certificate, key = settings.keys / TLS_CRT, settings.keys / TLS_KEY
    if certificate.exists() and not key.exists():
        raise ConfigError(f"{key}: missing, and {certificate.name} is of no use without it; restore it")
    return Link(
        invitation.terms.address,
        root_certificates=read_file(invitation.authority),
        key=read_key(settings.keys / NODE_KEY),
        certificate=(certificate, key) if certificate.exists() else None,
    )


def stay(
    app: ClientApp, link: Link, *, stop: threading.Event, grace_s: float = GRACE_S, poll_s: float = POLL_S
) -> bool:
    """Answer the server in a thread of its own until ``stop`` is set.

    Args:
        grace_s: how long the round at hand may still take then.
        poll_s: how long to wait before asking again when there was no message.

    Returns:
        Whether everything ended in time. If not, a round was abandoned, its charge stays booked, and the process
        should end at once: the thread still runs.
    """
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            run_node(app, link, stop=stop, poll_s=poll_s)
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=serve, name="fedrec client", daemon=True)
    thread.start()
    stop.wait()
    thread.join(grace_s)
    if failed:
        raise failed[0]
    return not thread.is_alive()
