"""Exactly the agreed arrays of counts cross, under the common header, and no other kind of answer passes for them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedrec.errors import WireError
from fedrec.schema import ArraySpec
from fedrec.wire import update_from_record, update_to_record
from fedrec.wire_arrays import NotFiniteError
from fedrec.wire_statistics import Statistics, statistics_from_record, statistics_to_record
from tests.tiny_federation import BASE, HEAD, PLAN, update

SCHEMA = (ArraySpec("popularity", (3,)), ArraySpec("pairs", (5,)))
ARRAYS = {spec.name: np.arange(spec.shape[0], dtype=np.float32) - 0.5 for spec in SCHEMA}
HEADER = {
    "version": 4,
    "run_id": "run-1",
    "round_index": 3,
    "base_digest": BASE,
    "agreement_digest": PLAN,
    "ledger_head": HEAD,
    "signature": "",
}


def statistics(**changes: Any) -> Statistics:
    return replace(Statistics("run-1", 3, BASE, PLAN, ledger_head=HEAD, arrays=ARRAYS), **changes)


def _record(**changes: Any) -> RecordDict:
    record = statistics_to_record(statistics())
    for key, part in changes.items():
        record[key] = part
    return record


def test_golden_message_holds_these_keys_and_no_other() -> None:
    record = statistics_to_record(statistics())
    assert set(record) == {"header", "statistics"}
    assert dict(record["header"]) == HEADER
    assert list(record["statistics"]) == ["popularity", "pairs"]


def test_message_comes_back_as_it_went() -> None:
    back = statistics_from_record(statistics_to_record(statistics()), schema=SCHEMA)
    assert {name: value for name, value in vars(back).items() if name != "arrays"} == {
        name: value for name, value in vars(statistics()).items() if name != "arrays"
    }
    assert {name: values.tobytes() for name, values in back.arrays.items()} == {
        name: values.tobytes() for name, values in ARRAYS.items()
    }


def test_an_update_of_the_same_arrays_is_no_answer_to_counting_nor_the_other_way_round() -> None:
    with pytest.raises(WireError, match="message: expected exactly the records header and statistics"):
        statistics_from_record(update_to_record(update(arrays=ARRAYS)), schema=SCHEMA)
    with pytest.raises(WireError, match="message: expected exactly the records header and update"):
        update_from_record(statistics_to_record(statistics()), schema=SCHEMA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": ConfigRecord()}, "message: expected exactly the records header and statistics"),
        (
            {"statistics": ConfigRecord({"pairs": 0.1})},
            "expected header to hold settings and statistics to",
        ),
        ({"statistics": ArrayRecord({"pairs": Array(ARRAYS["pairs"])})}, "expected exactly the 2 names of the agreed"),
        ({"header": ConfigRecord(HEADER | {"people": 80})}, "header: expected exactly the fields version, run_id"),
        ({"header": ConfigRecord(HEADER | {"round_index": 0})}, "header round_index: expected a whole number"),
    ],
)
def test_any_other_structure_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=message):
        statistics_from_record(_record(**changes), schema=SCHEMA)


def test_counts_over_another_catalogue_or_other_pairs_are_refused() -> None:
    longer = ARRAYS | {"pairs": np.zeros(6, np.float32)}
    with pytest.raises(WireError, match=r"array pairs: expected float32 of shape \(5,\)"):
        statistics_from_record(statistics_to_record(statistics(arrays=longer)), schema=SCHEMA)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_counts_that_are_not_finite_are_not_sent(value: float) -> None:
    with pytest.raises(NotFiniteError, match="array pairs: expected finite float32 numbers"):
        statistics_to_record(statistics(arrays=ARRAYS | {"pairs": np.full(5, value)}))


@pytest.mark.parametrize("changes", [{"run_id": "a b"}, {"round_index": 0}, {"ledger_head": "x"}, {"signature": "x"}])
def test_header_out_of_range_is_not_sent(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=f"header {next(iter(changes))}: expected"):
        statistics_to_record(statistics(**changes))
