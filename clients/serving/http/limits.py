"""How much one token may ask: a bucket for the moment, a budget for the day. Forgotten when the service ends."""

import math
from collections.abc import Callable

DAY_S = 86_400.0


class Allowances:
    """What each holder of a token has left. One thread alone may use it."""

    def __init__(self, *, requests_per_s: float, burst: int, queries_per_day: int, clock: Callable[[], float]) -> None:
        """``clock``: seconds, never backwards."""
        self._rate, self._burst, self._queries, self._clock = requests_per_s, burst, queries_per_day, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what is in it, and when that was counted
        self._days: dict[str, tuple[float, int]] = {}  # since when, and queries since

    def wait_s(self, name: str) -> int:
        """Take a request out of the bucket and return 0, or return the whole seconds until there is one."""
        now = self._clock()
        left, counted = self._buckets.get(name, (float(self._burst), now))
        left = min(float(self._burst), left + (now - counted) * self._rate)
        self._buckets[name] = (left - 1 if left >= 1 else left), now
        return 0 if left >= 1 else math.ceil((1 - left) / self._rate)

    def budget_wait_s(self, name: str) -> int:
        """Take a query out of the day's budget and return 0, or return the whole seconds until the next day's."""
        now = self._clock()
        since, spent = self._days.get(name, (now, 0))
        if now - since >= DAY_S:
            since, spent = now, 0
        has_one = spent < self._queries
        self._days[name] = since, spent + has_one
        return 0 if has_one else math.ceil(since + DAY_S - now)
