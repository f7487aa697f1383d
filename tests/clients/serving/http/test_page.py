"""The page as a visitor meets it: they type, click and say no, in a real headless Chromium."""

import re
from dataclasses import replace

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install 'fedrec[dev]'")
from playwright.sync_api import Error, expect

from tests.clients.serving.http.tiny_page import NASTY, NASTY_ITEM, visiting


def test_the_list_follows_what_one_buys_and_says_why(visit):
    before = visit.items()
    expect(visit.page.locator("#offered-title")).to_have_text("For everyone")
    first = visit.buy(visit.card(2))
    expect(visit.page.locator("#offered-title")).to_have_text("For you")
    after = visit.items()
    assert after != before
    assert first not in after, "what was bought is left out"
    assert visit.bought() == [first]
    reason = visit.card(0).locator(".reason").inner_text()
    assert re.match(r"(Because you bought|Often bought after) ", reason)
    second = visit.buy(visit.card(5))
    assert visit.bought() == [first, second]
    assert visit.items() != after
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.uncheck("#hide")
    assert [body["filters"]["hide_bought"] for path, body in visit.asked if path == "/v1/recommend"][-2:] == [
        True,
        False,
    ]


def test_typing_finds_products_however_they_are_spelt(visit):
    visit.page.locator("#query").press_sequentially("rde mug")
    visit.note("best first, in the same order for everyone", of="found")
    assert visit.card(0, of="found").locator("h3").inner_text() == "red mug"
    assert visit.card(0, of="found").locator(".reason").inner_text() == "Found by its words and its meaning"
    item = visit.buy(visit.card(0, of="found"))
    visit.note("What you bought has a say in the order", of="found")
    assert visit.card(0, of="found").locator(".reason").inner_text().endswith("placed by what you bought")
    sent = [body["events"] for path, body in visit.asked if path == "/v1/events"]
    assert [(one["item"], one["query"], one["kind"]) for (one,) in sent] == [(item, "rde mug", "purchase")]
    visit.page.fill("#query", "")
    expect(visit.page.locator("#found")).to_be_hidden()
    visit.page.fill("#query", "?!")
    visit.note("Nothing found", of="found")


def test_the_switch_gives_the_list_of_all_and_sends_nothing_of_the_visitor(visit):
    everyones = visit.items()
    visit.buy(visit.card(0))
    mine, name, until_now = visit.items(), visit.id, len(visit.asked)
    visit.page.get_by_role("switch", name="Personal ranking").click()
    visit.note("Personal ranking is off, and everyone gets this list")
    assert visit.items() == everyones
    visit.page.fill("#query", "mug")
    visit.note("in the same order for everyone", of="found")
    visit.card(0).locator("[data-does=why]").click()
    expect(visit.page.locator("#why-causes")).to_contain_text("Nothing about you was used")
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("[data-does=buy]:enabled").count() == 0
    asked = visit.asked[until_now:]
    assert {path for path, _ in asked} == {"/v1/recommend", "/v1/search", "/v1/explain"}
    assert all(body["personalized"] is False for _, body in asked)
    assert name not in str(asked)
    assert "history" not in str(asked)
    visit.page.get_by_role("switch", name="Personal ranking").click()
    visit.note("ranked for you by the 1 thing you bought")
    assert visit.items() == mine


def test_what_is_taken_out_is_asked_with_no_more_and_stays_in_the_store(visit):
    first = visit.buy(visit.card(0))
    alone = visit.items()
    second = visit.buy(visit.card(3))
    visit.page.locator("#bought li").first.get_by_role("button").click()
    visit.note("ranked for you by the 1 thing you bought")
    assert visit.items() == alone
    assert visit.bought() == [first, second]
    expect(visit.page.locator("#kept")).to_have_text(re.compile("The shop's store keeps the event"))
    assert visit.asked[-1][1]["history"] == [first]
    assert "user" not in visit.asked[-1][1]


def test_forget_me_makes_a_new_id_and_tells_what_the_shop_keeps(visit):
    everyones, old = visit.items(), visit.id
    item = visit.buy(visit.card(0))
    visit.page.get_by_role("button", name="Forget me").click()
    visit.note("the same for everyone")
    assert visit.items() == everyones
    assert visit.id != old
    assert visit.bought() == []
    assert visit.shop.store.history(old)[0] == [item]
    told = visit.page.locator("#forgotten").inner_text()
    assert "stays in the shop's store" in told
    assert f"fedrec forget STORE --user {old}" in told
    visit.page.reload()
    visit.note("product")
    assert visit.page.locator("#bought li").count() == 0
    assert old not in visit.page.content()


def test_a_visit_lasts_as_long_as_its_tab(visit, browser, shop):
    visit.buy(visit.card(0))
    name, items = visit.id, visit.items()
    visit.page.reload()
    visit.note("ranked for you by the 1 thing you bought")
    assert (visit.id, visit.items()) == (name, items)
    assert visit.page.context.cookies() == []
    assert visit.page.evaluate("localStorage.length") == 0
    with visiting(browser, shop) as other:
        assert other.id != name


def test_why_names_what_was_bought_and_what_it_does(visit):
    visit.buy(visit.card(1))
    visit.buy(visit.card(4))
    reason = visit.card(0).locator(".reason").inner_text()
    visit.card(0).locator("[data-does=why]").click()
    dialog = visit.page.get_by_role("dialog")
    expect(dialog.locator("#why-reason")).to_have_text(reason)
    causes = dialog.locator(".causes li").all_inner_texts()
    assert len(causes) == 2
    assert "speaks for it" in causes[0]
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_filters_are_those_of_the_catalogue(visit):
    assert visit.page.locator("#category option").count() == 9
    visit.page.select_option("#category", "lamp")
    visit.note("5 products")
    assert sorted(visit.page.locator("#offered .facts").all_inner_texts())[0] == "lamp · 2.25"
    visit.page.fill("#low", "3")
    visit.note("2 products")
    visit.page.fill("#high", "1")
    expect(visit.page.locator("#unread")).to_have_text(re.compile("^A price is left out"))
    visit.note("2 products")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.note("12 products")
    expect(visit.page.locator("#unread")).to_be_empty()
    visit.page.get_by_role("button", name="Show more products").click()
    visit.note("24 products")


def test_a_title_that_is_markup_is_text(visit):
    visit.page.select_option("#category", "lamp")
    visit.note("5 products")
    nasty = visit.page.locator(f"[data-item={NASTY_ITEM}]")
    assert nasty.locator("h3").inner_text() == NASTY
    visit.buy(nasty)
    visit.page.fill("#query", NASTY)
    visit.note("best first", of="found")
    visit.card(0, of="found").locator("[data-does=why]").click()
    expect(visit.page.get_by_role("dialog")).to_contain_text(NASTY)
    assert NASTY in visit.page.locator("#bought").inner_text()
    assert NASTY in visit.page.locator("#offered .reason").all_inner_texts()[0]
    assert visit.page.locator("main img, dialog img, main b:has(*)").count() == 0
    assert visit.page.evaluate("window.hacked") is None


def test_the_browser_itself_refuses_markup_and_requests_to_elsewhere(visit):
    with pytest.raises(Error, match="TrustedHTML"):
        visit.page.evaluate("document.body.innerHTML = '<b>x</b>'")
    with pytest.raises(Error, match="Failed to fetch"):
        visit.page.evaluate("fetch('https://example.com/')")
    assert any("violates" in said for said in visit.complaints)
    visit.complaints.clear()


def test_a_service_that_dies_is_said_and_nothing_is_lost_when_it_is_back(visit):
    before = visit.items()
    visit.shop.end()
    try:
        visit.card(0).locator("[data-does=buy]").click()
        trouble = visit.page.get_by_role("alert")
        expect(trouble).to_contain_text("The service does not answer. This page tries again by itself.")
        expect(visit.page.locator("#bought")).to_contain_text("(not sent yet)")
        assert visit.items() == before, "what there was stays to be seen"
        visit.page.fill("#query", "mug")
    finally:
        visit.shop.start()
    expect(trouble).to_be_hidden()
    visit.note("ranked for you by the 1 thing you bought")
    visit.note("What you bought has a say", of="found")
    assert visit.bought() == [before[0]]
    expect(visit.page.locator("#bought")).not_to_contain_text("not sent yet")
    assert all("ERR_CONNECTION_REFUSED" in said for said in visit.complaints)
    visit.complaints.clear()


def test_the_promise_is_that_of_the_model_being_served(visit):
    served = visit.shop.desk.current.served
    model = served.model
    expect(visit.page.locator("#statement")).to_have_text(model.statement)
    expect(visit.page.locator("#model")).to_have_text(model.version)
    expect(visit.page.locator("#items")).to_have_text("40")
    swapped = replace(model, version="another", statement="Nothing is promised.")
    visit.shop.desk.current.served = replace(served, model=swapped)
    try:
        visit.buy(visit.card(0))
        expect(visit.page.locator("#model")).to_have_text("another")
        expect(visit.page.locator("#statement")).to_have_text("Nothing is promised.")
    finally:
        visit.shop.desk.current.served = served
