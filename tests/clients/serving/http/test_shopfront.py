"""What is sent for the page, to whom, and under which rules for the browser."""

import re

import polars as pl
import pytest

from clients.serving.http import answering, shopfront
from clients.serving.http.shopfront import FILES, PATHS, page_router
from fedrec.data.catalogue import Catalogue
from fedrec.errors import RunError
from tests.clients.serving.http.tiny_service import ALL, bearer

ADDRESS = re.compile(r"\b(?:https?:)?//[a-z]", flags=re.IGNORECASE)


def test_every_file_of_the_page_is_sent_and_no_other(asked_only):
    answers = {path: asked_only.ask("GET", path) for path in PATHS}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.content for answer in answers.values()} == {path.read_bytes() for path in FILES.iterdir()}
    assert len(answers) == len(list(FILES.iterdir()))
    for path in ("/page/", "/page/none.js", "/page/../shopfront.py", "/page/%2e%2e/shopfront.py", "/shop.js"):
        assert asked_only.ask("GET", path).status_code == 404, path
    assert asked_only.ask("POST", "/", {}).status_code == 405


def test_each_comes_under_a_policy_that_lets_the_browser_do_next_to_nothing(asked_only):
    for path in PATHS:
        headers = asked_only.ask("GET", path).headers
        policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert policy.pop("default-src") == "'none'"
        assert {policy.pop(name) for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert {policy.pop(name) for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert policy == {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers


@pytest.mark.parametrize("token", [None, ALL])
def test_where_tokens_are_asked_for_there_is_no_page_and_it_says_why(guarded, token):
    for path in PATHS:
        answer = guarded.ask("GET", path, headers=bearer(token) if token else {})
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "code": "not_found",
            "message": "the page is shown only where the service runs for this machine alone, without --tokens: "
            "a token does not belong into a browser",
        }


def test_a_page_of_the_web_cannot_have_its_own_name_lead_here(asked_only):
    assert asked_only.ask("GET", "/", headers={"host": "evil.example"}).status_code == 421


def test_the_files_name_no_other_place_and_have_no_code_or_style_in_the_markup():
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not ADDRESS.search(text), path.name
        assert len(text.splitlines()) <= 300
    html = (FILES / "shop.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>|javascript:", html)
    named = set(re.findall(r'(?:src|href)="(/[^"]+)"', html))
    assert named < PATHS
    for path in FILES.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text), (
            path.name
        )
        assert set(re.findall(r'from "([^"]+)"', text)) < PATHS


def test_a_page_with_a_file_missing_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shopfront, "FILES", tmp_path)
    with pytest.raises(RunError, match=r"shop\.html: cannot be read: No such file or directory; install fedrec again"):
        page_router(is_shown=True)
    page_router(is_shown=False)


def test_details_are_told_on_request_and_the_catalogue_says_what_it_can_be_filtered_by(asked_only):
    plain = asked_only.ask("POST", "/v1/recommend", {"k": 3}).json()["items"]
    assert all(set(one) == {"item_id", "title"} for one in plain)
    prices = {f"i{item:02d}": 1 + item / 4 for item in range(40)}
    for path, body in (("/v1/recommend", {}), ("/v1/search", {"query": "mug"})):
        items = asked_only.ask("POST", path, body | {"details": True}).json()["items"]
        assert {one["item_id"]: one["price"] for one in items}.items() <= prices.items()
    one = asked_only.ask("POST", "/v1/explain", {"item": "i07", "details": True}).json()["item"]
    assert one["price"] == 2.75
    about = asked_only.ask("GET", "/v1/catalogue").json()
    assert about == {"items": 40, "prices": {"lowest": 1.0, "highest": 10.75}}


def test_categories_are_the_largest_sorted_and_prices_those_that_are_known(monkeypatch):
    attributes = pl.DataFrame({"category": [" b", "a", "b", None, " "], "price": [2.0, None, 5.0, float("nan"), 3.0]})
    catalogue = Catalogue(tuple("vwxyz"), ("",) * 5, attributes)
    told = answering.catalogue_answer(catalogue)
    assert (told.categories, told.prices.lowest, told.prices.highest) == (["a", "b"], 2.0, 5.0)
    monkeypatch.setattr(answering, "MAX_CATEGORIES", 1)
    assert answering.catalogue_answer(catalogue).categories == ["b"]
    assert [answering._details(catalogue, item) for item in range(5)] == [
        ("b", 2.0), ("a", None), ("b", 5.0), (None, None), (None, 3.0)
    ]  # fmt: skip
    bare = answering.catalogue_answer(Catalogue(("v",), ("",), pl.DataFrame()))
    assert (bare.items, bare.categories, bare.prices) == (1, None, None)
