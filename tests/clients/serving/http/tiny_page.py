"""The page in a real browser, before a real service that can be ended and started again on its port."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from clients.serving.fulltext import FullTextIndex
from clients.serving.http.app import build_app, open_desk
from clients.serving.http.service import _Server, _uvicorn
from clients.serving.search import Searcher
from clients.serving.served import Current, Served
from clients.serving.store import EventStore
from fedrec.config_serving import HttpConfig
from fedrec.data.catalogue import Catalogue
from fedrec.listening import listening
from tests.clients.serving.http.tiny_service import load_tiny

NASTY = "<img src=x onerror='window.hacked=1'> & <b>lamp</b>"
NASTY_ITEM = "i07"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """A Chromium of this machine; without one the test is left out."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine; looked for {', '.join(CHROMIUMS)}")
    return found


def with_categories_and_markup(run: Path) -> Served:
    """The tiny run, its items in categories and one with a title that is markup."""
    served = load_tiny(run)
    old = served.model.catalogue
    titles = tuple(NASTY if one == NASTY_ITEM else title for one, title in zip(old.item_ids, old.titles, strict=True))
    kinds = [title.split()[-1] for title in old.titles]
    catalogue = Catalogue(old.item_ids, titles, old.attributes.with_columns(pl.Series("category", kinds)))
    searcher = Searcher(FullTextIndex.build(catalogue), served.searcher._dense)
    return replace(served, model=replace(served.model, catalogue=catalogue), searcher=searcher)


class Shop:
    """A service on a port of its own; ``end`` and ``start`` as often as wanted."""

    def __init__(self, run: Path, store: EventStore) -> None:
        self.store = store
        config = HttpConfig()
        self.desk = open_desk(Current(with_categories_and_markup, store, run=run), store, config=config)
        self._door = build_app(self.desk, config=config, tokens=None)
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server, begun = _Server(_uvicorn(self._door, None)), threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(begun),))
        self._thread.start()
        assert begun.wait(30)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    async def _serve(self, begun: threading.Event) -> None:
        with listening("127.0.0.1", self._port) as listener:
            self._port = listener.getsockname()[1]
            serving = asyncio.create_task(self._server.serve(sockets=[listener]))
            while not self._server.started:
                await asyncio.sleep(0.01)
            begun.set()
            await serving


@dataclass
class Visit:
    """One tab, and all that it asked for and complained about."""

    page: Page
    shop: Shop
    asked: list[tuple[str, object]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.page.locator("#visitor").inner_text()

    def card(self, place: int, *, of: str = "offered") -> Locator:
        return self.page.locator(f"#{of} .card").nth(place)

    def items(self, of: str = "offered") -> list[str]:
        return [card.get_attribute("data-item") for card in self.page.locator(f"#{of} .card").all()]

    def note(self, text: str, *, of: str = "offered") -> None:
        """Wait until a list says this of itself."""
        expect(self.page.locator(f"#{of} .note")).to_contain_text(text)

    def buy(self, card: Locator) -> str:
        """Buy, and wait until the list has followed."""
        item, before = card.get_attribute("data-item"), int(self.page.locator("#count").inner_text())
        card.locator("[data-does=buy]").click()
        self.note(f"ranked for you by the {before + 1} thing")
        return item

    def search(self, query: str) -> None:
        self.page.fill("#query", query)
        expect(self.page.locator("#found-title")).to_have_text(f"Results for “{query}”")
        self.note("best first", of="found")

    def bought(self) -> list[str]:
        """Ids that the store has of this visitor."""
        return self.shop.store.history(self.id)[0]


@contextmanager
def visiting(browser: Browser, shop: Shop, **options: object) -> Iterator[Visit]:
    """A tab of its own. Nothing may leave the origin, and nothing may be complained about."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
    context.set_default_timeout(8_000)
    visit = Visit(context.new_page(), shop)
    seen: list[str] = []
    context.on("request", lambda request: seen.append(request.url))
    context.on("request", lambda request: visit.asked.append((urlsplit(request.url).path, _body(request.post_data))))
    context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
    context.on("console", lambda said: visit.complaints.append(said.text) if said.type != "log" else None)
    visit.page.goto(shop.address)
    visit.note("product")
    try:
        yield visit
        assert len(seen) > 8
        assert [url for url in seen if not url.startswith(f"{shop.address}/")] == []
        assert visit.complaints == []
    finally:
        context.close()


def _body(text: str | None) -> object:
    return json.loads(text) if text else None
