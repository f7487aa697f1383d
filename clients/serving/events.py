"""One event in a shop, and the bounds within which it is believed."""

import math
import re
from dataclasses import dataclass, replace

from fedrec.errors import DataError

MAX_ID_BYTES = 256  # of a person's, an item's and an event's id, in UTF-8
MAX_KIND_BYTES = 32
MAX_QUERY_BYTES = 1_024
MAX_EVENTS = 1_000  # of one append; an import has no such bound
MAX_AHEAD_S = 86_400  # a clock may be wrong, or in another zone, by a day

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of characters


@dataclass(frozen=True, slots=True)
class Event:
    """Somebody did something with an item. Sensitive.

    Attributes:
        user_id: whoever it was.
        item_id: with which item.
        timestamp: seconds since 1970, or the position in the person's history where there is no clock.
        kind: ``view``, ``cart``, ``purchase``, or the shop's own word.
        query: what was searched for, where that led to the item.
        event_id: the caller's own number for it, so that an event sent twice counts once. Bytes are of an import.
    """

    user_id: str
    item_id: str
    timestamp: float
    kind: str
    query: str | None = None
    event_id: str | bytes | None = None


def check_event(event: Event, *, now: float) -> Event:
    """Refuse what cannot be an event; the time comes back in whole seconds, rounded down.

    Args:
        now: seconds since 1970.

    Raises:
        DataError: names the field and what was expected, never what it held.
    """
    check_id(event.user_id, field="user_id")
    check_id(event.item_id, field="item_id")
    _check_text(event.kind, field="kind", longest=MAX_KIND_BYTES)
    if event.query is not None:
        _check_text(event.query, field="query", longest=MAX_QUERY_BYTES)
    if event.event_id is not None and not isinstance(event.event_id, bytes):
        check_id(event.event_id, field="event_id")
    time = event.timestamp
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < math.inf:  # nor NaN
        raise DataError("timestamp: expected seconds since 1970, a finite number >= 0")
    if time > now + MAX_AHEAD_S:
        raise DataError("timestamp: more than a day ahead of this machine's clock; expected seconds, not milliseconds")
    return event if isinstance(time, int) else replace(event, timestamp=math.floor(time))


def check_id(text: str, *, field: str) -> None:
    """Refuse what cannot be an id.

    Raises:
        DataError: no text, blank, too long, or with control characters in it.
    """
    _check_text(text, field=field, longest=MAX_ID_BYTES)


def _check_text(text: str, *, field: str, longest: int) -> None:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{field}: expected text that is not blank")
    if _NO_TEXT.search(text):
        raise DataError(f"{field}: holds control characters or broken Unicode")
    if (size := len(text.encode())) > longest:
        raise DataError(f"{field}: {size} bytes; expected at most {longest}")
