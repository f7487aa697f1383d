"""How much one address, and everybody together, may have at once and per second.

All state is bounded: an attacker with many addresses makes the gateway forget old ones, never grow.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

_MAX_ADDRESSES = 10_000
_NETWORK_BITS = 64  # of an IPv6 address; the rest is the client's to choose


def client_of(peer: tuple[str, int] | None) -> str:
    """Whom an address stands for: itself, its IPv4 part, or its IPv6 network of 64 bits."""
    if peer is None:
        return "unknown"
    address = ip_address(peer[0].partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"
    return str(address)


class TokenBuckets:
    """A bucket per client: ``burst`` at once, then ``rate_per_s``."""

    def __init__(
        self, *, rate_per_s: float, burst: int, clock: Callable[[], float], max_clients: int = _MAX_ADDRESSES
    ) -> None:
        self._rate_per_s, self._burst, self._clock, self._max_clients = rate_per_s, burst, clock, max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def wait_s(self, client: str) -> int:
        """Take one token and return 0, or return the whole seconds until there is one."""
        now = self._clock()
        tokens, counted = self._buckets.pop(client, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - counted) * self._rate_per_s)
        has_one = tokens >= 1
        self._buckets[client] = (tokens - has_one, now)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return 0 if has_one else math.ceil((1 - tokens) / self._rate_per_s)


class Slots:
    """A number of places for all, of which one client may hold only some."""

    def __init__(self, *, total: int, per_client: int) -> None:
        self._total, self._per_client = total, per_client
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Places taken now."""
        return self._held.total()

    def is_full(self) -> bool:
        """Whether nobody can get a place."""
        return self.held >= self._total

    def is_full_for(self, client: str) -> bool:
        """Whether this client holds all that it may."""
        return self._held[client] >= self._per_client

    def take(self, client: str) -> bool:
        """Take a place; false, and nothing taken, when there is none for this client."""
        if self.is_full() or self.is_full_for(client):
            return False
        self._held[client] += 1
        return True

    def give_back(self, client: str) -> None:
        """Give back a place that was taken."""
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
