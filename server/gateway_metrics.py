"""What the gateway counts, and the private port where an operator reads it. No address, no body and no key is in it."""

import httpx
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_HEALTH_TIMEOUT_S = 2.0


class GatewayMetrics:
    """Counters of one gateway; ``path`` is a published one or ``other``, so that nobody can make the page grow."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fedrec_gateway_requests", "Requests answered.", ["path", "status"], registry=self._registry
        )
        self.refused = Counter(
            "fedrec_gateway_refused", "Requests and connections refused.", ["reason"], registry=self._registry
        )
        self.bytes = Counter("fedrec_gateway_bytes", "Bytes of bodies.", ["direction"], registry=self._registry)
        self.connections = Gauge("fedrec_gateway_open_connections", "Open connections.", registry=self._registry)
        self.upstream_seconds = Histogram(
            "fedrec_gateway_upstream_seconds",
            "Seconds from the end of a request to the headers of SuperLink's answer.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self._registry,
        )

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


def private_app(metrics: GatewayMetrics, upstream: httpx.AsyncClient) -> Starlette:
    """``GET /health``, 200 while SuperLink answers and else 503, and ``GET /metrics``."""

    async def health(request: Request) -> Response:
        del request
        try:
            answer = await upstream.get("/health", timeout=_HEALTH_TIMEOUT_S)
            is_up = answer.is_success
        except httpx.HTTPError:
            is_up = False
        state = {"gateway": "ok", "upstream": "ok" if is_up else "unreachable"}
        return JSONResponse(state, status_code=200 if is_up else 503)

    async def numbers(request: Request) -> Response:
        del request
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/health", health), Route("/metrics", numbers)])
