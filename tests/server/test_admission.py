"""Each reply is judged alone; whatever a client sends, the verdict is arrays or one word."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedrec.errors import ConfigError
from fedrec.wire import RefusalCode, refusal_to_error, update_to_record
from server.admission import CROWD, TAIL, Admitted, NormBounds, Quarantined, admit, norm_bounds
from tests.tiny_federation import SCHEMA, arrays, instruction, message_to, reply_from, update


def _verdict(message: Message, **changes: Any) -> Admitted | Quarantined:
    settings: dict[str, Any] = {
        "asked": {5: None, 6: None},
        "seen": set(),
        "instruction": instruction(),
        "schema": SCHEMA,
        "bounds": NormBounds(0.0, 100.0),
    }
    return admit(message, **(settings | changes))


def _reply_with(record: RecordDict) -> Message:
    return Message(record, reply_to=message_to(5))


def test_proper_reply_is_admitted_with_its_sender_and_arrays() -> None:
    verdict = _verdict(reply_from(5))
    assert isinstance(verdict, Admitted)
    assert verdict.sender == 5
    assert list(verdict.arrays) == [spec.name for spec in SCHEMA]


def test_sender_must_have_been_asked_and_counts_once() -> None:
    assert _verdict(reply_from(7)) == Quarantined("not-asked")
    assert _verdict(reply_from(5), seen={5}) == Quarantined("twice")


@pytest.mark.parametrize(
    "changes",
    [{"run_id": "run-2"}, {"round_index": 2}, {"base_digest": "c" * 64}, {"agreement_digest": "c" * 64}],
)
def test_header_must_come_back_unchanged(changes: dict[str, Any]) -> None:
    assert _verdict(reply_from(5, update(**changes))) == Quarantined("other-round")


def test_refusal_is_named_and_foreign_errors_are_not_quoted() -> None:
    refused = Message(refusal_to_error(RefusalCode.BUDGET), reply_to=message_to(5))
    assert _verdict(refused) == Quarantined("E_BUDGET")
    foreign = Message(Error(code=2, reason="user 123 bought X"), reply_to=message_to(5))
    assert _verdict(foreign) == Quarantined("failed")


def _with_array(array: Array) -> RecordDict:
    record = update_to_record(update())
    record["update"]["norm.weight"] = array
    return record


def _with_record(key: str, value: Any) -> RecordDict:
    record = update_to_record(update())
    record[key] = value
    return record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_with_array(Array(np.array([1, np.nan, 1, 1], np.float32))), "not-finite"),
        (_with_array(Array(np.array([1, np.inf, 1, 1], np.float32))), "not-finite"),
        (_with_array(Array(np.full(4, 1e30, np.float32))), "too-long"),
        (_with_array(Array(np.full(4, 3e38, np.float32))), "too-long"),
        (_with_array(Array(np.zeros((2, 2), np.float32))), "malformed"),
        (_with_array(Array(np.zeros(4))), "malformed"),
        (_with_array(Array("float32", (4,), "numpy.ndarray", b"PK\x03\x04")), "malformed"),
        (_with_record("metrics", MetricRecord({"loss": 1.0})), "malformed"),
        (_with_record("update", ArrayRecord({"extra": Array(np.zeros(1))})), "malformed"),
        (_with_record("header", ConfigRecord({})), "malformed"),
        (RecordDict(), "malformed"),
    ],
)
def test_malformed_reply_is_one_word(record: RecordDict, reason: str) -> None:
    assert _verdict(_reply_with(record)) == Quarantined(reason)


def test_reply_that_holds_neither_content_nor_error_is_malformed() -> None:
    message = reply_from(5)
    message.__dict__["_content"] = None
    assert _verdict(message) == Quarantined("malformed")


def test_norm_is_checked_against_both_bounds() -> None:
    length = 0.25 * math.sqrt(11)  # eleven parameters of 0.25
    assert isinstance(_verdict(reply_from(5), bounds=NormBounds(length - 1e-6, length + 1e-6)), Admitted)
    assert _verdict(reply_from(5), bounds=NormBounds(0.0, length - 1e-6)) == Quarantined("too-long")
    assert _verdict(reply_from(5), bounds=NormBounds(length + 1e-6, 100.0)) == Quarantined("too-short")


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.one_of(
            st.integers(-(2**62), 2**62), st.floats(), st.booleans(), st.text(max_size=80), st.binary(max_size=80)
        ),
        max_size=6,
    ),
    st.dictionaries(st.text(max_size=12), st.binary(max_size=200), max_size=4),
)
def test_no_reply_whatever_it_holds_raises(header: dict[str, Any], payload: dict[str, bytes]) -> None:
    record = RecordDict(
        {
            "header": ConfigRecord(header),
            "update": ArrayRecord({k: Array("float32", (4,), "numpy.ndarray", v) for k, v in payload.items()}),
        }
    )
    assert _verdict(_reply_with(record)) == Quarantined("malformed")


@dataclass(frozen=True)
class Plan:
    """The default run at epsilon 8: 50 clients of about 75 people."""

    clip_norm: float = 1.0
    noise_multiplier: float = 1.13
    sampling_rate: float = 0.25
    normaliser: float = 0.25 * 75
    local_steps: int = 1
    trust: str = "local"


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_where_only_the_sum_is_noised_no_norm_of_one_update_decides_anything(trust: str) -> None:
    assert norm_bounds(Plan(trust=trust), 400) == NormBounds(0.0, math.inf)


def test_bounds_worked_by_hand() -> None:
    for steps in (1, 4):
        bounds = norm_bounds(Plan(local_steps=steps), 400)
        deviation = 1.13 / 18.75
        assert bounds.floor == pytest.approx(deviation * math.sqrt(400 - 2 * math.sqrt(400 * TAIL)))
        longest = math.sqrt(400 + 2 * math.sqrt(400 * TAIL) + 2 * TAIL)
        assert bounds.ceiling == pytest.approx(steps * CROWD / 0.25 + math.sqrt(steps) * deviation * longest)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("parameters", [30, 300, 10_000])
def test_honest_updates_fall_inside_and_noiseless_ones_below(steps: int, parameters: int) -> None:
    plan, rng = Plan(local_steps=steps), np.random.default_rng(0)
    bounds = norm_bounds(plan, parameters)
    deviation = plan.noise_multiplier * plan.clip_norm / plan.normaliser
    for people in (0, 19, 75):
        direction = rng.normal(size=parameters)
        signal = people * plan.clip_norm / plan.normaliser * direction / np.linalg.norm(direction)
        for _ in range(20):
            noise = deviation * rng.normal(size=(steps, parameters)).sum(axis=0)
            assert bounds.floor <= np.linalg.norm(steps * signal + noise) <= bounds.ceiling


def test_client_that_halves_its_noise_is_too_short_when_its_signal_is_small() -> None:
    bounds = norm_bounds(Plan(), 10_000)
    deviation = 1.13 / 18.75
    noise = np.random.default_rng(0).normal(size=10_000)
    assert np.linalg.norm(deviation * noise) > bounds.floor
    assert np.linalg.norm(deviation / 2 * noise) < bounds.floor


def test_floor_is_zero_without_noise_and_with_few_parameters() -> None:
    assert norm_bounds(replace(Plan(), noise_multiplier=0.0), 10_000).floor == 0
    assert norm_bounds(Plan(), 50).floor == 0


@pytest.mark.parametrize(("normaliser", "parameters"), [(0.0, 10), (-1.0, 10), (1.0, 0)])
def test_bounds_need_positive_numbers(normaliser: float, parameters: int) -> None:
    with pytest.raises(ConfigError, match=rf"parameters={parameters}, normaliser={normaliser}: expected both > 0"):
        norm_bounds(Plan(normaliser=normaliser), parameters)


def test_arrays_of_an_admitted_reply_are_the_ones_sent() -> None:
    verdict = _verdict(reply_from(6, update(arrays=arrays(-0.5))))
    assert isinstance(verdict, Admitted)
    assert all((values == -0.5).all() for values in verdict.arrays.values())
