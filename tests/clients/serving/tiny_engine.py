"""A small search engine on loopback: the few requests of Elasticsearch and OpenSearch that we make, answered by FTS5.

Not a real one: it shows that our side of the protocol is spoken over real HTTP and that real ranking comes back, and
it can misbehave. ``FEDREC_TEST_ELASTIC`` names a real engine for the same claims.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clients.serving.fulltext import FIELDS
from clients.serving.spelling import edit_distance


class TinyEngine:
    """Indices by name, and what was asked.

    Attributes:
        requests: method, path, headers and body of each request, in order.
        instead: what is answered in place of an answer, if anything; called with the request's path.
    """

    def __init__(self) -> None:
        self.indices: dict[str, sqlite3.Connection] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.instead = None
        self.url = ""

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append((request.method, request.url.path, dict(request.headers), body))
        if self.instead is not None and (response := self.instead(request.url.path)) is not None:
            return response
        name, _, action = request.url.path.strip("/").partition("/")
        if request.method == "PUT" and not action:
            return self._create(name, json.loads(body))
        if name not in self.indices:
            return JSONResponse({"error": {"type": "index_not_found_exception"}, "status": 404}, 404)
        return {"_bulk": self._bulk, "_refresh": self._refresh, "_count": self._count, "_search": self._search}[action](
            self.indices[name], body
        )

    def asked(self, ending: str) -> list[bytes]:
        """Bodies of the requests whose path ends so."""
        return [body for _, path, _, body in self.requests if path.endswith(ending)]

    def _create(self, name: str, made: dict) -> Response:
        if name in self.indices:
            return JSONResponse({"error": {"type": "resource_already_exists_exception"}, "status": 400}, 400)
        assert tuple(made["mappings"]["properties"]) == FIELDS
        self.indices[name] = sqlite3.connect(":memory:", check_same_thread=False)
        self.indices[name].executescript(
            f"CREATE VIRTUAL TABLE items USING fts5({', '.join(FIELDS)}, tokenize='unicode61 remove_diacritics 0');"
            "CREATE VIRTUAL TABLE words USING fts5vocab('items', 'row');"
        )
        return JSONResponse({"acknowledged": True, "index": name})

    def _bulk(self, items: sqlite3.Connection, body: bytes) -> Response:
        lines = [json.loads(line) for line in body.splitlines()]
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            row = int(action["index"]["_id"])
            items.execute("DELETE FROM items WHERE rowid = ?", (row,))
            items.execute(
                "INSERT INTO items (rowid, title, brand, category, description) VALUES (?, ?, ?, ?, ?)",
                (row, *(document[field] for field in FIELDS)),
            )
        return JSONResponse({"errors": False, "took": 1})

    def _refresh(self, items: sqlite3.Connection, body: bytes) -> Response:
        return JSONResponse({"_shards": {"failed": 0}})

    def _count(self, items: sqlite3.Connection, body: bytes) -> Response:
        return JSONResponse({"count": items.execute("SELECT count(*) FROM items").fetchone()[0]})

    def _search(self, items: sqlite3.Connection, body: bytes) -> Response:
        asked = json.loads(body)
        scores = _found(items, asked["query"])
        best = sorted(scores, key=lambda item: (-scores[item], item))[: asked["size"]]
        hits = [{"_index": "x", "_id": str(item), "_score": scores[item]} for item in best]
        return JSONResponse({"took": 1, "timed_out": False, "hits": {"hits": hits}})


def _found(items: sqlite3.Connection, query: dict) -> dict[int, float]:
    """Scores of the items that a query finds."""
    ((kind, how),) = query.items()
    if kind == "multi_match":
        return _matched(items, how)
    parts = [_found(items, one) for one in (how["queries"] if kind == "dis_max" else how["should"])]
    everything = {item: [part[item] for part in parts if item in part] for item in set().union(*parts)}
    if kind == "dis_max":
        return {item: max(scores) for item, scores in everything.items()}
    least = how["minimum_should_match"]
    return {item: sum(scores) for item, scores in everything.items() if len(scores) >= least}


def _matched(items: sqlite3.Connection, how: dict) -> dict[int, float]:
    word = how["query"]
    terms = [f'"{word}"']
    if how["type"] == "bool_prefix":
        terms = [f'"{word}" *']
    elif "fuzziness" in how:
        reach = 0 if len(word) < 4 else 1 if len(word) < 8 else 2
        known = [term for (term,) in items.execute("SELECT term FROM words")]
        terms = [f'"{term}"' for term in known if edit_distance(word, term) <= reach]
    weights = [float(field.partition("^")[2]) for field in how["fields"]]
    rows = items.execute(
        "SELECT rowid, -bm25(items, ?, ?, ?, ?) FROM items WHERE items MATCH ?", (*weights, " OR ".join(terms) or '""')
    )
    return {item: score * how.get("boost", 1.0) for item, score in rows}


@contextmanager
def running() -> Iterator[TinyEngine]:
    """The engine on a free port of this machine, until the end."""
    engine = TinyEngine()
    routes = [Route("/{path:path}", engine.answer, methods=["GET", "PUT", "POST", "HEAD", "DELETE"])]
    config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        engine.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield engine
    finally:
        server.should_exit = True
        thread.join()
