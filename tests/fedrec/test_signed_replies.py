"""The signature under a reply covers everything in it, and whose it is."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedrec.signed import arrays_digest, is_reply_signed_by, reply_bytes, sign_reply
from fedrec.signing import Purpose
from fedrec.wire import Update, update_from_record, update_to_record
from fedrec.wire_metrics import Measures, measures_from_record, measures_to_record
from fedrec.wire_statistics import Statistics, statistics_from_record, statistics_to_record
from tests.tiny_federation import BASE, HEAD, PLAN, SCHEMA, SERVER, arrays, reply_key, update

KEY = reply_key(0)
VALUES = {"ndcg@10": 0.1, "hr@10": -0.25}
MEASURES = Measures("run-1", 3, BASE, PLAN, ledger_head=HEAD, values=VALUES)
COUNTS = Statistics("run-1", 3, BASE, PLAN, ledger_head=HEAD, arrays=arrays(0.25))


def test_signed_bytes_by_hand() -> None:
    by_hand = (
        '{{"agreement_digest":"{}","base_digest":"{}","content_digest":"{}","kind":"{}","ledger_head":"{}",'
        '"round_index":3,"run_id":"run-1","sender":7}}'
    )
    trained = by_hand.format(PLAN, BASE, arrays_digest(arrays(0.25)), "train", HEAD)
    assert reply_bytes(update(), sender=7) == trained.encode()
    numbers = hashlib.sha256(b'{"hr@10":-0.25,"ndcg@10":0.1}').hexdigest()
    assert reply_bytes(MEASURES, sender=7) == by_hand.format(PLAN, BASE, numbers, "evaluate", HEAD).encode()
    counted = by_hand.format(PLAN, BASE, arrays_digest(arrays(0.25)), "query", HEAD)
    assert reply_bytes(COUNTS, sender=7) == counted.encode()


def _updates() -> dict[str, Update]:
    """A signed update, one thing changed at a time."""
    answer = sign_reply(update(), sender=7, key=KEY)
    nudged = arrays(0.25)
    nudged["norm.weight"][3] = np.nextafter(np.float32(0.25), np.float32(1))
    return {"nothing": answer, "one float": replace(answer, arrays=nudged)} | _changed(answer)


def _measures() -> dict[str, Measures]:
    answer = sign_reply(MEASURES, sender=7, key=KEY)
    nudged = VALUES | {"hr@10": float(np.nextafter(-0.25, 1))}
    return {"nothing": answer, "one float": replace(answer, values=nudged)} | _changed(answer)


def _counts() -> dict[str, Statistics]:
    answer = sign_reply(COUNTS, sender=7, key=KEY)
    nudged = arrays(0.25)
    nudged["norm.weight"][3] = np.nextafter(np.float32(0.25), np.float32(1))
    return {"nothing": answer, "one float": replace(answer, arrays=nudged)} | _changed(answer)


def _changed(answer: Any) -> dict[str, Any]:
    changes = {
        "run": {"run_id": "run-2"},
        "round": {"round_index": 4},
        "base": {"base_digest": "c" * 64},
        "plan": {"agreement_digest": "c" * 64},
        "ledger": {"ledger_head": "d" * 64},
        "signature": {"signature": "0" * 128},
        "no signature": {"signature": ""},
    }
    return {name: replace(answer, **change) for name, change in changes.items()}


@pytest.mark.parametrize("what", _updates())
def test_signature_holds_for_exactly_what_was_signed(what: str) -> None:
    for answer in (_updates()[what], _measures()[what], _counts()[what]):
        assert is_reply_signed_by(KEY.public, answer, sender=7) == (what == "nothing")


def test_signature_of_another_client_or_for_another_node_is_none() -> None:
    answer = sign_reply(update(), sender=7, key=KEY)
    assert not is_reply_signed_by(reply_key(1).public, answer, sender=7)
    assert not is_reply_signed_by(KEY.public, answer, sender=8)


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.REPLY])
def test_signature_for_another_purpose_is_none(purpose: Purpose) -> None:
    signature = SERVER.sign(reply_bytes(update(), sender=7), purpose=purpose)
    assert not is_reply_signed_by(SERVER.public, update(signature=signature), sender=7)


def test_an_update_that_spells_measures_is_signed_as_an_update() -> None:
    """What was signed as one kind of answer is never valid as the other, whatever its numbers."""
    same = {"hr@10": np.float32(0.5), "ndcg@10": np.float32(0.5)}
    trained = sign_reply(Update("run-1", 3, BASE, PLAN, ledger_head=HEAD, arrays=same), sender=7, key=KEY)
    numbers = {name: float(value) for name, value in same.items()}
    measured = Measures("run-1", 3, BASE, PLAN, ledger_head=HEAD, values=numbers, signature=trained.signature)
    assert not is_reply_signed_by(KEY.public, measured, sender=7)


def test_counts_with_the_arrays_of_an_update_are_signed_as_counts() -> None:
    trained = sign_reply(update(), sender=7, key=KEY)
    assert not is_reply_signed_by(KEY.public, replace(COUNTS, signature=trained.signature), sender=7)


def test_signatures_hold_after_the_wire() -> None:
    there = update_from_record(update_to_record(sign_reply(update(), sender=7, key=KEY)), schema=SCHEMA)
    assert is_reply_signed_by(KEY.public, there, sender=7)
    counts = statistics_from_record(statistics_to_record(sign_reply(COUNTS, sender=7, key=KEY)), schema=SCHEMA)
    assert is_reply_signed_by(KEY.public, counts, sender=7)
    odd = replace(MEASURES, values={"ndcg@10": 0.1 + 0.2, "hr@10": -0.0})
    record = measures_to_record(sign_reply(odd, sender=7, key=KEY), names=("ndcg@10", "hr@10"))
    assert is_reply_signed_by(KEY.public, measures_from_record(record, names=("ndcg@10", "hr@10")), sender=7)


def test_signing_the_same_twice_gives_the_same_bytes() -> None:
    assert sign_reply(update(), sender=7, key=KEY).signature == sign_reply(update(), sender=7, key=KEY).signature
    assert json.loads(reply_bytes(update(), sender=7)).keys() == json.loads(reply_bytes(MEASURES, sender=7)).keys()
