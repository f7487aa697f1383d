"""One service for tests that only ask."""

import pytest

from tests.clients.serving.http.tiny_service import ALL, bearer, service_of, stocked, tokens_of


@pytest.fixture(scope="session")
def asked_only(counted_run, tmp_path_factory):
    """A service on this machine, for tests that change nothing."""
    with stocked(counted_run, tmp_path_factory.mktemp("asked") / "shop.sqlite") as store:
        yield service_of(store, counted_run.out)


@pytest.fixture
def service(counted_run, tmp_path):
    """A service with a store of its own."""
    with stocked(counted_run, tmp_path / "shop.sqlite") as store:
        yield service_of(store, counted_run.out)


@pytest.fixture
def store(counted_run, tmp_path):
    """The file of a store, for a process to open."""
    path = tmp_path / "shop.sqlite"
    stocked(counted_run, path).close()
    return path


@pytest.fixture
def guarded(counted_run, tmp_path):
    """One that asks for tokens: ``all-scopes`` may do everything, others what their name says."""
    scopes = {name: name for name in ("recommend", "search", "explain", "events", "forget", "metrics", "debug")}
    with stocked(counted_run, tmp_path / "shop.sqlite") as store:
        yield service_of(store, counted_run.out, tokens=tokens_of(**scopes, **{ALL: ",".join(scopes)}))


@pytest.fixture(scope="module")  # while it is open no test of the same thread can run a loop of its own
def browser():
    """A headless Chromium; where there is none, the test is left out."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'fedrec[dev]' brings playwright")
    from tests.clients.serving.http.tiny_page import chromium

    path = chromium()
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def shop(counted_run, tmp_path_factory):
    """A service with a page, on a port."""
    from tests.clients.serving.http.tiny_page import Shop

    with stocked(counted_run, tmp_path_factory.mktemp("page") / "shop.sqlite") as store:
        opened = Shop(counted_run.out, store)
        yield opened
        opened.end()


@pytest.fixture
def visit(browser, shop):
    """A tab on a desk."""
    from tests.clients.serving.http.tiny_page import visiting

    with visiting(browser, shop) as opened:
        yield opened


@pytest.fixture(scope="session")
def key():
    return {"headers": bearer(ALL)}
