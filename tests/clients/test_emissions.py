"""Everything that a client emits, held against a list: records, keys, types, lengths, refusals, logs, Flower's context.

People's data carry markers here, and so do the exceptions that their client raises. Nothing outside the list may
leave, no marker may leave in any form, and how long a message is may not depend on anybody's data.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord
from flwr.common.serde import message_to_proto

import clients.merchant
import clients.training
from clients.app import build_app
from clients.merchant import load_merchant
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError
from fedrec.model.adapters import schema_of
from fedrec.model.statistics import StatisticsSpec
from fedrec.runfolder import server_key_path
from fedrec.signing import SigningKey
from fedrec.wire import Instruction
from tests.tiny_federation import NODE, context_of, message_to
from tests.tiny_ranker import ITEMS, histories, instruction, private_plan, run_folder, start_arrays

MARKER = "user-4711-bought-X"
MARKED_TIME = 7_777_777_777  # of every event of the marked person
METRICS = {"metrics": ("ndcg@10", "hr@10"), "metrics_every": 2}
STATISTICS = StatisticsSpec(window=3, popularity_share=0.5)
KINDS = (MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY)

HEADER = {
    "version": int,
    "run_id": str,
    "round_index": int,
    "base_digest": str,
    "agreement_digest": str,
    "ledger_head": str,
    "signature": str,
}


def _people(count: int) -> Histories:
    """The last of them carries the marked time."""
    plain = histories(*(2 + person % 12 for person in range(count)), seed=count)
    marked = plain.timestamps.copy()
    marked[plain.offsets[-2] :] = MARKED_TIME
    return Histories(plain.offsets, plain.items, marked)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client 0 has one person, client 1 has 300."""
    return _run_at(tmp_path_factory.mktemp("emissions") / MARKER / "run")


def _run_at(path: Path) -> Path:
    plan = private_plan(rounds=6, metric_releases=3, metric_noise_multiplier=5.0, statistics_noise_multiplier=5.0)
    clients = [np.array([300]), np.arange(300)]
    run_folder(path, _people(301), clients, plan=plan, statistics=STATISTICS, **METRICS)
    return path


@pytest.fixture(scope="module")
def unanswered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, where nobody ever answers."""
    return _run_at(tmp_path_factory.mktemp("unanswered") / MARKER / "run")


def _asked(run: Path, round_index: int = 2) -> Instruction:
    agreed = read_agreement(run)
    return instruction(agreed, start_arrays(agreed), round_index=round_index)


def _emitted(run: Path, partition: int, kind: str, asked: Instruction, context: Context | None = None) -> Message:
    """What the real client app answers over the real merchant."""
    app = build_app(lambda _: load_merchant(run, partition))
    return app(_message(run, asked, kind), context or context_of(partition))


def _message(run: Path, asked: Instruction, kind: str) -> Message:
    """As the run's own server sends it."""
    return message_to(NODE, asked, kind=kind, key=SigningKey.load(server_key_path(run)))


def _bytes(message: Message) -> bytes:
    """The whole message as Flower puts it on the wire, less the clock: when it was made and how long it may live."""
    proto = message_to_proto(message)
    proto.metadata.created_at = proto.metadata.ttl = 1.0
    return proto.SerializeToString(deterministic=True)


def _structure(message: Message) -> dict[str, Any]:
    """Every key of a reply, and beside it the type or the name, dtype and shape of what it holds."""
    found: dict[str, Any] = {}
    for key, record in message.content.items():
        if isinstance(record, ArrayRecord):
            found[key] = {name: (array.stype, array.dtype, tuple(array.shape)) for name, array in record.items()}
        else:
            assert isinstance(record, ConfigRecord | MetricRecord)
            found[key] = {name: type(value) for name, value in record.items()}
    return found


def _markers(data: bytes) -> list[str]:
    """Which of the planted markers stand in ``data``."""
    planted = {
        "text": MARKER.encode(),
        "time as text": str(MARKED_TIME).encode(),
        "time": np.int64(MARKED_TIME).tobytes(),
        "time as float": np.float64(MARKED_TIME).tobytes(),
    }
    return [name for name, marker in planted.items() if marker in data]


def test_golden_update_holds_the_header_the_adapters_arrays_and_nothing_else(run: Path) -> None:
    agreed = read_agreement(run)
    arrays = {spec.name: ("numpy.ndarray", "float32", spec.shape) for spec in schema_of(agreed_ranker(agreed, run))}
    assert _structure(_emitted(run, 1, MessageType.TRAIN, _asked(run))) == {"header": HEADER, "update": arrays}


def test_golden_measures_hold_the_header_two_numbers_and_nothing_else(run: Path) -> None:
    measures = {"ndcg@10": float, "hr@10": float}
    assert _structure(_emitted(run, 1, MessageType.EVALUATE, _asked(run))) == {"header": HEADER, "metrics": measures}


def test_golden_statistics_hold_the_header_the_agreed_counts_and_nothing_else(run: Path) -> None:
    counts = {"popularity": ("numpy.ndarray", "float32", (ITEMS,)), "pairs": ("numpy.ndarray", "float32", (2 * ITEMS,))}
    assert _structure(_emitted(run, 1, MessageType.QUERY, _asked(run))) == {"header": HEADER, "statistics": counts}


@pytest.mark.parametrize("kind", KINDS)
def test_header_repeats_what_the_server_said_and_adds_one_keyed_digest(run: Path, kind: str) -> None:
    asked = _asked(run)
    header = dict(_emitted(run, 1, kind, asked).content["header"])
    head = header.pop("ledger_head")
    assert header == {
        "version": 4,
        "run_id": asked.run_id,
        "round_index": asked.round_index,
        "base_digest": asked.base_digest,
        "agreement_digest": asked.agreement_digest,
        "signature": "",  # nobody is enrolled in a simulation
    }
    assert len(head) == 64
    assert head != _emitted(run, 0, kind, asked).content["header"]["ledger_head"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_person_and_three_hundred_give_messages_of_the_same_length(run: Path, kind: str) -> None:
    one, many = (_emitted(run, partition, kind, _asked(run)) for partition in (0, 1))
    assert len(_bytes(one)) == len(_bytes(many))
    assert _structure(one) == _structure(many)
    assert _bytes(one) != _bytes(many)


@pytest.mark.parametrize("kind", KINDS)
def test_envelope_is_flowers_answer_to_the_servers_own(run: Path, kind: str) -> None:
    """No field of the envelope is the client's choice, but for the clock."""
    asked = _message(run, _asked(run), kind)
    reply = build_app(lambda _: load_merchant(run, 1))(asked, context_of(1))
    there, back = asked.metadata, {name.lstrip("_"): value for name, value in vars(reply.metadata).items()}
    assert {name: value for name, value in back.items() if name not in ("created_at", "ttl")} == {
        "run_id": there.run_id,
        "message_id": "",
        "src_node_id": there.dst_node_id,
        "dst_node_id": there.src_node_id,
        "src_task_id": there.dst_task_id,
        "dst_task_id": there.src_task_id,
        "reply_to_message_id": there.message_id,
        "group_id": there.group_id,
        "message_type": there.message_type,
        "delivered_at": "",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_in_flowers_context(run: Path, kind: str) -> None:
    """Flower keeps a node's context between messages, and its state is a record that could be sent."""
    context = context_of(1)
    _emitted(run, 1, kind, _asked(run), context)
    assert not context.state
    assert context.node_config == {"partition-id": 1, "num-partitions": 5}


def _cases(asked: Instruction) -> dict[str, Instruction]:
    """An instruction that is answered, and ones that are refused for each reason that a server can bring about."""
    other = {name: values + np.float32(0.5) for name, values in asked.adapter.items()}
    wide = {name: np.zeros((3, 3), np.float32) for name in asked.adapter}

    def changed(**changes: Any) -> Instruction:
        return Instruction(**(vars(asked) | changes))

    return {
        "answered": asked,
        "E_REPLAY": changed(adapter=other),
        "E_BASE": changed(base_digest="c" * 64),
        "E_PLAN": changed(round_index=1000),
        "E_SCHEMA": changed(adapter=wide),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_marker_leaves_in_messages_or_logs(run: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        replies = {name: _emitted(run, 1, kind, asked) for name, asked in _cases(_asked(run)).items()}
    assert {name: reply.error.reason for name, reply in replies.items() if reply.has_error()} == {
        name: name for name in replies if name != "answered"
    }
    for reply in replies.values():
        assert _markers(_bytes(reply)) == []
        assert _markers(repr(reply).encode()) == []
    assert _markers(caplog.text.encode()) == []
    accepted = {f"asked={kind} round={number}" for number in (_asked(run).round_index, 1000)}
    assert {record.getMessage() for record in caplog.records} == accepted | {
        "answered",
        "refused=E_REPLAY error=Refusal",
        "refused=E_BASE error=Refusal",
        "refused=E_PLAN error=Refusal",
        "refused=E_SCHEMA error=WireError",
        "because E_REPLAY: this round was answered for another adapter",
        "because E_BASE: the instruction is for another base; fetch the base of this federation",
        "because E_PLAN: this round is not part of the agreed plan",
    }


ERRORS: tuple[Callable[[str], Exception], ...] = (ValueError, KeyError, OSError, MemoryError, PrivacyError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", ERRORS)
def test_exception_over_a_persons_data_leaves_one_of_six_words(
    unanswered: Path, kind: str, error: Callable[[str], Exception], monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error(f"{MARKER} at {MARKED_TIME}")

    monkeypatch.setattr(clients.merchant, "private_direction", fail)
    for name in ("person_metrics", "person_statistics"):
        monkeypatch.setattr(clients.training, name, fail)
    with caplog.at_level(logging.INFO):
        reply = _emitted(unanswered, 1, kind, _asked(unanswered))
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (2, "E_BUDGET" if error is PrivacyError else "E_INTERNAL")
    assert _markers(_bytes(reply)) == []
    assert _markers(caplog.text.encode()) == []
