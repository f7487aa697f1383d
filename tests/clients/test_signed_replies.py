"""A client with a key of its own signs what it sends; asked again, it sends the same bytes again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, MessageType
from flwr.common.serde import recorddict_to_proto

from clients.app import build_app
from clients.merchant import Merchant, load_merchant
from clients.opening import local_training
from clients.replies import Answer, ReplyCache
from clients.training import RankerLearner
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.model.adapters import schema_of
from fedrec.runfolder import server_key_path
from fedrec.signed import is_reply_signed_by
from fedrec.signing import SigningKey
from fedrec.wire import Instruction, update_from_record
from fedrec.wire_metrics import measures_from_record
from fedrec.workspace import client_histories, ledger_of, policy_of, replies_path
from tests.tiny_federation import NODE, TinyMerchant, client_app, context_of, message_to, reply_key
from tests.tiny_ranker import histories, instruction, private_plan, run_folder, start_arrays

KEY = reply_key(3)
NAMES = ("ndcg@10", "hr@10")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "run"
    plan = private_plan(metric_releases=2, metric_noise_multiplier=5.0)
    run_folder(path, histories(5, 9, 3, 14), [np.arange(4)], plan=plan, metrics=NAMES, metrics_every=2)
    return path


def _merchant(run: Path, key: SigningKey | None) -> Merchant:
    """Client 0 of a run folder, as its own machine opens it."""
    agreed = read_agreement(run)
    return Merchant(
        agreed,
        learner=RankerLearner(agreed_ranker(agreed, run), client_histories(run, 0), local_training(agreed)),
        policy=policy_of(run, agreed.plan),
        ledger=ledger_of(run, 0, agreed.plan),
        replies=ReplyCache(replies_path(run, 0)),
        partition=0,
        reply_key=key,
    )


def _answer(run: Path, kind: str, asked: Instruction) -> Message:
    """What a freshly opened client sends: nothing is remembered but what is on disk."""
    app = build_app(lambda _: _merchant(run, KEY))
    key = SigningKey.load(server_key_path(run))
    return app(message_to(NODE, asked, kind=kind, key=key), context_of(0))


def _asked(run: Path) -> Instruction:
    agreed = read_agreement(run)
    return instruction(agreed, start_arrays(agreed), round_index=2)


def test_update_and_metrics_are_signed_by_the_client_for_its_own_node(run: Path) -> None:
    asked, agreed = _asked(run), read_agreement(run)
    trained = _answer(run, MessageType.TRAIN, asked).content
    update = update_from_record(trained, schema=schema_of(agreed_ranker(agreed, run)))
    measures = measures_from_record(_answer(run, MessageType.EVALUATE, asked).content, names=NAMES)
    for answer in (update, measures):
        assert is_reply_signed_by(KEY.public, answer, sender=NODE)
        assert not is_reply_signed_by(KEY.public, answer, sender=NODE + 1)


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
def test_repeated_instruction_is_answered_with_equal_bytes_signature_included(run: Path, kind: str) -> None:
    first, again = (
        recorddict_to_proto(_answer(run, kind, _asked(run)).content).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == again
    assert len(first) > 128


def test_client_of_a_simulation_has_no_key(run: Path) -> None:
    assert load_merchant(run, 0).reply_key is None
    assert _merchant(run, KEY).reply_key is KEY


def test_arrays_are_signed_in_the_schemas_order_whatever_the_merchants() -> None:
    class Turned(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            answer = super().train_round(instruction)
            return answer._replace(arrays=dict(reversed(answer.arrays.items())))

    merchant = Turned(0)
    merchant.reply_key = KEY
    reply = client_app(lambda _: merchant)(message_to(NODE), context_of(0))
    answer = update_from_record(reply.content, schema=merchant.schema)
    assert is_reply_signed_by(KEY.public, answer, sender=NODE)
    assert not is_reply_signed_by(KEY.public, replace(answer, ledger_head="d" * 64), sender=NODE)


def test_the_signing_key_itself_never_leaves(run: Path) -> None:
    secret = bytes([3]) * 32
    assert SigningKey(Ed25519PrivateKey.from_private_bytes(secret)).public == KEY.public
    reply = _answer(run, MessageType.TRAIN, _asked(run))
    assert secret not in reply.deflate()
    assert secret.hex().encode() not in reply.deflate()
