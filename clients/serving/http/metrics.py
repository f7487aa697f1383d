"""What can be counted of the service without counting anybody: no label is made of a person, a query or a token."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0, 5.0)


class ServiceMetrics:
    """Counters of one service; ``route`` is one of ours or ``other``."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("fedrec_serving_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.refused = Counter("fedrec_serving_refused", "Requests refused.", ["code"], registry=registry)
        self.seconds = Histogram(
            "fedrec_serving_seconds",
            "Seconds from the headers of a request to the end of its answer.",
            ["route"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.under_way = Gauge("fedrec_serving_under_way", "Requests under way.", registry=registry)
        self.swaps = Counter(
            "fedrec_serving_swaps", "Runs that were to be served: taken, or refused.", ["outcome"], registry=registry
        )

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
