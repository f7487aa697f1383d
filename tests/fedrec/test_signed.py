"""The signature under an instruction covers everything that shapes what a client does with it."""

import hashlib
import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedrec.signed import LIFETIME_S, SKEW_S, arrays_digest, instruction_bytes, is_signed_by, sign_instruction
from fedrec.signing import Purpose
from fedrec.wire import Address, Instruction, Receipt
from tests.tiny_federation import BASE, HEAD, PLAN, SERVER, arrays, instruction, signed

ADDRESS = Address("train", 5, 1_800_000_000)
RECEIPT = Receipt(HEAD, "d" * 128)


def test_signed_bytes_by_hand() -> None:
    asked = instruction(receipt=RECEIPT)
    assert (
        instruction_bytes(asked, ADDRESS, adapter_digest="e" * 64)
        == (
            f'{{"adapter_digest":"{"e" * 64}","agreement_digest":"{PLAN}","base_digest":"{BASE}",'
            f'"expires_at":1800000000,"kind":"train","receipt_head":"{HEAD}","recipient":5,"round_index":3,"run_id":"run-1"}}'
        ).encode()
    )
    assert json.loads(instruction_bytes(instruction(), ADDRESS, adapter_digest="e" * 64))["receipt_head"] == ""


def test_digest_of_arrays_by_hand() -> None:
    values = {"b": np.array([[1.0, 2.0]], np.float32), "a": np.array(0.5, np.float32)}
    by_hand = b'[["b", [1, 2]], ["a", []]]\n' + struct.pack("<3f", 1.0, 2.0, 0.5)
    assert arrays_digest(values) == hashlib.sha256(by_hand).hexdigest()


def test_digest_of_arrays_does_not_depend_on_their_layout_in_memory() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = arrays_digest({"a": rows})
    assert arrays_digest({"a": np.asfortranarray(rows)}) == expected
    assert arrays_digest({"a": np.repeat(rows, 2, axis=1)[:, ::2]}) == expected
    assert arrays_digest({"a": rows.astype(">f4")}) == expected


def test_digest_of_arrays_tells_names_shapes_order_and_every_bit() -> None:
    zeros = np.zeros((2, 3), np.float32)
    bit = zeros.copy()
    bit[1, 2] = np.nextafter(np.float32(0), np.float32(1))
    given = {"a": zeros, "b": zeros}
    others: list[dict[str, np.ndarray]] = [
        {"a": zeros, "c": zeros},
        {"b": zeros, "a": zeros},
        {"a": zeros.reshape(3, 2), "b": zeros},
        {"a": zeros.reshape(-1), "b": zeros},
        {"a": zeros},
        {"a": zeros, "b": bit},
        {"a": -zeros, "b": zeros},  # minus zero is another float
    ]
    digests = [arrays_digest(values) for values in (given, *others)]
    assert len(set(digests)) == len(digests)


def _changes() -> dict[str, Instruction]:
    """The signed instruction, one thing changed at a time."""
    asked = signed(instruction(receipt=RECEIPT), address=ADDRESS)

    def but(**changes: Any) -> Instruction:
        return replace(asked, **changes)

    nudged = arrays(0.5)
    nudged["norm.weight"][3] = np.nextafter(np.float32(0.5), np.float32(1))
    return {
        "nothing": asked,
        "run": but(run_id="run-2"),
        "round": but(round_index=4),
        "base": but(base_digest="c" * 64),
        "plan": but(agreement_digest="c" * 64),
        "one float": but(adapter=nudged),
        "receipt": but(receipt=Receipt("e" * 64, "d" * 128)),
        "no receipt": but(receipt=None),
        "kind": but(address=ADDRESS._replace(kind="evaluate")),
        "recipient": but(address=ADDRESS._replace(recipient=6)),
        "expiry": but(address=ADDRESS._replace(expires_at=1_800_000_001)),
        "no address": but(address=None),
        "signature": but(signature="0" * 128),
        "no signature": but(signature=""),
    }


@pytest.mark.parametrize("what", _changes())
def test_signature_holds_for_exactly_what_was_signed(what: str) -> None:
    assert is_signed_by(SERVER.public, _changes()[what]) == (what == "nothing")


@pytest.mark.parametrize("public", ["", "0" * 64, "not a key", SERVER.public[:-1]])
def test_no_other_key_signed_it(public: str) -> None:
    assert not is_signed_by(public, signed())


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.INSTRUCTION])
def test_signature_for_another_purpose_is_none(purpose: Purpose) -> None:
    message = instruction_bytes(instruction(), ADDRESS, adapter_digest=arrays_digest(arrays(0.5)))
    asked = instruction(address=ADDRESS, signature=SERVER.sign(message, purpose=purpose))
    assert not is_signed_by(SERVER.public, asked)


def test_signing_shares_the_adapter_and_believes_the_digest_it_is_given() -> None:
    """The server digests once a round; a wrong digest shows at the client."""
    asked = instruction()
    wrong = sign_instruction(asked, ADDRESS, key=SERVER, adapter_digest="0" * 64)
    assert wrong.adapter is asked.adapter
    assert not is_signed_by(SERVER.public, wrong)


def test_an_instruction_lives_an_hour_and_clocks_may_differ_by_five_minutes() -> None:
    assert (LIFETIME_S, SKEW_S) == (3600, 300)
