"""What a client answers when it was asked to measure: the one message beside those of ``fedrec.wire``.

The server sends the same ``Instruction`` as for training; the answer is two records, ``header`` and ``metrics``: one
float for each metric that both sides agreed on, and no other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import MetricRecord, RecordDict

from fedrec.errors import WireError
from fedrec.wire import (
    HEADER,
    REPLY_ENDS,
    REPLY_KEYS,
    checked_ends,
    checked_header,
    header_record,
    open_message,
)
from fedrec.wire_arrays import NotFiniteError

METRICS = "metrics"


@dataclass(frozen=True)
class Measures:
    """A client's answer to an instruction to measure.

    Attributes:
        run_id, round_index, base_digest, agreement_digest: the header it answers to.
        ledger_head: keyed hash of the ledger's entry for this release, 64 hex digits; tells nothing without the key.
        values: noised metrics by name.
        signature: as of ``fedrec.wire.Update``.
    """

    run_id: str
    round_index: int
    base_digest: str
    agreement_digest: str
    ledger_head: str
    values: Mapping[str, float]
    signature: str = ""


def measures_to_record(measures: Measures, *, names: Sequence[str]) -> RecordDict:
    """Pack ``measures`` in the order of ``names``.

    Raises:
        WireError: a field out of range, other names than ``names``, or a number that is not finite.
    """
    header = header_record(measures, dict(zip(REPLY_ENDS, checked_ends(vars(measures)), strict=True)))
    return RecordDict({HEADER: header, METRICS: MetricRecord({**_checked(measures.values, names)})})


def measures_from_record(record: RecordDict, *, names: Sequence[str]) -> Measures:
    """Unpack what a client sent.

    Args:
        names: the metrics that were agreed on.

    Raises:
        WireError: anything but the exact keys and types, and finite numbers.
    """
    header, metrics = open_message(record, METRICS, REPLY_KEYS, kind=MetricRecord)
    head, signature = checked_ends(header)
    return Measures(*checked_header(header), ledger_head=head, values=_checked(metrics, names), signature=signature)


def _checked(values: Mapping[str, object], names: Sequence[str]) -> dict[str, float]:
    """Exactly these names, each a finite float; never a list, which would have room for more."""
    if set(values) != set(names):
        raise WireError(f"metrics: expected exactly {', '.join(names)}")
    checked = {}
    for name in names:
        value = values[name]
        if type(value) is not float:
            raise WireError(f"metric {name}: expected one floating-point number")
        if not math.isfinite(value):
            raise NotFiniteError(f"metric {name}: expected a finite number")
        checked[name] = value
    return checked
