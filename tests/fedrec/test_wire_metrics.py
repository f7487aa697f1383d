"""Exactly the agreed metrics cross, as finite numbers under the common header, and nothing else fits in."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import WireError
from fedrec.wire import payload_bytes
from fedrec.wire_arrays import NotFiniteError
from fedrec.wire_metrics import Measures, measures_from_record, measures_to_record
from tests.tiny_federation import BASE, HEAD, PLAN

NAMES = ("ndcg@10", "hr@10")
VALUES = {"ndcg@10": 0.25, "hr@10": -0.5}
HEADER = {
    "version": 4,
    "run_id": "run-1",
    "round_index": 3,
    "base_digest": BASE,
    "agreement_digest": PLAN,
    "ledger_head": HEAD,
    "signature": "",
}


def measures(**changes: Any) -> Measures:
    return replace(Measures("run-1", 3, BASE, PLAN, ledger_head=HEAD, values=VALUES), **changes)


def _record(**changes: Any) -> RecordDict:
    """A proper record with one of its two parts replaced."""
    record = measures_to_record(measures(), names=NAMES)
    for key, part in changes.items():
        record[key] = part
    return record


def test_golden_message_holds_these_keys_and_no_other() -> None:
    record = measures_to_record(measures(), names=NAMES)
    assert {key: dict(part) for key, part in record.items()} == {"header": HEADER, "metrics": VALUES}
    assert isinstance(record["header"], ConfigRecord)
    assert isinstance(record["metrics"], MetricRecord)


def test_message_comes_back_as_it_went() -> None:
    assert measures_from_record(measures_to_record(measures(), names=NAMES), names=NAMES) == measures()


def test_order_is_that_of_the_agreed_names_whoever_packs() -> None:
    turned = measures_to_record(measures(values=dict(reversed(VALUES.items()))), names=NAMES)
    assert list(turned["metrics"]) == list(NAMES)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_length_does_not_depend_on_the_numbers(first: float, second: float) -> None:
    record = measures_to_record(measures(values={"ndcg@10": first, "hr@10": second}), names=NAMES)
    plain = measures_to_record(measures(), names=NAMES)
    assert recorddict_to_proto(record).ByteSize() == recorddict_to_proto(plain).ByteSize()
    assert payload_bytes(record) == payload_bytes(plain)


@pytest.mark.parametrize(
    "values",
    [{}, {"ndcg@10": 0.1}, VALUES | {"people": 80.0}, {"ndcg@10": 0.1, "hr@20": 0.1}],
    ids=["none", "too few", "too many", "another"],
)
def test_other_metrics_than_agreed_are_neither_sent_nor_read(values: dict[str, float]) -> None:
    with pytest.raises(WireError, match=r"metrics: expected exactly ndcg@10, hr@10"):
        measures_to_record(measures(values=values), names=NAMES)
    with pytest.raises(WireError, match=r"metrics: expected exactly ndcg@10, hr@10"):
        measures_from_record(_record(metrics=MetricRecord(values)), names=NAMES)


@pytest.mark.parametrize("value", [1, [0.1], [0.1, 80.0]])
def test_a_metric_that_is_no_single_floating_point_number_is_refused(value: Any) -> None:
    wrong = VALUES | {"hr@10": value}
    with pytest.raises(WireError, match="metric hr@10: expected one floating-point number"):
        measures_to_record(measures(values=wrong), names=NAMES)
    with pytest.raises(WireError, match="metric hr@10: expected one floating-point number"):
        measures_from_record(_record(metrics=MetricRecord(wrong)), names=NAMES)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_neither_sent_nor_read(value: float) -> None:
    wrong = VALUES | {"hr@10": value}
    with pytest.raises(NotFiniteError, match="metric hr@10: expected a finite number"):
        measures_to_record(measures(values=wrong), names=NAMES)
    with pytest.raises(NotFiniteError, match="metric hr@10: expected a finite number"):
        measures_from_record(_record(metrics=MetricRecord(wrong)), names=NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": MetricRecord()}, "message: expected exactly the records header and metrics"),
        ({"metrics": ConfigRecord({"ndcg@10": 0.1})}, "expected header to hold settings and metrics to hold metrics"),
        ({"metrics": ArrayRecord({"a": Array(np.zeros(1))})}, "expected header to hold settings and metrics to hold"),
        ({"header": ConfigRecord(HEADER | {"people": 80})}, "header: expected exactly the fields version, run_id"),
        ({"header": ConfigRecord(HEADER | {"version": 1})}, "header version: expected 4"),
        ({"header": ConfigRecord(HEADER | {"run_id": "a b"})}, "header run_id: expected 1 to 128"),
        ({"header": ConfigRecord(HEADER | {"round_index": True})}, "header round_index: expected a whole number"),
        (
            {"header": ConfigRecord(HEADER | {"agreement_digest": "b"})},
            "header agreement_digest: expected 64 lower-case",
        ),
        ({"header": ConfigRecord(HEADER | {"ledger_head": ""})}, "header ledger_head: expected 64 lower-case"),
        ({"header": ConfigRecord(HEADER | {"signature": "d"})}, "header signature: expected 128 lower-case"),
    ],
)
def test_any_other_structure_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=message):
        measures_from_record(_record(**changes), names=NAMES)


@pytest.mark.parametrize("changes", [{"run_id": "a b"}, {"round_index": 0}, {"ledger_head": "x"}, {"signature": "x"}])
def test_header_out_of_range_is_not_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=f"header {next(iter(changes))}: expected"):
        measures_to_record(measures(**changes), names=NAMES)
