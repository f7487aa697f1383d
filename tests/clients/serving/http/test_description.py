"""The API's own description is true, and no header breaks what it describes: asked of a real process, over a socket."""

import copy
import re
import socket
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.definitions import OPENAPI_31

from clients.serving.http.refusals import CODES
from clients.serving.http.tokens import SCOPES, new_token
from tests.clients.serving.http.tiny_service import process, stocked

FIXED = settings(
    max_examples=50,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OPEN = {"GET /healthz", "GET /readyz", "GET /v1/statement"}
TAKING = {f"POST /v1/{name}" for name in ("recommend", "search", "explain", "events")} | {"DELETE /v1/people/{user}"}
GUARDED = TAKING | {"GET /v1/catalogue"}


@pytest.fixture(scope="module")
def served(counted_run, tmp_path_factory):
    """A process that asks for tokens, and a token for everything."""
    folder = tmp_path_factory.mktemp("described")
    stocked(counted_run, folder / "shop.sqlite").close()
    token = new_token(folder / "tokens.txt", "tester", SCOPES)
    rates = ("--requests-per-s", 1e6, "--queries-per-day", 10**9)
    with process(counted_run.out, folder / "shop.sqlite", "--tokens", folder / "tokens.txt", *rates) as serving:
        yield serving, token
        assert serving.ask("GET", "/healthz").status_code == 200
        assert {line.split(" ", 2)[2] for line in serving.said().splitlines()} <= {"INFO memory: taken"}, "no fault"


@pytest.fixture(scope="module")
def description(served):
    return served[0].ask("GET", "/openapi.json").json()


def operations(description):
    return {one.ok().label: one.ok() for one in schemathesis.openapi.from_dict(description).get_all_operations()}


def test_the_description_is_one_of_openapi_3_1(description):
    assert description["openapi"].startswith("3.1.")
    rules = Draft202012Validator(OPENAPI_31)
    assert list(rules.iter_errors(description)) == []
    spoiled = copy.deepcopy(description)
    spoiled["paths"]["/v1/search"]["post"]["responses"] = {"20": {}}
    assert list(rules.iter_errors(spoiled)), "else the rules rule nothing out"


def test_it_names_every_operation_its_token_and_every_refusal(description):
    assert set(operations(description)) == OPEN | GUARDED
    shape = description["components"]["schemas"]["ErrorBody"]["properties"]
    assert tuple(shape["code"]["enum"]) == CODES
    told = Counter()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            is_open = f"{method.upper()} {path}" in OPEN
            assert ("security" not in operation) is is_open
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    content = answer["content"]["application/json"]["schema"]
                    assert content == {"$ref": "#/components/schemas/ErrorAnswer"}
                    told.update(answer["description"].split(" or "))
    assert set(told) == set(CODES) - {"method_not_allowed"}, "which is of no operation"


@pytest.mark.parametrize("label", sorted(OPEN | GUARDED))
def test_every_answer_is_one_that_the_description_allows(served, description, label):
    """Bodies that fit the description and bodies that do not: status, type and shape of the answer are as declared,
    nothing that it forbids is taken, no route but the open ones answers a stranger, and nothing is a 5xx."""
    serving, token = served
    operation, statuses = operations(description)[label], Counter()
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if label in TAKING else (GenerationMode.POSITIVE,)

    @seed(20)
    @FIXED
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
    def ask(case):
        answer = case.call_and_validate(
            base_url=serving.address,
            headers={"Authorization": f"Bearer {token}"},
            excluded_checks=[positive_data_acceptance],  # which items there are, no description says
        )
        statuses[answer.status_code] += 1

    ask()
    assert set(statuses) <= {200, 400, 401, 404, 422}
    if label in TAKING:
        assert len(statuses) > 1, "else one side was never asked"


LONG = st.sampled_from([b"x" * 8_000, b"9" * 5_000, b"\xff" * 3_000, b"Bearer " + b"y" * 9_000])
BYTES = st.binary(max_size=40).map(lambda value: re.sub(rb"[\r\n]", b" ", value))
NUMBERS = st.integers(-(2**70), 2**70).map(lambda value: str(value).encode())
VALUES = {
    b"authorization": st.sampled_from([b"Bearer", b"Bearer  ", b"bearer \xe4\xff", b"Basic eDp5", b"Bearer a b"]),
    b"content-length": st.sampled_from([b"", b"-1", b"+1", b"0x2", b"1_0", b"\xb2", b"2, 2", b"9" * 400]) | NUMBERS,
    b"transfer-encoding": st.sampled_from([b"chunked", b"chunked, chunked", b"gzip", b"xchunked", b"\x0bchunked"]),
    b"host": st.sampled_from([b"", b"//[", b"a b", b"[::1", b"127.0.0.1:99999999", b"\xe4.example", b"@", b"a,b"]),
    b"content-type": st.sampled_from(
        [b"application/json; charset=\xff", b"application/json;" * 300, b"a/b", b";", b""]
    ),
    b"expect": st.sampled_from([b"100-continue", b"200", b"\xff"]),
    b"connection": st.sampled_from([b"upgrade", b"keep-alive, close", b"\xff"]),
    b"upgrade": st.sampled_from([b"websocket", b"h2c", b"\xff"]),
}
HEADER = st.one_of([st.tuples(st.just(name), known | BYTES | LONG) for name, known in VALUES.items()])
BODIES = st.sampled_from([b"{}", b"", b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n{}", b"\xff" * 50])


def told(address, request):
    """All that is answered to bytes; their sender says no more, and waits."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionResetError:  # it was cut off while it still sent
            pass
        return answer


def test_no_header_breaks_the_service(served):
    serving, token = served
    right = {b"host": b"127.0.0.1", b"authorization": f"Bearer {token}".encode(), b"content-type": b"application/json"}
    statuses = Counter()

    @seed(21)
    @settings(FIXED, max_examples=300)
    @given(
        route=st.sampled_from([b"POST /v1/recommend", b"POST /v1/events", b"GET /healthz", b"DELETE /v1/people/x"]),
        wrong=st.lists(HEADER, min_size=1, max_size=3),
        is_in_place=st.booleans(),
        body=BODIES,
    )
    def ask(route, wrong, is_in_place, body):
        kept = {} if is_in_place else {b"content-length": str(len(body)).encode()}
        kept |= {name: value for name, value in right.items() if not (is_in_place and name in dict(wrong))}
        lines = [route + b" HTTP/1.1", *(name + b": " + value for name, value in [*kept.items(), *wrong]), b"", b""]
        answer = told(serving.address, b"\r\n".join(lines) + body)
        if not answer:  # a body shorter than was said: nobody waits for an answer
            statuses["none"] += 1
            return
        assert answer.startswith(b"HTTP/1.1 ")
        said = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]  # what is left over may be more
        statuses.update(said)
        assert max(said) < 500, answer[:300]
        assert {code.decode() for code in re.findall(rb'{"error": {"code": "(.*?)"', answer)} <= set(CODES)

    ask()
    assert {200, 400, 401, 415} <= set(statuses), statuses
    assert statuses["none"] < 150
