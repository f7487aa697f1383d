"""The routes: each takes a body apart from HTTP, calls one plain function in a worker thread, and packs the answer."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from clients.serving.forgetting import Forgotten
from clients.serving.http import answering
from clients.serving.http.bodies import (
    CatalogueAnswer,
    ErrorAnswer,
    EventsAnswer,
    EventsBody,
    ExplainAnswer,
    ExplainBody,
    ForgottenAnswer,
    ItemsAnswer,
    RecommendBody,
    SearchBody,
    StateAnswer,
    StatementAnswer,
    User,
)
from clients.serving.http.door import PEOPLE, Door
from clients.serving.http.metrics import ServiceMetrics
from clients.serving.http.refusals import CODES, Refusal, declared, internal, of_status
from clients.serving.http.shopfront import page_router
from clients.serving.http.tokens import DEBUG, Tokens
from clients.serving.served import Current
from clients.serving.store import EventStore
from fedrec import __version__
from fedrec.config_serving import HttpConfig
from fedrec.errors import FedrecError, RunError

T = TypeVar("T")
_DISK_THREADS = 4  # they wait, for a disk
_GUARDED = [code for code in CODES if code not in ("not_found", "method_not_allowed")]  # which are of no operation
_OPEN = ("too_slow", "too_large", "wrong_host", "internal", "busy", "store")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Desk:
    """What the routes work with.

    Attributes:
        current: what is served.
        store: of the shop's events.
        latest: events of a person that are read.
        thinking: threads for scores, one torch thread each.
        writing: threads that wait for the store.
    """

    current: Current
    store: EventStore
    metrics: ServiceMetrics
    latest: int
    thinking: Executor
    writing: Executor

    async def think(self, answer: Callable[..., T], body: object) -> T:
        """Answer a question off the event loop, by what is served now; a swap in between does not reach it."""
        served = self.current.served
        return await _in(self.thinking, lambda: answer(served, self.store, body, latest=self.latest))

    def forget(self, user_id: str) -> Forgotten:
        """Forget somebody in the store, and in the memory that is being served, whatever comes of the store.

        Raises:
            DataError, RunError: as ``EventStore.forget``; the store cannot be read.
        """
        try:
            return self.store.forget(user_id)
        finally:
            self.current.remember()


def open_desk(current: Current, store: EventStore, *, config: HttpConfig) -> Desk:
    """Counters at zero, and threads that start when they are needed."""
    return Desk(
        current,
        store,
        ServiceMetrics(),
        config.past,
        ThreadPoolExecutor(config.workers, "think", initializer=torch.set_num_threads, initargs=(1,)),
        ThreadPoolExecutor(_DISK_THREADS, "write"),
    )


def build_app(desk: Desk, *, config: HttpConfig, tokens: Tokens | None) -> Door:
    """The service as an ASGI application.

    Args:
        tokens: None where only this machine can reach it.
    """
    app = FastAPI(title="fedrec", version=__version__, docs_url=None, redoc_url=None)  # their pages load from afar
    app.state.desk = desk
    app.include_router(page_router(is_shown=tokens is None))
    app.include_router(router, responses=declared(_GUARDED, shape=ErrorAnswer))
    app.include_router(open_router, responses=declared(_OPEN, shape=ErrorAnswer))
    for kind in (Refusal, FedrecError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)
    return Door(app, config=config, tokens=tokens, metrics=desk.metrics)


def _desk(request: Request) -> Desk:
    return request.app.state.desk


TheDesk = Annotated[Desk, Depends(_desk)]
router = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))])  # the door has asked; this tells readers
open_router = APIRouter()  # what the door lets anybody ask


@router.post("/v1/recommend", response_model_exclude_none=True)
async def recommend_route(body: RecommendBody, desk: TheDesk, request: Request) -> ItemsAnswer:
    """Items for somebody of the store, for a past, or for nobody in particular."""
    _check_scores(body.scores, request)
    return await desk.think(answering.recommend_answer, body)


@router.post("/v1/search", response_model_exclude_none=True)
async def search_route(body: SearchBody, desk: TheDesk, request: Request) -> ItemsAnswer:
    """Items for a query, misspelt or not."""
    _check_scores(body.scores, request)
    return await desk.think(answering.search_answer, body)


@router.post("/v1/explain", response_model_exclude_none=True)
async def explain_route(body: ExplainBody, desk: TheDesk, request: Request) -> ExplainAnswer:
    """Why an item stands where it does."""
    _check_scores(body.scores, request)
    return await desk.think(answering.explain_answer, body)


@router.post("/v1/events")
async def events_route(body: EventsBody, desk: TheDesk) -> EventsAnswer:
    """Take events in; they are on disk when this answers, and the next request sees them."""
    served = desk.current.served
    return await _in(desk.writing, lambda: answering.take_events(served, desk.store, body))


@router.delete(PEOPLE + "/{user:path}", responses=declared(["not_found"], shape=ErrorAnswer))  # of a line break
async def forget_route(user: Annotated[User, Path()], desk: TheDesk) -> ForgottenAnswer:
    """Delete a person for good, from the store and from what is served."""
    gone = await _in(desk.writing, lambda: desk.forget(user))
    return ForgottenAnswer(events=gone.events, at=gone.at)


@router.get("/v1/catalogue", response_model_exclude_none=True)
async def catalogue_route(desk: TheDesk) -> CatalogueAnswer:
    """What lists can be filtered by."""
    catalogue = desk.current.served.model.catalogue
    return await _in(desk.thinking, lambda: answering.catalogue_answer(catalogue))


@open_router.get("/v1/statement")
async def statement_route(desk: TheDesk) -> StatementAnswer:
    """The privacy statement of the model that is being served."""
    served = desk.current.served
    model = served.model
    return StatementAnswer(statement=served.statement, model=model.version, items=len(model.catalogue))


@open_router.get("/healthz")
async def health_route() -> StateAnswer:
    """Alive."""
    return StateAnswer(state="ok")


@open_router.get("/readyz")
async def ready_route(desk: TheDesk) -> StateAnswer:
    """A model is loaded, and the store answers."""
    await _in(desk.writing, lambda: desk.store.choice("anybody"))
    return StateAnswer(state="ok")


@router.get("/metrics", include_in_schema=False)
async def metrics_route(desk: TheDesk) -> Response:
    """Counters in Prometheus' text format."""
    return Response(desk.metrics.page(), media_type=CONTENT_TYPE_LATEST)


async def _in(executor: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def _check_scores(wanted: bool, request: Request) -> None:
    if wanted and DEBUG not in request.state.holder.scopes:
        raise Refusal("forbidden", "scores: this token has not the scope debug")


async def _refused(request: Request, error: Exception) -> Response:
    refusal = _refusal_of(error)
    _desk(request).metrics.refused.labels(refusal.code).inc()
    return Response(refusal.body(), refusal.status, refusal.headers())


def _refusal_of(error: Exception) -> Refusal:
    """What the store cannot do is for the operator's log, a bug for the door's; the rest is for the caller."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RunError):
        logger.error("store: %s", error)
        return Refusal("store", "the store cannot be used; nothing was acknowledged", retry_s=5)
    if isinstance(error, FedrecError):
        return Refusal("invalid", str(error))
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    return of_status(error.status_code) if isinstance(error, HTTPException) else internal()


def _invalid(error: RequestValidationError) -> Refusal:
    """The first thing wrong with a request, by its place and never by its content."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    if first["type"] == "json_invalid":
        return Refusal("malformed", "the body is not JSON")
    if first["type"] == "extra_forbidden":  # its name came from the caller
        return Refusal("invalid", f"{'.'.join(where[:-1]) or 'body'}: has a field that is not known; see /openapi.json")
    return Refusal("invalid", f"{'.'.join(where) or 'body'}: {first['msg'].removeprefix('Value error, ')}")
