"""The Flower ``ClientApp``: unpack, check, let the merchant train, measure or count, pack. Nothing else ever leaves.

Flower forwards the text of any exception to the server, so every exception ends here and becomes a code.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from clients.instructions import Desk, check_signed
from clients.replies import Answer
from clients.telling import told
from fedrec.errors import ConfigError
from fedrec.schema import AdapterSchema, Arrays
from fedrec.signed import Clock, Reply, sign_reply
from fedrec.signing import SigningKey
from fedrec.wire import (
    Instruction,
    Refusal,
    RefusalCode,
    Update,
    instruction_from_record,
    refusal_code,
    refusal_to_error,
    update_to_record,
)
from fedrec.wire_metrics import Measures, measures_to_record
from fedrec.wire_statistics import Statistics, statistics_to_record

log = logging.getLogger(__name__)


class Trainer(Protocol):
    """What the app needs of a merchant; ``schema`` and the digests are public and read no person's data."""

    @property
    def schema(self) -> AdapterSchema: ...

    @property
    def base_digest(self) -> str: ...

    @property
    def agreement_digest(self) -> str: ...

    @property
    def server_key(self) -> str: ...

    @property
    def reply_key(self) -> SigningKey | None: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def statistics_schema(self) -> AdapterSchema: ...

    def train_round(self, instruction: Instruction) -> Answer: ...

    def measure_round(self, instruction: Instruction) -> Answer: ...

    def count_statistics(self, instruction: Instruction) -> Answer: ...


Task = Callable[[Message, Trainer, Desk], RecordDict]


def build_app(merchant_of: Callable[[Context], Trainer], *, clock: Clock = time.time) -> ClientApp:
    """Make a client app that answers messages to train, to measure and to count.

    Args:
        merchant_of: opens the merchant of a node.
        clock: Unix time, s: which instructions have expired.
    """
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, lambda: merchant_of(context), desk=Desk(context.node_id, clock), task=_train)

    @client_app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return answer(message, lambda: merchant_of(context), desk=Desk(context.node_id, clock), task=_measure)

    @client_app.query()
    def query(message: Message, context: Context) -> Message:
        return answer(message, lambda: merchant_of(context), desk=Desk(context.node_id, clock), task=_count)

    return client_app


def answer(message: Message, merchant: Callable[[], Trainer], *, desk: Desk, task: Task) -> Message:
    """Return what ``task`` makes of ``message``, or an error that carries one of six codes."""
    try:
        reply = Message(task(message, merchant(), desk), reply_to=message)
        log.info("answered")
        return reply
    except Exception as error:
        code = refusal_code(error)
        log.warning("refused=%s error=%s", code.value, type(error).__name__)
        log.debug("the error stays on this machine", exc_info=True)
        return Message(refusal_to_error(code), reply_to=message)


def check_agreement(instruction: Instruction, merchant: Trainer) -> None:
    """Refuse an instruction for another base or under another agreement, before any data is touched.

    Raises:
        Refusal: ``E_BASE`` or ``E_PLAN``.
    """
    if instruction.base_digest != merchant.base_digest:
        raise Refusal(RefusalCode.BASE, "the instruction is for another base; fetch the base of this federation")
    if instruction.agreement_digest != merchant.agreement_digest:
        raise Refusal(RefusalCode.PLAN, "the instruction is under another agreement than the one accepted here")


def _accepted(message: Message, merchant: Trainer, desk: Desk, *, kind: str) -> Instruction:
    """Parse and check: form, author and recipient, base and agreement."""
    instruction = instruction_from_record(message.content, schema=merchant.schema)
    with told():
        check_signed(instruction, desk, kind=kind, server_key=merchant.server_key)
        check_agreement(instruction, merchant)
    log.info("asked=%s round=%d", kind, instruction.round_index)
    return instruction


def _train(message: Message, merchant: Trainer, desk: Desk) -> RecordDict:
    """Check, train, echo the instruction's header, sign."""
    instruction = _accepted(message, merchant, desk, kind=MessageType.TRAIN)
    answer = merchant.train_round(instruction)
    arrays = _in_order(answer.arrays, merchant.schema)
    update = Update(*_header(instruction), ledger_head=answer.ledger_head, arrays=arrays)
    return update_to_record(_signed(update, merchant, desk))


def _measure(message: Message, merchant: Trainer, desk: Desk) -> RecordDict:
    """Check, measure, echo the instruction's header, sign."""
    instruction = _accepted(message, merchant, desk, kind=MessageType.EVALUATE)
    answer = merchant.measure_round(instruction)
    values = {name: float(value) for name, value in answer.arrays.items()}
    measures = Measures(*_header(instruction), ledger_head=answer.ledger_head, values=values)
    return measures_to_record(_signed(measures, merchant, desk), names=merchant.metrics)


def _count(message: Message, merchant: Trainer, desk: Desk) -> RecordDict:
    """Check, count, echo the instruction's header, sign."""
    instruction = _accepted(message, merchant, desk, kind=MessageType.QUERY)
    answer = merchant.count_statistics(instruction)
    arrays = _in_order(answer.arrays, merchant.statistics_schema)
    statistics = Statistics(*_header(instruction), ledger_head=answer.ledger_head, arrays=arrays)
    return statistics_to_record(_signed(statistics, merchant, desk))


def _in_order(arrays: Arrays, schema: AdapterSchema) -> Arrays:
    """The arrays of a reply in the order in which both sides sign and read them."""
    if {name: values.shape for name, values in arrays.items()} != dict(schema):
        raise TypeError("the merchant's reply does not have the shapes of its own schema")
    return {spec.name: arrays[spec.name] for spec in schema}


def _signed(reply: Reply, merchant: Trainer, desk: Desk) -> Reply:
    """The reply under the merchant's own key; as it is where there is none, in a simulation."""
    return sign_reply(reply, sender=desk.node_id, key=merchant.reply_key) if merchant.reply_key else reply


def _header(instruction: Instruction) -> tuple[str, int, str, str]:
    return instruction.run_id, instruction.round_index, instruction.base_digest, instruction.agreement_digest


def place_of(context: Context) -> tuple[Path, int]:
    """Return the workspace named in the run's configuration, and this node's partition in it.

    Raises:
        ConfigError: none is named.
    """
    workspace = context.run_config.get("workspace")
    if not workspace:
        raise ConfigError("workspace is empty: expected a folder; set it with --run-config 'workspace=\"PATH\"'")
    return Path(str(workspace)), int(context.node_config["partition-id"])


def _merchant_from_workspace(context: Context) -> Trainer:
    """The merchant of this node's partition, opened anew for each message."""
    from clients.merchant import load_merchant  # torch comes with it: only where training happens

    return load_merchant(*place_of(context))


app = build_app(_merchant_from_workspace)
