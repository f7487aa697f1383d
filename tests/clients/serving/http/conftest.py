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
def guarded(counted_run, tmp_path):
    """One that asks for tokens: ``all-scopes`` may do everything, others what their name says."""
    scopes = {name: name for name in ("recommend", "search", "explain", "events", "forget", "metrics", "debug")}
    with stocked(counted_run, tmp_path / "shop.sqlite") as store:
        yield service_of(store, counted_run.out, tokens=tokens_of(**scopes, **{ALL: ",".join(scopes)}))


@pytest.fixture(scope="session")
def key():
    return {"headers": bearer(ALL)}
