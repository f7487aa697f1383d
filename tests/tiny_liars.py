"""Liars among the enrolled: what each may try, and the word that it is set aside under.

They hold real keys and sign what they send: the transport and the signatures alone are no help against them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from clients.replies import Answer
from fedrec.schema import AdapterSchema, ArraySpec, parameters_of, unflatten
from fedrec.signed import sign_reply
from fedrec.signing import SigningKey
from fedrec.wire import Instruction, RefusalCode, refusal_to_error, update_from_record, update_to_record
from server.admission import norm_bounds
from server.roster import Registered
from simulations.local_grid import LocalGrid
from tests.tiny_federation import TinyMerchant, client_app, head_of, reply_key

SCHEMA: AdapterSchema = (ArraySpec("lora_A", (1, 256)), ArraySpec("lora_B", (256, 1)), ArraySpec("gain", (128,)))
PARAMETERS = parameters_of(SCHEMA)
FIRST_NODE = 2


@dataclass(frozen=True)
class Plan:
    """The default run at epsilon 8: an adapter of 640 numbers, clients of about 75 people."""

    clip_norm: float = 1.0
    noise_multiplier: float = 1.13
    sampling_rate: float = 0.25
    normaliser: float = 0.25 * 75
    local_steps: int = 1
    trust: str = "local"


BOUNDS = norm_bounds(Plan(), PARAMETERS)
_DEVIATION = Plan.noise_multiplier * Plan.clip_norm / Plan.normaliser


def direction(seed: int) -> np.ndarray:
    """A direction in the space of the adapter, (P,), of length 1."""
    drawn = np.random.default_rng(seed).normal(size=PARAMETERS)
    return np.asarray(drawn / np.linalg.norm(drawn))


def honest_update(partition: int, round_index: int) -> np.ndarray:
    """Signal of length a half, the same for all, and the noise of the plan, (P,)."""
    noise = np.random.default_rng([partition, round_index]).normal(size=PARAMETERS)
    return 0.5 * direction(0) + _DEVIATION * noise


class Member(TinyMerchant):
    """An enrolled client, so far honest."""

    schema = SCHEMA

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.reply_key: SigningKey = reply_key(partition)

    def train_round(self, instruction: Instruction) -> Answer:
        update = honest_update(self.partition, instruction.round_index)
        return Answer(unflatten(update, SCHEMA), head_of(self.partition, instruction.round_index))


class Chance:
    """What a liar has in hand: its own honest reply of this round, and every reply that came before."""

    def __init__(self, reply: Message, earlier: Mapping[tuple[int, int], Message]) -> None:
        self.reply, self.earlier = reply, earlier
        self.node = reply.metadata.src_node_id
        self.key = reply_key(self.node - FIRST_NODE)
        self.update = update_from_record(reply.content, schema=SCHEMA)

    def with_content(self, content: RecordDict) -> Message:
        self.reply.content = content
        return self.reply

    def signed(self, *, key: SigningKey | None = None, **changes: Any) -> Message:
        """Another update, properly signed."""
        update = replace(self.update, **changes)
        return self.with_content(update_to_record(sign_reply(update, sender=self.node, key=key or self.key)))

    def of_length(self, length: float) -> Message:
        return self.signed(arrays=unflatten(length * direction(7), SCHEMA))

    def with_array(self, array: Array) -> Message:
        content = self.reply.content
        content["update"]["gain"] = array
        return self.with_content(content)

    def with_bytes(self, data: bytes, stype: str = "numpy.ndarray") -> Message:
        return self.with_array(Array("float32", (128,), stype, data))

    def with_header(self, **changes: Any) -> Message:
        content = self.reply.content
        content["header"] = ConfigRecord(dict(content["header"]) | changes)
        return self.with_content(content)

    def with_record(self, name: str, record: Any) -> Message:
        content = self.reply.content
        content[name] = record
        return self.with_content(content)

    def instead(self, error: Error) -> Message:
        self.reply.__dict__["_content"], self.reply.__dict__["_error"] = None, error
        return self.reply


def _npy(version: bytes = b"\x01\x00", descr: str = "<f4", order: str = "False", values: int = 128) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (128,), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + bytes(4 * values)


def _poisoned(value: float) -> Callable[[Chance], Message]:
    return lambda liar: liar.with_array(Array(np.full(128, value, np.float32)))


def _stolen(liar: Chance) -> Message:
    """Another member's reply of this very round, signature and all: a free-rider."""
    other = liar.earlier[FIRST_NODE, liar.update.round_index]
    return liar.with_content(other.content)


def _replayed(liar: Chance) -> Message:
    """Its own reply of the round before, which was signed properly then."""
    before = liar.earlier.get((liar.node, liar.update.round_index - 1))
    return liar.with_content(before.content) if before else liar.signed(round_index=99)


def _disguised(liar: Chance) -> Message:
    """In the name of a client that was asked too."""
    liar.reply.metadata.__dict__["_src_node_id"] = FIRST_NODE
    return liar.reply


def _uninvited(liar: Chance) -> Message:
    liar.reply.metadata.__dict__["_src_node_id"] = 2**63 + 5
    return liar.reply


ATTACKS: dict[str, tuple[str, Callable[[Chance], Message]]] = {
    "nan": ("not-finite", _poisoned(np.nan)),
    "infinity": ("not-finite", _poisoned(np.inf)),
    "minus infinity": ("not-finite", _poisoned(-np.inf)),
    "1e30": ("too-long", lambda liar: liar.signed(arrays=unflatten(np.full(PARAMETERS, 1e30), SCHEMA))),
    "100 times the norm": ("too-long", lambda liar: liar.of_length(100 * 1.6)),
    "just above the ceiling": ("too-long", lambda liar: liar.of_length(BOUNDS.ceiling * 1.001)),
    "no noise": ("too-short", lambda liar: liar.of_length(0.5)),
    "nothing at all": ("too-short", lambda liar: liar.of_length(0.0)),
    "float64": ("malformed", lambda liar: liar.with_array(Array(np.zeros(128)))),
    "integers": ("malformed", lambda liar: liar.with_array(Array(np.zeros(128, np.int32)))),
    "other shape": ("malformed", lambda liar: liar.with_array(Array(np.zeros((2, 64), np.float32)))),
    "a million numbers": ("malformed", lambda liar: liar.with_array(Array(np.zeros(10**6, np.float32)))),
    "cut payload": ("malformed", lambda liar: liar.with_bytes(_npy(values=127))),
    "payload with a tail": ("malformed", lambda liar: liar.with_bytes(_npy(values=129))),
    "empty payload": ("malformed", lambda liar: liar.with_bytes(b"")),
    "big-endian": ("malformed", lambda liar: liar.with_bytes(_npy(descr=">f4"))),
    "objects": ("malformed", lambda liar: liar.with_bytes(_npy(descr="|O"))),
    "fortran order": ("malformed", lambda liar: liar.with_bytes(_npy(order="True"))),
    "npy 2.0": ("malformed", lambda liar: liar.with_bytes(_npy(version=b"\x02\x00"))),
    "npz": ("malformed", lambda liar: liar.with_bytes(b"PK\x03\x04" + bytes(100))),
    "pickle": ("malformed", lambda liar: liar.with_bytes(b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.")),
    "called a pickle": ("malformed", lambda liar: liar.with_bytes(_npy(), stype="pickle")),
    "called a tensor": ("malformed", lambda liar: liar.with_bytes(_npy(), stype="torch.Tensor")),
    "array missing": ("malformed", lambda liar: liar.with_record("update", ArrayRecord())),
    "array more": (
        "malformed",
        lambda liar: liar.with_record("update", ArrayRecord({**liar.reply.content["update"], "x": Array(np.ones(1))})),
    ),
    "num-examples as a record": (
        "malformed",
        lambda liar: liar.with_record("metrics", MetricRecord({"num-examples": 1_000_000_000})),
    ),
    "num-examples in the header": ("malformed", lambda liar: liar.with_header(**{"num-examples": 10**9})),
    "negative num-examples": ("malformed", lambda liar: liar.with_header(**{"num-examples": -99})),
    "older version": ("malformed", lambda liar: liar.with_header(version=3)),
    "newer version": ("malformed", lambda liar: liar.with_header(version=5)),
    "round as text": ("malformed", lambda liar: liar.with_header(round_index=str(liar.update.round_index))),
    "signature of another form": ("malformed", lambda liar: liar.with_header(signature="sign" * 32)),
    "nothing inside": ("malformed", lambda liar: liar.with_content(RecordDict())),
    "an instruction": ("malformed", lambda liar: liar.with_record("adapter", liar.reply.content["update"])),
    "another round": ("other-round", lambda liar: liar.signed(round_index=liar.update.round_index + 1)),
    "another run": ("other-round", lambda liar: liar.signed(run_id="run-2")),
    "another base": ("other-round", lambda liar: liar.signed(base_digest="c" * 64)),
    "another plan": ("other-round", lambda liar: liar.signed(agreement_digest="c" * 64)),
    "an old reply": ("other-round", _replayed),
    "no signature": ("not-signed", lambda liar: liar.with_header(signature="")),
    "a made-up signature": ("not-signed", lambda liar: liar.with_header(signature="0" * 128)),
    "another member's key": ("not-signed", lambda liar: liar.signed(key=reply_key(0))),
    "another ledger's end": ("not-signed", lambda liar: liar.with_header(ledger_head="d" * 64)),
    "another member's reply": ("not-signed", _stolen),
    "in another member's name": ("twice", _disguised),
    "in a stranger's name": ("not-asked", _uninvited),
    "claims to have no budget": ("E_BUDGET", lambda liar: liar.instead(refusal_to_error(RefusalCode.BUDGET))),
    "an error with a text": ("failed", lambda liar: liar.instead(Error(code=2, reason="user 123 bought X"))),
}
TWICE, SILENT = "the same twice", "no reply"


class Attacked(LocalGrid):
    """``honest`` clients, and after them one for each of some attacks."""

    def __init__(self, honest: int, attacks: Iterable[str], *, admitted_liars: int = 0) -> None:
        self.honest, self.attacks = honest, list(attacks)
        self.liars = honest + len(self.attacks)
        self.earlier: dict[tuple[int, int], Message] = {}
        super().__init__(client_app(Member), clients=self.liars + admitted_liars)

    @property
    def roster(self) -> dict[int, Registered]:
        return {node: Registered(reply_key(node - FIRST_NODE).public) for node in self.get_node_ids()}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for reply in super().send_and_receive(messages):
            partition, round_index = reply.metadata.src_node_id - FIRST_NODE, int(reply.metadata.group_id)
            self.earlier.setdefault((reply.metadata.src_node_id, round_index), reply)
            if partition >= self.liars:
                yield Chance(reply, self.earlier).of_length(BOUNDS.ceiling * 0.999)
            elif partition >= self.honest:
                yield from self._attack(self.attacks[partition - self.honest], reply)
            else:
                yield reply

    def _attack(self, name: str, reply: Message) -> Iterator[Message]:
        if name == TWICE:
            yield from (reply, reply)
        elif name != SILENT:
            copied = Message(reply.content, reply_to=asked_by(reply))
            yield ATTACKS[name][1](Chance(copied, self.earlier))


def asked_by(reply: Message) -> Message:
    """A message whose answer carries the same addresses as ``reply``."""
    return Message(
        RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type, group_id=reply.metadata.group_id
    )
