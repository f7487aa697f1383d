"""The page without a mouse, without a picture of it, in the dark and on a phone."""

from itertools import pairwise

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install 'fedrec[dev]'")
from playwright.sync_api import expect

from tests.clients.serving.http.tiny_page import visiting

LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3, for text of any size
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# Each text's contrast against what lies behind it, WCAG 2.2's formula; what cannot be used is exempt there too.
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((one, i) => one * a + below[i] * (1 - a));
  const light = (colour) => {
    const linear = (one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const below = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
    return over(channels(getComputedStyle(element).backgroundColor), below);
  };
  const ratio = (colour, element) => {
    const back = behind(element), [a, b] = [light(over(channels(colour), back)), light(back)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const isSeen = (one) => one.checkVisibility() && one.getBoundingClientRect().width > 1 && !one.disabled;
  const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const named = (one) => `${one.tagName}.${one.className}: ${one.textContent.trim().slice(0, 40)}`;
  const found = [...document.querySelectorAll("body *")].filter((one) => isSeen(one) && hasText(one))
    .map((one) => [named(one), ratio(getComputedStyle(one).color, one)]);
  for (const one of document.querySelectorAll("input[placeholder]"))
    if (isSeen(one)) found.push(["placeholder", ratio(getComputedStyle(one, "::placeholder").color, one)]);
  return found;
}"""
NAMELESS = """() => {
  const text = (node) => node.textContent;
  const around = (label, one) => [...label.childNodes].filter((node) => !node.contains(one));
  const labelled = (one) => [...one.labels ?? []].flatMap((label) => around(label, one)).map(text);
  const own = (one) => /^(BUTTON|A)$/.test(one.tagName) ? one.textContent : "";
  const other = (one) => document.getElementById(one.getAttribute("aria-labelledby"))?.textContent;
  return [...document.querySelectorAll("button, input, select, a, section, form, aside")]
    .filter((one) => one.checkVisibility() && one.method !== "dialog")
    .filter((one) => ![one.ariaLabel, own(one), other(one), ...labelled(one)].some((name) => name?.trim()))
    .map((one) => one.outerHTML.slice(0, 120));
}"""
IN_SIGHT = """() => {
  const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
  const isInView = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return isInView && style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2;
}"""


def walk(visit, name):
    """Tab to the control of this name; each one on the way can be seen, and shows that it has the focus."""
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate(IN_SIGHT), visit.page.evaluate("document.activeElement.outerHTML")
        if name in visit.page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"):
            return
        if visit.page.evaluate("document.activeElement.labels?.[0]?.textContent ?? ''").startswith(name):
            return
    raise AssertionError(f"{name}: not reached by Tab")


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    press = visit.page.keyboard.press
    press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the products"
    walk(visit, "Search the products")
    visit.page.keyboard.type("blue mug")
    press("Enter")
    visit.note("best first", of="found")
    walk(visit, "Buy: blue mug")
    press("Enter")
    visit.note("ranked for you by the 1 thing you bought")
    visit.note("What you bought has a say", of="found")
    assert visit.page.evaluate("document.activeElement.ariaLabel") == "Buy again: blue mug"
    walk(visit, "Why? blue mug")
    press("Enter")
    expect(visit.page.get_by_role("dialog", name="blue mug")).to_be_visible()
    assert visit.page.evaluate("document.activeElement.textContent") == "Close"
    press("Escape")
    assert visit.page.evaluate("document.activeElement.ariaLabel") == "Why? blue mug"
    walk(visit, "Personal ranking")
    press("Space")
    visit.note("Personal ranking is off")
    press("Space")
    walk(visit, "Take out: blue mug")
    press("Enter")
    visit.note("the same for everyone")
    walk(visit, "Forget me")
    press("Enter")
    expect(visit.page.locator("#forgotten")).to_contain_text("made a new id")


def test_the_focus_stays_in_the_list_when_what_was_bought_leaves_it(visit):
    visit.card(3).locator("[data-does=buy]").focus()
    visit.page.keyboard.press("Enter")
    visit.note("ranked for you by the 1 thing you bought")
    expect(visit.card(3).locator("[data-does=buy]")).to_be_focused()


def test_changes_are_told_to_who_cannot_see_them(visit):
    assert visit.page.locator("#offered .note, #found .note").evaluate_all("all => all.map((one) => one.role)") == [
        "status",
        "status",
    ]
    visit.buy(visit.card(0))
    expect(visit.page.locator("#said")).to_contain_text("Bought: ")
    assert visit.page.locator("#said").get_attribute("role") == "status"


def test_the_page_has_names_landmarks_and_headings_in_order(visit):
    page = visit.page
    visit.buy(visit.card(0))
    visit.search("mug")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(NAMELESS) == []
    for role in ("banner", "main", "complementary", "search"):
        assert page.get_by_role(role).count() == 1, role
    headings = [one for one in page.locator("h1, h2, h3").all() if one.is_visible()]
    levels = [int(one.evaluate("one => one.tagName[1]")) for one in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("svg:not([aria-hidden=true])").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_told_from_what_lies_behind_it(browser, shop, scheme):
    with visiting(browser, shop, color_scheme=scheme, reduced_motion="reduce") as visit:
        page = visit.page
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(251, 250, 247)", "dark": "rgb(20, 22, 26)"}[scheme]
        visit.buy(visit.card(0))
        visit.search("mug")
        measured = page.evaluate(CONTRASTS)
        visit.page.get_by_role("button", name="Forget me").click()
        visit.card(0).locator("[data-does=why]").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.evaluate("document.getElementById('trouble').hidden = false")
        page.evaluate("document.querySelector('#trouble p').textContent = 'trouble'")
        measured += page.evaluate(CONTRASTS)
        assert len(measured) > 80
        assert any("trouble" in text for text, _ in measured)
        assert [(text, round(ratio, 2)) for text, ratio in measured if ratio < LEAST_CONTRAST] == []


@pytest.mark.parametrize("options", [PHONE, {}], ids=["phone", "desk"])
def test_nothing_has_to_be_scrolled_sideways(browser, shop, options):
    with visiting(browser, shop, **options) as visit:
        visit.buy(visit.card(0))
        visit.search("mug")
        visit.page.get_by_role("button", name="Forget me").click()
        expect(visit.page.locator("#forgotten")).to_contain_text("fedrec forget")
        wide, width = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= width == (390 if options else 1280)
        visit.search("x" * 150)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        visit.search("mug")
        visit.card(0).locator("[data-does=why]").click()
        box = visit.page.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        heights = visit.page.locator("main button:visible").evaluate_all("all => all.map((one) => one.offsetHeight)")
        assert min(heights) >= 24  # WCAG 2.2, 2.5.8


def test_nothing_moves_for_who_wants_no_motion(browser, shop):
    seconds = "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one).transitionDuration)"
    moving = f"{seconds}.filter((one) => one !== '0s').length"
    with visiting(browser, shop) as visit:
        assert visit.page.evaluate(moving) > 0
    with visiting(browser, shop, reduced_motion="reduce") as visit:
        assert visit.page.evaluate(moving) == 0
