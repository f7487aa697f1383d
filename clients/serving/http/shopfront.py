"""The page that is shown where the service runs for this machine alone: fixed files, and what a browser must refuse.

The page asks the same routes as everybody else. It has no token to show, and none belongs into a browser, so a service
that asks for tokens shows no page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Response

from clients.serving.http.refusals import Refusal
from fedrec.errors import RunError

FILES = Path(__file__).parent / "page"
PAGE = "/"
_PLACES = {
    PAGE: ("shop.html", "text/html; charset=utf-8"),
    "/page/shop.css": ("shop.css", "text/css; charset=utf-8"),
    "/page/shop.js": ("shop.js", "text/javascript; charset=utf-8"),
    "/page/asking.js": ("asking.js", "text/javascript; charset=utf-8"),
    "/page/visit.js": ("visit.js", "text/javascript; charset=utf-8"),
    "/page/cards.js": ("cards.js", "text/javascript; charset=utf-8"),
    "/page/marks.js": ("marks.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
PATHS = frozenset(_PLACES)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {  # nosniff and no-store are on every answer of the service
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_NOT_HERE = (
    "the page is shown only where the service runs for this machine alone, without --tokens: "
    "a token does not belong into a browser"
)


@dataclass(frozen=True)
class _File:
    """A file as it is sent."""

    content: bytes
    media_type: str


def page_router(*, is_shown: bool) -> APIRouter:
    """Routes of the page's files, read once.

    Args:
        is_shown: false where tokens are asked for; each route then says why there is nothing.

    Raises:
        RunError: a file of the page is missing.
    """
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in _PLACES.items():
        router.add_api_route(path, _route_of(_read(name, media_type) if is_shown else None), methods=["GET"])
    return router


def _route_of(file: _File | None) -> Callable[[], Response]:
    def route() -> Response:
        if file is None:
            raise Refusal("not_found", _NOT_HERE)
        return Response(file.content, media_type=file.media_type, headers=_HEADERS)

    return route


def _read(name: str, media_type: str) -> _File:
    try:
        return _File((FILES / name).read_bytes(), media_type)
    except OSError as error:
        raise RunError(f"{FILES / name}: cannot be read: {error.strerror}; install fedrec again") from None
