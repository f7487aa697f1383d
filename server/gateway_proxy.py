"""One request through the gateway: is it published, is there room, then byte for byte to SuperLink and back.

Bodies are streams in both directions and are never held, looked into or logged. After a refusal the rest of a body is
read and dropped for ten seconds, because a client that is cut off while it sends would never see the answer, and a
SuperNode would try again for ever; then the connection is closed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
from starlette.types import Message, Receive, Scope, Send

from server.gateway_limits import Slots, TokenBuckets, client_of
from server.gateway_metrics import GatewayMetrics
from server.gateway_settings import FLEET_PATHS, GatewaySettings

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# The upstream believes what comes from 127.0.0.1, and all that we send does.
_CLAIMS = frozenset((b"forwarded", b"x-real-ip", b"host", b"expect", b"content-length"))
_CLAIMED_PREFIX = b"x-forwarded-"
_UPSTREAM_OWN = frozenset((b"server", b"date"))
_REASONS = {  # the only text of ours that leaves
    "not published": 403,
    "too slow": 408,
    "too large": 413,
    "headers too large": 431,
    "rate": 429,
    "upstream": 502,
    "busy": 503,
    "address busy": 503,
    "upstream too slow": 504,
}
_RETRY_S = 1
_DROP_S = 10.0


class Refused(Exception):  # noqa: N818  # it is an answer, not a fault
    """This request is answered by the gateway alone; ``reason`` is one of a few fixed words."""

    def __init__(self, reason: str, *, retry_s: int = 0) -> None:
        """``retry_s``: when it may be tried again, 0 to say nothing."""
        super().__init__(reason)
        self.reason, self.status, self.retry_s = reason, _REASONS[reason], retry_s


class Gone(Exception):  # noqa: N818
    """The client has hung up: there is nobody to answer."""


class FleetProxy:
    """The ASGI application on the public port."""

    def __init__(self, settings: GatewaySettings, *, upstream: httpx.AsyncClient, metrics: GatewayMetrics) -> None:
        self._settings, self._upstream, self._metrics = settings, upstream, metrics
        self._buckets = TokenBuckets(rate_per_s=settings.requests_per_s, burst=settings.burst, clock=time.monotonic)
        self._slots = Slots(total=settings.max_requests, per_client=settings.max_requests_per_address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        path = scope["raw_path"].decode("latin-1")
        path = path if path in FLEET_PATHS else "other"
        body = RequestBody(receive, settings=self._settings)
        answer = Answer(send)
        try:
            await self._answer(scope, path, body, answer)
        except Refused as refusal:
            self._metrics.refused.labels(refusal.reason).inc()
            if not answer.status:
                await answer.refuse(refusal, body)
            else:  # too late for words: half an answer must not be taken for a whole one
                await _cut(scope, receive)
        except Gone:
            self._metrics.refused.labels("client gone").inc()
        self._metrics.requests.labels(path, str(answer.status or "none")).inc()
        self._metrics.bytes.labels("in").inc(body.received)
        self._metrics.bytes.labels("out").inc(answer.sent)

    async def _answer(self, scope: Scope, path: str, body: "RequestBody", answer: "Answer") -> None:
        """Let through what is published, small and not too much."""
        client = client_of(scope["client"])
        wait_s = self._buckets.wait_s(client)
        if wait_s:
            raise Refused("rate", retry_s=wait_s)
        if path == "other" or scope["method"] != "POST" or scope["query_string"]:
            raise Refused("not published")
        headers: Headers = scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) > self._settings.max_header_bytes:
            raise Refused("headers too large")  # the parser's own bound holds only for what comes in pieces
        length = _declared_length(headers)
        if length is not None and length > self._settings.max_body_bytes:
            raise Refused("too large")
        if self._slots.is_full_for(client):
            raise Refused("address busy", retry_s=_RETRY_S)
        if not self._slots.take(client):
            raise Refused("busy", retry_s=_RETRY_S)
        try:
            async with asyncio.timeout(self._settings.total_timeout_s):
                await self._forward(path, headers, body, answer)
        except TimeoutError:
            raise Refused("too slow" if body.finished_at is None else "upstream too slow") from None
        finally:
            self._slots.give_back(client)

    async def _forward(self, path: str, headers: Headers, body: "RequestBody", answer: "Answer") -> None:
        """Send the request to SuperLink and its answer back, both as they come."""
        kept = [(name, value) for name, value in _end_to_end(headers) if not _is_claim(name)]
        length = _declared_length(headers)
        if length is not None:
            kept.append((b"content-length", str(length).encode()))
        request = self._upstream.build_request("POST", path, content=body.pieces())
        request.headers = httpx.Headers([(b"host", request.url.netloc), *kept])
        if length is None:
            request.headers["transfer-encoding"] = "chunked"
        try:
            reply = await self._upstream.send(request, stream=True)
        except httpx.TimeoutException:
            raise Refused("upstream too slow") from None
        except httpx.HTTPError:
            raise Refused("upstream") from None
        try:
            if body.finished_at is not None:
                self._metrics.upstream_seconds.observe(time.monotonic() - body.finished_at)
            # A 4xx is for the node, in Flower's own words. Anything else that is no success is not.
            if not (reply.is_success or reply.is_client_error):
                raise Refused("upstream")
            await answer.start(reply.status_code, _for_client(reply, is_last=body.finished_at is None))
            async for piece in reply.aiter_raw():
                await answer.go_on(piece)
            await answer.end()
        except httpx.HTTPError:
            raise Refused("upstream") from None
        finally:
            await reply.aclose()


class RequestBody:
    """The body as it comes in, up to the cap; no more than one piece of it is held."""

    def __init__(self, receive: Receive, *, settings: GatewaySettings) -> None:
        self._receive, self._settings = receive, settings
        self.received = 0
        self.finished_at: float | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces.

        Raises:
            Refused: past the cap, or nothing came for too long.
            Gone: the client hung up.
        """
        while self.finished_at is None:
            try:
                async with asyncio.timeout(self._settings.idle_timeout_s):
                    message = await self._receive()
            except TimeoutError:
                raise Refused("too slow") from None
            if message["type"] == "http.disconnect":
                raise Gone
            piece = message.get("body", b"")
            self.received += len(piece)
            if self.received > self._settings.max_body_bytes:
                raise Refused("too large")
            if not message.get("more_body", False):
                self.finished_at = time.monotonic()
            yield piece

    async def drop(self) -> None:
        """Read on for a while without keeping anything, until the body or the client is at its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DROP_S):
                while self.finished_at is None:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        self.finished_at = time.monotonic()


class Answer:
    """What has been said to the client so far; ``status`` is 0 before the first byte."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.sent = 0

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status and the headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def go_on(self, piece: bytes, *, is_last: bool = False) -> None:
        """Send a piece of the body."""
        message: Message = {"type": "http.response.body", "body": piece, "more_body": not is_last}
        await self._send(message)
        self.sent += len(piece)

    async def end(self) -> None:
        """Say that this was all."""
        await self.go_on(b"", is_last=True)

    async def refuse(self, refusal: Refused, body: RequestBody) -> None:
        """Say no, in a fixed word or a few, and close the connection."""
        text = refusal.reason.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"connection", b"close"),
        ]
        if refusal.retry_s:
            headers.append((b"retry-after", str(refusal.retry_s).encode()))
        await self.start(refusal.status, headers)
        await self.go_on(text)
        if refusal.reason != "too slow":
            await body.drop()
        await self.end()


async def _cut(scope: Scope, receive: Receive) -> None:
    """Break the connection off, and wait until it is."""
    scope["state"]["cut"]()  # the gateway's connections bring it
    while (await receive())["type"] != "http.disconnect":
        pass


def _end_to_end(headers: Headers) -> Headers:
    """Headers without those of one connection, by the standard's list and by the connection's own (RFC 9110, 7.6.1)."""
    named = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP | named]


def _is_claim(name: bytes) -> bool:
    """Whether a client could use this header to pose as another, or to contradict the framing."""
    return name in _CLAIMS or name.startswith(_CLAIMED_PREFIX)


def _for_client(reply: httpx.Response, *, is_last: bool) -> Headers:
    """The reply's headers; ``is_last`` when the request was not read to its end, so that its connection must close."""
    kept = [(name.lower(), value) for name, value in _end_to_end(reply.headers.raw)]
    kept = [(name, value) for name, value in kept if name not in _UPSTREAM_OWN]
    return [*kept, (b"connection", b"close")] if is_last else kept


def _declared_length(headers: Headers) -> int | None:
    """The length of the body as stated; None for a body in chunks, whose framing alone counts (RFC 9112, 6.3)."""
    named = dict(headers)
    if b"transfer-encoding" in named:
        return None
    return int(named.get(b"content-length", b"0"))  # the HTTP parser has refused anything but digits
