"""Everything the service says instead of an answer: one shape, a fixed word, and a line that repeats nobody's data."""

import json
from collections.abc import Iterable
from typing import Any

_STATUS = {
    "malformed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "too_large": 413,
    "not_json": 415,
    "wrong_host": 421,
    "invalid": 422,
    "unknown_item": 422,
    "rate": 429,
    "budget": 429,
    "internal": 500,
    "busy": 503,
    "store": 503,
}
CODES = tuple(_STATUS)


def declared(codes: Iterable[str], *, shape: type) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of refusals: each status, with the shape of its answer and its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(_STATUS[code], []).append(code)
    return {status: {"model": shape, "description": " or ".join(said)} for status, said in sorted(by_status.items())}


class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault
    """A request that is not answered as asked.

    Attributes:
        code: one of ``CODES``.
        status: of HTTP.
        retry_s: seconds after which it may be tried again; 0 to say nothing.
    """

    def __init__(self, code: str, message: str, *, retry_s: int = 0) -> None:
        super().__init__(message)
        self.code, self.status, self.retry_s = code, _STATUS[code], retry_s

    def body(self) -> bytes:
        """``{"error": {"code", "message"}}``."""
        return json.dumps({"error": {"code": self.code, "message": str(self)}}, ensure_ascii=False).encode()

    def headers(self) -> dict[str, str]:
        """Those that this refusal needs."""
        headers = {"content-type": "application/json"}
        if self.retry_s:
            headers["retry-after"] = str(self.retry_s)
        if self.code == "unauthorized":
            headers["www-authenticate"] = "Bearer"
        return headers


def of_status(status: int) -> Refusal:
    """What the framework refuses by itself, in our words."""
    for code, known in _STATUS.items():
        if known == status:
            words = {404: "there is no such path", 405: "not by this method", 400: "the body cannot be read as JSON"}
            return Refusal(code, words.get(status, code))
    return Refusal("malformed", "the request cannot be read")


def internal() -> Refusal:
    """For a bug: nothing of it is shown."""
    return Refusal("internal", "the fault is ours; it was noted, without your data")
