"""What stands before every request: who asks, how often, how large, how slowly, and that nothing escapes in an error.

No body is parsed, and none is read beyond its cap, before its token and its rate are in order.
"""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.serving.http.limits import Allowances
from clients.serving.http.metrics import ServiceMetrics
from clients.serving.http.refusals import Refusal, internal
from clients.serving.http.shopfront import PATHS
from clients.serving.http.tokens import (
    ANYBODY_HERE,
    EVENTS,
    EXPLAIN,
    FORGET,
    METRICS,
    RECOMMEND,
    SEARCH,
    Holder,
    Tokens,
)
from fedrec.config_serving import HttpConfig

PEOPLE = "/v1/people"
_SCOPE_OF = {
    "/v1/recommend": RECOMMEND,
    "/v1/search": SEARCH,
    "/v1/explain": EXPLAIN,
    "/v1/events": EVENTS,
    "/v1/catalogue": RECOMMEND,
    PEOPLE: FORGET,
    "/metrics": METRICS,
}
_OPEN = PATHS | {"/healthz", "/readyz", "/v1/statement", "/openapi.json"}
_QUERIES = frozenset((RECOMMEND, SEARCH, EXPLAIN))
_LOOPBACK_NAMES = frozenset(("127.0.0.1", "localhost", "[::1]"))
_EVERY_ANSWER = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_DROP_S = 2.0

logger = logging.getLogger(__name__)


class Door:
    """The ASGI application that the port leads to; ``tokens`` may be replaced while it serves."""

    def __init__(self, app: ASGIApp, *, config: HttpConfig, tokens: Tokens | None, metrics: ServiceMetrics) -> None:
        """``tokens``: None where only this machine can reach the port."""
        self._app, self._config, self._metrics, self.tokens = app, config, metrics, tokens
        self._allowances = Allowances(
            requests_per_s=config.requests_per_s,
            burst=config.burst,
            queries_per_day=config.queries_per_day,
            clock=time.monotonic,
        )
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens, and count it."""
        if scope["type"] != "http":
            return
        began, route = time.perf_counter(), _route_of(scope["path"])
        body, answer = _Body(receive, config=self._config), _Answer(send)
        self._under_way += 1
        self._metrics.under_way.inc()
        try:
            await self._let_in(scope, body, route, answer)
        except Refusal as refusal:
            await self._refuse(refusal, body, answer)
        except Exception as error:  # the text of an error may hold what was asked
            last = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(
                "request failed: route=%s error=%s at=%s:%s", route, type(error).__name__, last.name, last.lineno
            )
            await self._refuse(internal(), body, answer)
        finally:
            self._under_way -= 1
            self._metrics.under_way.dec()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
        self._metrics.requests.labels(route, str(answer.status)).inc()

    async def _refuse(self, refusal: Refusal, body: "_Body", answer: "_Answer") -> None:
        if not answer.status:  # else half an answer is out, and the connection says the rest
            self._metrics.refused.labels(refusal.code).inc()
            await answer.refuse(refusal, body)

    async def _let_in(self, scope: Scope, body: "_Body", route: str, answer: "_Answer") -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._under_way > self._config.requests_at_once:
            raise Refusal("busy", "too many requests at once", retry_s=1)
        holder = self._holder(headers)
        if route not in _OPEN:
            self._admit(holder, scope_needed=_SCOPE_OF.get(route))
        if scope["method"] == "POST" and headers.get(b"content-type", "").split(";")[0].strip() != "application/json":
            raise Refusal("not_json", "expected content-type: application/json")
        await body.read(declared=headers.get(b"content-length", "0"))
        scope.setdefault("state", {})["holder"] = holder
        await self._app(scope, body.replayed, answer.send)

    def _holder(self, headers: Mapping[bytes, str]) -> Holder | None:
        """Whoever asks; None for a stranger. Without tokens the browser must mean this very machine."""
        if self.tokens is None:
            host = re.sub(r":\d*$", "", headers.get(b"host", "").lower())
            if host not in _LOOPBACK_NAMES:  # else any page of the web could have its own name lead here
                raise Refusal("wrong_host", "without tokens this answers to 127.0.0.1 and localhost alone")
            return ANYBODY_HERE
        kind, _, token = headers.get(b"authorization", "").partition(" ")
        return self.tokens.holder_of(token.strip()) if kind.lower() == "bearer" else None

    def _admit(self, holder: Holder | None, *, scope_needed: str | None) -> None:
        if holder is None:
            raise Refusal("unauthorized", "expected authorization: Bearer TOKEN, with a token that is known here")
        if wait_s := self._allowances.wait_s(holder.name):
            raise Refusal("rate", "too many requests for this token", retry_s=wait_s)
        if scope_needed is not None and scope_needed not in holder.scopes:
            raise Refusal("forbidden", f"this token has not the scope {scope_needed}")
        if scope_needed in _QUERIES and (wait_s := self._allowances.budget_wait_s(holder.name)):
            raise Refusal("budget", "this token has asked as much as it may in a day", retry_s=wait_s)


class _Body:
    """A request's body: read whole before anything looks into it, up to a cap."""

    def __init__(self, receive: Receive, *, config: HttpConfig) -> None:
        self._receive, self._config, self._held = receive, config, bytearray()
        self._is_whole, self._is_replayed = False, False

    async def read(self, *, declared: str) -> None:
        """Read all of it; ``declared`` is its length as the headers say.

        Raises:
            Refusal: too large or too slow.
        """
        too_large = Refusal("too_large", f"a body has at most {self._config.body_bytes} bytes")
        if not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > self._config.body_bytes:
            raise too_large
        try:
            async with asyncio.timeout(self._config.body_s):
                while not self._is_whole:
                    self._held += await self._piece()
                    if len(self._held) > self._config.body_bytes:
                        raise too_large
        except TimeoutError:
            raise Refusal("too_slow", f"a body must have come within {self._config.body_s:g} s") from None

    async def replayed(self) -> Message:
        """The body that was read, once; then whatever comes."""
        if self._is_replayed:
            return await self._receive()
        self._is_replayed = True
        return {"type": "http.request", "body": bytes(self._held), "more_body": False}

    async def drop(self) -> None:
        """Read on for a moment without keeping it: who is cut off while it sends never sees the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DROP_S):
                while not self._is_whole:
                    await self._piece()

    async def _piece(self) -> bytes:
        message = await self._receive()
        self._is_whole = not message.get("more_body", False)  # nobody is there any more, too
        return message.get("body", b"")


class _Answer:
    """What has been said so far; ``status`` is 0 before the first byte."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def send(self, message: Message) -> None:
        """Pass it on, with what every answer says."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *_EVERY_ANSWER]}
        await self._send(message)

    async def refuse(self, refusal: Refusal, body: _Body) -> None:
        """Say no and close the connection."""
        text = refusal.body()
        headers = {**refusal.headers(), "content-length": str(len(text)), "connection": "close"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": text, "more_body": True})
        if refusal.code != "too_slow":
            await body.drop()
        await self._send({"type": "http.response.body", "body": b""})


def _route_of(path: str) -> str:
    """One of our routes, without what follows a person's; ``other`` for any other."""
    if path.startswith(f"{PEOPLE}/"):
        return PEOPLE
    return path if path in _SCOPE_OF or path in _OPEN else "other"
