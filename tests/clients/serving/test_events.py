"""What cannot be an event is refused by its field, and what it held is not repeated."""

import math

import pytest

from clients.serving.events import MAX_AHEAD_S, MAX_ID_BYTES, MAX_KIND_BYTES, MAX_QUERY_BYTES, Event, check_event
from fedrec.errors import DataError
from tests.clients.serving.shops import NOON, view


def test_an_event_at_every_bound_is_taken() -> None:
    longest = Event(
        "é" * (MAX_ID_BYTES // 2),
        "i" * MAX_ID_BYTES,
        NOON + MAX_AHEAD_S,
        "k" * MAX_KIND_BYTES,
        "q" * MAX_QUERY_BYTES,
        "e" * MAX_ID_BYTES,
    )
    assert check_event(longest, now=NOON) == longest
    assert check_event(view("u", "a", 0), now=NOON) == view("u", "a", 0)


def test_a_time_between_two_seconds_is_rounded_down() -> None:
    assert check_event(view("u", "a", 9.99), now=NOON) == view("u", "a", 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": ""}, "^user_id: expected text that is not blank$"),
        ({"user_id": " \t"}, "^user_id: expected text that is not blank$"),
        ({"user_id": 7}, "^user_id: expected text that is not blank$"),
        ({"user_id": "é" * 129}, "^user_id: 258 bytes; expected at most 256$"),
        ({"item_id": None}, "^item_id: expected text that is not blank$"),
        ({"item_id": "i" * 257}, "^item_id: 257 bytes; expected at most 256$"),
        ({"item_id": "secret\n"}, "^item_id: holds control characters or broken Unicode$"),
        ({"item_id": "secret\x00"}, "^item_id: holds control characters or broken Unicode$"),
        ({"item_id": "secret\ud800"}, "^item_id: holds control characters or broken Unicode$"),
        ({"kind": ""}, "^kind: expected text that is not blank$"),
        ({"kind": "k" * 33}, "^kind: 33 bytes; expected at most 32$"),
        ({"query": " "}, "^query: expected text that is not blank$"),
        ({"query": "q" * 1_025}, "^query: 1025 bytes; expected at most 1024$"),
        ({"event_id": ""}, "^event_id: expected text that is not blank$"),
        ({"event_id": "e" * 257}, "^event_id: 257 bytes; expected at most 256$"),
        ({"timestamp": -1}, "^timestamp: expected seconds since 1970, a finite number >= 0$"),
        ({"timestamp": math.nan}, "^timestamp: expected seconds since 1970, a finite number >= 0$"),
        ({"timestamp": math.inf}, "^timestamp: expected seconds since 1970, a finite number >= 0$"),
        ({"timestamp": "7"}, "^timestamp: expected seconds since 1970, a finite number >= 0$"),
        ({"timestamp": True}, "^timestamp: expected seconds since 1970, a finite number >= 0$"),
        ({"timestamp": NOON + MAX_AHEAD_S + 1}, "^timestamp: more than a day ahead .* not milliseconds$"),
        ({"timestamp": 10**400}, "^timestamp: more than a day ahead .* not milliseconds$"),
        ({"timestamp": 1e300}, "^timestamp: more than a day ahead .* not milliseconds$"),
    ],
)
def test_what_is_no_event_is_refused_by_its_field(changes: dict[str, object], message: str) -> None:
    fields = {"user_id": "u", "item_id": "a", "timestamp": 1, "kind": "view"} | changes
    with pytest.raises(DataError, match=message):
        check_event(Event(**fields), now=NOON)
