"""A server's receipt goes to one client, whole or not at all."""

from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord

from fedrec.errors import WireError
from fedrec.wire import Receipt, instruction_from_record, instruction_to_record
from fedrec.wire_arrays import array_record
from tests.tiny_federation import HEAD, SCHEMA, instruction, signed

RECEIPT = Receipt(HEAD, "d" * 128)


def test_each_client_gets_its_own_receipt_and_the_same_arrays() -> None:
    asked, encoded = signed(), array_record(instruction().adapter)
    without, sent = (
        instruction_to_record(replace(asked, receipt=receipt), encoded=encoded) for receipt in (None, RECEIPT)
    )
    assert instruction_from_record(sent, schema=SCHEMA).receipt == RECEIPT
    assert instruction_from_record(without, schema=SCHEMA).receipt is None
    assert sent["adapter"] is without["adapter"] is encoded
    assert dict(sent["header"]) == dict(without["header"]) | {"receipt_head": HEAD, "receipt_signature": "d" * 128}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"receipt_head": HEAD}, "header receipt_signature: expected 128 lower-case hex digits"),
        ({"receipt_head": HEAD, "receipt_signature": "d" * 127}, "header receipt_signature: expected 128"),
        ({"receipt_signature": "d" * 128}, "header receipt_head: expected 64 lower-case hex digits"),
        ({"receipt_head": 5, "receipt_signature": 5}, "header receipt_signature: expected 128"),
    ],
)
def test_half_a_receipt_is_refused(changes: dict[str, Any], said: str) -> None:
    record = instruction_to_record(signed())
    record["header"] = ConfigRecord(dict(record["header"]) | changes)
    with pytest.raises(WireError, match=said):
        instruction_from_record(record, schema=SCHEMA)
