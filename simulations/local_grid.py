"""Many clients on this machine: Flower's ``Grid`` without Ray, a SuperLink or polling.

It behaves like a network in what matters for a test of privacy: a client that raises is answered for with the
exception's text, as Flower does, so only the client app itself can keep that text at home.
"""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulations.workers import Workers

_SERVER_NODE = 1  # Flower's own number for the SuperLink
_FIRST_NODE = 2
_CLIENT_RAISED = 2


class LocalGrid(Grid):
    """Calls a ``ClientApp`` for each message, one after the other, or has ``workers`` do so.

    A node is only a number until it is asked, and again afterwards unless its app keeps something in its context, so
    100,000 registered clients cost nothing. Node ``2 + i`` holds partition ``i`` in every run.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        clients: int,
        run_config: dict[str, Any] | None = None,
        run_id: int = 1,
        workers: Workers | None = None,
    ) -> None:
        self._client_app = client_app
        self._workers = workers
        self._clients = clients
        self._run_config = dict(run_config or {})
        self._run = Run.create_empty(run_id=run_id)
        self._contexts: dict[int, Context] = {}
        self._replies: dict[str, Message] = {}
        self.set_run(self._run)
        if workers is not None:
            workers.begin(clients=clients, run_config=self._run_config, run_id=run_id)

    def set_run(self, run: Run) -> None:
        """Take part in ``run``; Flower stamps its number on every message made from now on."""
        self._run = run
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run.run_id, 1, _SERVER_NODE

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; Flower keeps this for older apps."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> range:
        """All node numbers, in the order of the partitions."""
        return range(_FIRST_NODE, _FIRST_NODE + self._clients)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the clients now and keep their replies for ``pull_messages``."""
        replies = {reply.metadata.reply_to_message_id: reply for reply in self._answers(messages)}
        self._replies |= replies
        return list(replies)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Hand over, once, the replies to these messages."""
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Yield the replies in the order of the messages; few are in memory at a time.

        ``timeout`` has no meaning here: no client is ever late.
        """
        yield from self._answers(messages)

    def answer(self, message: Message) -> Message:
        """Run one client on one message."""
        message.metadata.__dict__["_message_id"] = str(uuid4())  # a SuperLink would set it; there is no public way
        node_id = message.metadata.dst_node_id
        try:
            context = self._context(node_id)
            reply = self._client_app(message, context)
            if not context.state:  # nothing to remember: a client that was asked costs no more than one that was not
                self._contexts.pop(node_id, None)
        except Exception as error:  # what Flower does with any exception of a client, text and all
            reply = Message(Error(_CLIENT_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)
        reply.metadata.__dict__["_message_id"] = str(uuid4())
        return reply

    def _answers(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Answer each message in turn, here or in the workers."""
        return map(self.answer, messages) if self._workers is None else self._workers.answers(messages)

    def _context(self, node_id: int) -> Context:
        """This node's context, made on first use and kept for the run."""
        if node_id not in self._contexts:
            if node_id not in self.get_node_ids():
                raise KeyError(f"node {node_id} is not part of this run")
            self._contexts[node_id] = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config={"partition-id": node_id - _FIRST_NODE, "num-partitions": self._clients},
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._contexts[node_id]
