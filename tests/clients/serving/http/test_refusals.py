"""Whatever is sent, the answer is one of ours: a code, a line, and never a fault of the service."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.serving.http.bodies import MAX_K
from clients.serving.http.refusals import CODES
from fedrec.errors import RunError
from tests.clients.serving.http.tiny_service import ALL, bearer, service_of

JSON = {"content-type": "application/json"}
ROUTES = ("/v1/recommend", "/v1/search", "/v1/explain", "/v1/events")
WHOLE = {  # a body that is answered, by route
    "/v1/recommend": {"history": ["i03"]},
    "/v1/search": {"query": "mug"},
    "/v1/explain": {"history": ["i03"], "item": "i05"},
    "/v1/events": {"events": [{"user": "u", "item": "i05"}]},
}


def said(answer):
    """Code and text of a refusal, which has one shape and no other field."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] in CODES
    assert answer.headers["content-type"] == "application/json"
    return body["error"]["code"], body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        ("/v1/recommend", {"k": 0}, "k: Input should be greater than or equal to 1"),
        ("/v1/recommend", {"k": MAX_K + 1}, "k: Input should be less than or equal to 100"),
        ("/v1/recommend", {"k": "3"}, "k: Input should be a valid integer"),
        ("/v1/recommend", {"diversity": 1.5}, "diversity: Input should be less than or equal to 1"),
        ("/v1/recommend", {"history": ["i03"] * 1001}, "history: List should have at most 1000 items"),
        ("/v1/recommend", {"history": ["x" * 257]}, "history.0: String should have at most 256 characters"),
        ("/v1/recommend", {"user": "u"}, "body: user and history: give one of them"),
        ("/v1/recommend", {"secret-of-mine": 1}, "body: has a field that is not known; see /openapi.json"),
        ("/v1/recommend", {"filters": {"secret-of-mine": 1}}, "filters: has a field that is not known"),
        ("/v1/recommend", {"filters": {"category": "x"}}, "category: the catalogue has no such column"),
        ("/v1/recommend", {"filters": {"min_price": 5, "max_price": 1}}, "price from 5 to 1: expected a range"),
        ("/v1/recommend", {"filters": {"min_price": -1}}, "filters.min_price: Input should be greater than"),
        ("/v1/search", {"query": ""}, "query: String should have at least 1 character"),
        ("/v1/search", {"query": "x" * 1025}, "query: String should have at most 1024 characters"),
        ("/v1/search", {"query": None}, "query: Input should be a valid string"),
        ("/v1/explain", {"item": 5}, "item: Input should be a valid string"),
        ("/v1/events", {"events": []}, "events: List should have at least 1 item"),
        ("/v1/events", {"events": [{"user": "u"}]}, "events.0.item: Field required"),
        ("/v1/events", {"events": [{"user": " ", "item": "i05"}]}, "event 0: user_id: expected text that is not blank"),
        ("/v1/events", {"events": [{"user": "u", "item": "i05", "timestamp": 9e11}]}, "event 0: timestamp: more than"),
    ],
)
def test_what_is_wrong_in_a_body_is_said_by_its_place(asked_only, path, changes, expected):
    answer = asked_only.ask("POST", path, WHOLE[path] | changes)
    assert answer.status_code == 422
    code, message = said(answer)
    assert code == "invalid"
    assert message.startswith(expected)
    assert "secret-of-mine" not in answer.text


@pytest.mark.parametrize(
    ("path", "changes", "place"),
    [("/v1/recommend", {"history": ["i03", "nope"]}, "history"), ("/v1/explain", {"item": "nope"}, "item")],
)
def test_an_item_that_is_not_in_the_catalogue_is_named(asked_only, path, changes, place):
    answer = asked_only.ask("POST", path, WHOLE[path] | changes)
    assert answer.status_code == 422
    assert said(answer) == ("unknown_item", f"{place}: item 'nope' is not in the catalogue")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v1/recommend", {}, 405, "method_not_allowed"),
        ("POST", "/healthz", {"content": b"{}", "headers": JSON}, 405, "method_not_allowed"),
        ("POST", "/v1/recommend", {"content": b"{", "headers": JSON}, 400, "malformed"),
        ("POST", "/v1/recommend", {"content": b"[" * 60_000, "headers": JSON}, 400, "malformed"),
        ("POST", "/v1/recommend", {"content": b'{"k": ' + b"9" * 9_000 + b"}", "headers": JSON}, 400, "malformed"),
        ("POST", "/v1/recommend", {"content": b"\xff\xfe", "headers": JSON}, 400, "malformed"),
        ("POST", "/v1/recommend", {"content": b"{}"}, 415, "not_json"),
        ("POST", "/v1/recommend", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "not_json"),
        ("POST", "/v1/recommend", {"content": b" " * 65_537, "headers": JSON}, 413, "too_large"),
        ("POST", "/v1/recommend", {"content": b"", "headers": JSON}, 422, "invalid"),
        ("POST", "/v1/recommend", {"content": b"{}", "headers": JSON | {"host": "evil.example"}}, 421, "wrong_host"),
        ("GET", "/healthz", {"headers": {"host": "127.0.0.1.evil.example:80"}}, 421, "wrong_host"),
        ("GET", "/healthz", {"headers": {"host": "//["}}, 421, "wrong_host"),
    ],
)
def test_what_cannot_be_read_or_is_not_here_is_refused(asked_only, method, path, options, status, code):
    answer = asked_only.ask(method, path, **options)
    assert answer.status_code == status
    assert said(answer)[0] == code


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080"])
def test_this_machine_is_answered_by_each_of_its_names(asked_only, host):
    assert asked_only.ask("GET", "/healthz", headers={"host": host}).status_code == 200


def test_a_body_without_a_length_is_cut_at_the_cap_and_never_parsed(asked_only):
    async def pieces():
        for _ in range(20):
            yield b" " * 8_192

    async def send():
        return await asked_only.asked("POST", "/v1/recommend", content=pieces(), headers=JSON)

    answer = asyncio.run(send())
    assert (answer.status_code, said(answer)[0]) == (413, "too_large")


def test_a_body_that_does_not_come_is_not_waited_for(counted_run, service):
    slow = service_of(service.desk.store, counted_run.out, body_s=0.05)
    sent = []

    async def never():
        await asyncio.sleep(30)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": headers}
    asyncio.run(slow.door(scope, never, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "too_slow"


def test_each_route_asks_for_its_own_scope(guarded):
    scopes = {path: path.removeprefix("/v1/") for path in ROUTES}
    asked = [("POST", path, WHOLE[path], scope) for path, scope in scopes.items()]
    asked += [("GET", "/metrics", None, "metrics"), ("DELETE", "/v1/people/p001", None, "forget")]
    everybody = {scope for *_, scope in asked} | {"debug"}
    for method, path, body, scope in asked:
        for token in sorted(everybody - {scope}):
            answer = guarded.ask(method, path, body, headers=bearer(token))
            assert (answer.status_code, said(answer)[0]) == (403, "forbidden"), (path, token)
        assert guarded.ask(method, path, body, headers=bearer(scope)).status_code == 200, path


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"authorization": ALL}, {"authorization": f"Basic {ALL}"}])
@pytest.mark.parametrize("path", [*ROUTES, "/v1/nowhere", "/v1/people/p001"])
def test_a_stranger_learns_nothing(guarded, headers, path):
    answer = guarded.ask("POST", path, WHOLE.get(path, {}), headers=headers)
    assert (answer.status_code, said(answer)[0]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_and_statement_need_no_token(guarded):
    for path in ("/healthz", "/readyz", "/v1/statement", "/openapi.json"):
        assert guarded.ask("GET", path).status_code == 200


def test_beyond_the_rate_and_the_budget_one_is_told_when_to_come_back(counted_run, service):
    store, run = service.desk.store, counted_run.out
    quick = service_of(store, run, requests_per_s=0.01, burst=2)
    answers = [quick.ask("POST", "/v1/recommend", {}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert said(answers[2])[0] == "rate"
    assert 90 <= int(answers[2].headers["retry-after"]) <= 100
    thrifty = service_of(store, run, queries_per_day=2)
    answers = [thrifty.ask("POST", path, WHOLE[path]) for path in ("/v1/search", "/v1/explain", "/v1/recommend")]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert said(answers[2])[0] == "budget"
    assert 86_000 < int(answers[2].headers["retry-after"]) <= 86_400
    assert thrifty.ask("POST", "/v1/events", WHOLE["/v1/events"]).status_code == 200, "events are no queries"


def test_beyond_the_requests_at_once_one_is_told_to_come_back(counted_run, service):
    narrow = service_of(service.desk.store, counted_run.out, requests_at_once=2)

    async def many():
        return await asyncio.gather(*(narrow.asked("POST", "/v1/recommend", {}) for _ in range(8)))

    answers = asyncio.run(many())
    codes = {answer.status_code for answer in answers}
    assert codes == {200, 503}
    assert {said(answer) for answer in answers if answer.status_code == 503} == {("busy", "too many requests at once")}


def test_a_store_that_cannot_be_written_acknowledges_nothing(service, monkeypatch, caplog):
    def full(*_, **__):
        raise RunError("shop.sqlite: unusable event store: the disk is full; make room and try again")

    monkeypatch.setattr(service.desk.store, "append", full)
    answer = service.ask("POST", "/v1/events", WHOLE["/v1/events"])
    assert answer.status_code == 503
    assert said(answer) == ("store", "the store cannot be used; nothing was acknowledged")
    assert answer.headers["retry-after"] == "5"
    assert "the disk is full; make room and try again" in caplog.text


TEXT = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["i03", "i05", "p007", "\x00", "\ud800", "A" * 300, "' OR 1=1 --", "*", '"']
)
NUMBER = st.integers(-5, 2**70) | st.floats() | st.sampled_from([0, 1, 10, 100])
VALUE = st.none() | st.booleans() | NUMBER | TEXT
NAMES = [
    "user",
    "history",
    "personalized",
    "scores",
    "k",
    "filters",
    "diversity",
    "reasons",
    "query",
    "item",
    "events",
    "keep_unknown",
    "category",
    "min_price",
    "max_price",
    "in_stock",
    "hide_bought",
    "kind",
    "timestamp",
    "event_id",
]
DEEP = st.recursive(
    VALUE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | TEXT, inner, max_size=5),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), DEEP, max_size=4)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(ROUTES), changes=FIELDS, from_whole=st.booleans())
def test_no_body_breaks_the_service(asked_only, path, changes, from_whole):
    body = json.dumps((WHOLE[path] if from_whole else {}) | changes)  # NaN, and halves of characters, too
    answer = asked_only.ask("POST", path, content=body, headers=JSON)
    if answer.status_code != 200:
        assert answer.status_code == 422, answer.text
        said(answer)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    path=st.sampled_from([*ROUTES, "/v1/people/x", "/", "/metrics", "/v1", "/v1/recommend/"]) | st.text(max_size=20),
    content=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", "text/plain", "", "application/json; charset=latin-1"]),
    token=st.sampled_from([ALL, "recommend"]) | st.text(st.characters(max_codepoint=255), max_size=20),
)
def test_no_request_breaks_the_door(guarded, method, path, content, kind, token):
    headers = [(b"content-type", kind.encode()), (b"authorization", f"Bearer {token}".encode("latin-1"))]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(guarded.door(scope | {"http_version": "1.1", "root_path": "", "raw_path": b""}, receive, send))
    status, body = sent[0]["status"], b"".join(message.get("body", b"") for message in sent)
    assert status < 500
    if status >= 400 and method != "HEAD":
        assert json.loads(body)["error"]["code"] in CODES
