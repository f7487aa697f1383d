"""What a client answers when it was asked for statistics: beside those of ``fedrec.wire`` and ``fedrec.wire_metrics``.

The server sends the same ``Instruction`` as for training; the answer is two records, ``header`` and ``statistics``:
the arrays that both sides agreed on, and no other.
"""

from dataclasses import dataclass

from flwr.app import ArrayRecord, RecordDict

from fedrec.schema import AdapterSchema, Arrays
from fedrec.wire import (
    HEADER,
    REPLY_ENDS,
    REPLY_KEYS,
    checked_ends,
    checked_header,
    header_record,
    open_message,
)
from fedrec.wire_arrays import array_record, read_arrays

STATISTICS = "statistics"


@dataclass(frozen=True, eq=False)
class Statistics:
    """A client's answer to an instruction to count.

    Attributes:
        run_id, round_index, base_digest, agreement_digest: the header it answers to.
        ledger_head: keyed hash of the ledger's entry for this release, 64 hex digits; tells nothing without the key.
        arrays: noised counts over the expected people, by block, float32.
        signature: as of ``fedrec.wire.Update``.
    """

    run_id: str
    round_index: int
    base_digest: str
    agreement_digest: str
    ledger_head: str
    arrays: Arrays
    signature: str = ""


def statistics_to_record(statistics: Statistics) -> RecordDict:
    """Pack ``statistics``; raises ``WireError`` when a field is out of range or an array not finite."""
    header = header_record(statistics, dict(zip(REPLY_ENDS, checked_ends(vars(statistics)), strict=True)))
    return RecordDict({HEADER: header, STATISTICS: array_record(statistics.arrays)})


def statistics_from_record(record: RecordDict, *, schema: AdapterSchema) -> Statistics:
    """Unpack what a client sent; raises ``WireError`` exactly as ``fedrec.wire.update_from_record`` does."""
    header, arrays = open_message(record, STATISTICS, REPLY_KEYS, kind=ArrayRecord)
    head, signature = checked_ends(header)
    counted = read_arrays(arrays, schema)
    return Statistics(*checked_header(header), ledger_head=head, arrays=counted, signature=signature)
