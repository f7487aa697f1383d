"""A client that stays: one process that joins, trains when asked, and comes back when the connection breaks.

Flower's own node starts a Python process for every message and looks for work every three seconds. This one keeps the
model in memory, runs the app that is installed here whatever app the server names, and takes one message at a time.
"""

import logging
import threading
from collections.abc import Mapping

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.link import LinkLostError, LinkStoppedError, Session, connect, delays
from clients.transport import Link
from fedrec.errors import WireError
from fedrec.wire import RefusalCode, refusal_to_error

log = logging.getLogger(__name__)

POLL_S = 0.5

Settings = Mapping[str, bool | float | int | str]


def run_node(
    client_app: ClientApp,
    link: Link,
    *,
    stop: threading.Event,
    node_config: Settings | None = None,
    run_config: Settings | None = None,
    poll_s: float = POLL_S,
) -> None:
    """Answer a server's messages until ``stop`` is set; join again, ever more slowly, when the server is gone.

    Args:
        client_app: answers the messages.
        link: how to reach the server.
        stop: ends it after the message at hand.
        node_config: this client's own settings, such as its ``partition-id``.
        run_config: this client's own settings for a run, such as its ``workspace``; the server's are not asked for.
        poll_s: how long to wait before asking again when there was no message, > 0.
    """
    waits = delays()
    while not stop.is_set():
        try:
            with connect(link, stop=stop) as session:
                log.info("joined node=%d", session.node_id)
                waits = delays()
                contexts = _Contexts(session.node_id, node_config or {}, run_config or {})
                while not stop.is_set():
                    if not _serve_one(session, client_app, contexts):
                        stop.wait(poll_s)
        except LinkLostError as error:
            wait_s = next(waits)
            log.warning("disconnected reason=%s retry_in_s=%.1f", error, wait_s)
            stop.wait(wait_s)
        except LinkStoppedError:
            break


def answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply; whatever it raises becomes a code, for an exception's text would tell of data."""
    try:
        return client_app(message, context)
    except Exception as error:
        log.warning("refused=%s error=%s", RefusalCode.INTERNAL.value, type(error).__name__)
        log.debug("the error stays on this machine", exc_info=True)
        return Message(refusal_to_error(RefusalCode.INTERNAL), reply_to=message)


class _Contexts:
    """The context of the newest run; an older run's is forgotten, as its messages are over."""

    def __init__(self, node_id: int, node_config: Settings, run_config: Settings) -> None:
        self._node_id = node_id
        self._node_config = dict(node_config)
        self._run_config = dict(run_config)
        self._newest: Context | None = None

    def of(self, run_id: int) -> Context:
        """Return the context for Flower's run ``run_id``."""
        if self._newest is None or self._newest.run_id != run_id:
            self._newest = Context(
                run_id=run_id,
                node_id=self._node_id,
                node_config=dict(self._node_config),
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._newest


def _serve_one(session: Session, client_app: ClientApp, contexts: _Contexts) -> bool:
    """Answer one message, if there is one that can be answered; say whether there was."""
    try:
        message = session.receive()
    except WireError as error:
        log.warning("ignored %s", error)
        return False  # a server that sends nothing else is asked no more often than an idle one
    if message is None:
        return False
    session.reply(answer(client_app, message, contexts.of(message.metadata.run_id)))
    return True
