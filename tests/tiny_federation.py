"""A federation small enough to follow by hand, with real Flower objects and numpy merchants."""

import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from clients.app import build_app
from clients.replies import Answer
from fedrec.runfolder import RunFolder
from fedrec.schema import Arrays, ArraySpec
from fedrec.signed import LIFETIME_S, arrays_digest, sign_instruction
from fedrec.signing import SigningKey
from fedrec.wire import Address, Instruction, Update, instruction_to_record, update_to_record
from server.admission import NormBounds
from server.job import Job
from server.rounds import Conduct
from server.signer import Signer
from server.strategy import Federation

SCHEMA = (ArraySpec("head.lora_A", (2, 3)), ArraySpec("norm.weight", (4,)), ArraySpec("scale", ()))
BASE = "a" * 64
PLAN = "b" * 64
HEAD = "c" * 64
NODE = 5  # whom messages are for unless a test says otherwise
SERVER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
SIGNER = Signer(SERVER)


def arrays(value: float = 0.0) -> Arrays:
    """Arrays of the schema, filled with one number."""
    return {spec.name: np.full(spec.shape, value, np.float32) for spec in SCHEMA}


def instruction(**changes: Any) -> Instruction:
    """What the server of round 3 asks."""
    return replace(Instruction("run-1", 3, BASE, PLAN, adapter=arrays(0.5)), **changes)


def update(**changes: Any) -> Update:
    """A proper answer to ``instruction``."""
    return replace(Update("run-1", 3, BASE, PLAN, ledger_head=HEAD, arrays=arrays(0.25)), **changes)


def federation(**changes: Any) -> Federation:
    """Five clients, all asked in each of eight rounds."""
    standard = Federation(
        run_id="run-1",
        base_digest=BASE,
        agreement_digest=PLAN,
        schema=SCHEMA,
        bounds=NormBounds(0.0, 100.0),
        clients=5,
        clients_per_round=5,
        rounds=8,
        min_replies=0.5,
        learning_rate=0.1,
        warmup_rounds=2,
        ema=0.9,
        seed=0,
    )
    return replace(standard, **changes)


def head_of(partition: int, round_index: int) -> str:
    """The end of a tiny merchant's ledger after a round."""
    return f"{partition:032x}{round_index:032x}"


class TinyMerchant:
    """Pulls the adapter towards a number of its own, and toward different shapes of it in each array."""

    schema = SCHEMA
    base_digest = BASE
    agreement_digest = PLAN
    server_key = SERVER.public
    reply_key: SigningKey | None = None
    metrics = ("ndcg@10", "hr@10")

    def __init__(self, partition: int) -> None:
        self.partition = partition

    def train_round(self, instruction: Instruction) -> Answer:
        target = 1.0 + self.partition / 7
        update = {
            name: np.asarray(target * np.cos(np.arange(values.size)).reshape(values.shape) - values, np.float32)
            for name, values in instruction.adapter.items()
        }
        return Answer(update, head_of(self.partition, instruction.round_index))

    def measure_round(self, instruction: Instruction) -> Answer:
        """Partition p measures p/10 and p/5, whatever the adapter."""
        values = {
            name: np.float32(self.partition * share) for name, share in zip(self.metrics, (0.1, 0.2), strict=True)
        }
        return Answer(values, head_of(self.partition, 1000 + instruction.round_index))


def reply_key(number: int) -> SigningKey:
    """The signing key of one of 256 clients, the same in every process."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def client_app(merchant_of: Callable[[int], Any] = TinyMerchant) -> ClientApp:
    """The real client app over merchants made from their partition number."""
    return build_app(lambda context: merchant_of(int(context.node_config["partition-id"])))


def job(folder: Path | RunFolder, **changes: Any) -> Job:
    """A job in a new run folder (or an open one), judged by the distance to 1.1; ``changes`` may be of its conduct."""
    opened = folder if isinstance(folder, RunFolder) else RunFolder.create(folder)
    own = {field.name: changes.pop(field.name) for field in fields(Conduct) if field.name in changes}
    conduct = replace(Conduct(SIGNER, judge=distance), **own)
    return replace(Job(federation=federation(), initial=arrays(), folder=opened, conduct=conduct), **changes)


def distance(adapter: Arrays) -> dict[str, float]:
    """A made-up panel loss: how far the scale is from 1.1."""
    loss = abs(float(adapter["scale"]) - 1.1)
    return {"panel_loss": loss, "panel_ndcg@10": 1 / (1 + loss)}


def signed(
    asked: Instruction | None = None, *, key: SigningKey = SERVER, address: Address | None = None
) -> Instruction:
    """An instruction as the server signs it."""
    asked = asked or instruction()
    address = address or Address(MessageType.TRAIN, NODE, int(time.time()) + LIFETIME_S)
    return sign_instruction(asked, address, key=key, adapter_digest=arrays_digest(asked.adapter))


def message_to(
    node_id: int, asked: Instruction | None = None, *, kind: str = MessageType.TRAIN, key: SigningKey = SERVER
) -> Message:
    """The message that carries an instruction to a node, signed for it."""
    address = Address(kind, node_id, int(time.time()) + LIFETIME_S)
    return sent(signed(asked, key=key, address=address), node_id, kind=kind)


def sent(asked: Instruction, node_id: int = NODE, *, kind: str = MessageType.TRAIN) -> Message:
    """The message that carries an instruction as it is, whoever signed it and for whom."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    return Message(instruction_to_record(asked), node_id, kind)


def reply_from(node_id: int, answer: Update | None = None) -> Message:
    """A reply as it reaches the server."""
    return Message(update_to_record(answer or update()), reply_to=message_to(node_id))


def context_of(partition: int, **run_config: Any) -> Context:
    """A client's Flower context."""
    node_config = {"partition-id": partition, "num-partitions": 5}
    return Context(run_id=1, node_id=NODE, node_config=node_config, state=RecordDict(), run_config=run_config)
