"""Another model, or another memory, takes the place of the old one between two requests and never within one."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from clients.serving.http import answering
from clients.serving.http.bodies import RecommendBody
from clients.serving.http.service import _Service
from clients.serving.memory_of_store import memory_of
from clients.serving.store import EventStore
from fedrec.config_serving import HttpConfig
from fedrec.errors import RunError
from fedrec.runfolder import ADAPTER
from tests.clients.serving.http.tiny_service import another_run, service_of

PATIENCE_S = 100
BODY = {"history": ["i03", "i09"], "k": 40}


@pytest.fixture
def other(counted_run, tmp_path):
    return another_run(counted_run.out, tmp_path / "other")


@pytest.fixture
def elsewhere(service, tmp_path):
    """The service's store, as another process opens it."""
    with EventStore.open(tmp_path / "shop.sqlite") as opened:
        yield opened


def lists_of(answers):
    assert {answer.status_code for answer in answers} == {200}
    found = {}
    for answer in answers:
        body = answer.json()
        found.setdefault(body["model"], set()).add(tuple(one["item_id"] for one in body["items"]))
    return found


def are_equal(one, other):
    """Whether two memories hold the same numbers."""
    pairs = [(memory.transitions.offsets, memory.transitions.values, memory.popular) for memory in (one, other)]
    return one.again == other.again and all(np.array_equal(*arrays) for arrays in zip(*pairs, strict=True))


def test_while_requests_run_each_gets_the_list_of_one_model_or_the_other(service, other):
    async def many():
        asking = asyncio.create_task(ask())
        await asyncio.to_thread(service.desk.current.swap, other)
        return await asking

    async def ask():
        answers, models, end = [], set(), time.monotonic() + PATIENCE_S
        while len(answers) < 40 or len(models) < 2:
            assert time.monotonic() < end, f"no other model within {PATIENCE_S} s"
            latest = await asyncio.gather(*(service.asked("POST", "/v1/recommend", BODY) for _ in range(8)))
            answers, models = answers + latest, models | {one.json()["model"] for one in latest}
            await asyncio.sleep(0.01)  # the swap has to get its turn
        return answers

    old = service.ask("POST", "/v1/recommend", BODY).json()
    found = lists_of(asyncio.run(many()))
    new = service.ask("POST", "/v1/recommend", BODY).json()
    assert new["model"] != old["model"]
    assert new["items"] != old["items"]
    expected = {one["model"]: {tuple(item["item_id"] for item in one["items"])} for one in (old, new)}
    assert found == expected


def test_a_request_under_way_finishes_on_the_model_it_began_with(service, other):
    began, swapped = threading.Event(), threading.Event()
    old = service.desk.current.served.model.version

    def slowly(*given, **more):
        began.set()
        assert swapped.wait(30)
        return answering.recommend_answer(*given, **more)

    async def both():
        asking = asyncio.create_task(service.desk.think(slowly, RecommendBody(**BODY)))
        await asyncio.to_thread(began.wait, 30)
        await asyncio.to_thread(service.desk.current.swap, other)
        swapped.set()
        return await asking

    assert asyncio.run(both()).model == old
    assert service.ask("POST", "/v1/recommend", BODY).json()["model"] != old


@pytest.mark.parametrize("name", [ADAPTER, "statistics.safetensors", "base/ranker.safetensors", "agreement.json"])
def test_a_corrupt_model_is_refused_and_the_old_one_goes_on(service, other, name):
    before = service.ask("POST", "/v1/recommend", BODY).json()
    file = other / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RunError):
        service.desk.current.swap(other)
    assert service.ask("POST", "/v1/recommend", BODY).json() == before


def test_of_a_forgotten_person_nothing_is_left_in_the_memory_that_is_served(guarded, key):
    current, store = guarded.desk.current, guarded.desk.store
    before = current.served.memory
    answer = guarded.ask("DELETE", "/v1/people/p007", **key)
    assert answer.status_code == 200
    assert answer.json()["events"] == 8
    assert "p007" not in store.people()
    after = current.served.memory
    fresh = memory_of(store, current.served.model, current.served.config)
    assert after is not before
    assert are_equal(after, fresh)
    assert not are_equal(after, before)
    assert guarded.items_of("p007", key) == guarded.items_of(None, key)


def test_a_memory_read_before_somebody_was_forgotten_does_not_come_back(guarded, key, monkeypatch):
    current, reading = guarded.desk.current, threading.Event()
    forgotten, answered = threading.Event(), threading.Event()
    store = guarded.desk.store
    rows = store.training_rows

    def slowly(**more):
        taken = list(rows(**more))
        if threading.current_thread() is background:
            reading.set()
            assert forgotten.wait(30)
            answered.wait(1)  # nor may the deletion be answered before this is done
        return taken

    forget = store.forget

    def forget_and_tell(user_id):
        gone = forget(user_id)
        forgotten.set()
        return gone

    monkeypatch.setattr(store, "training_rows", slowly)
    monkeypatch.setattr(store, "forget", forget_and_tell)
    background = threading.Thread(target=current.remember)
    background.start()
    assert reading.wait(30)
    assert guarded.ask("DELETE", "/v1/people/p007", **key).status_code == 200
    answered.set()
    background.join(30)
    fresh = memory_of(store, current.served.model, current.served.config)
    assert are_equal(current.served.memory, fresh)


def test_a_memory_is_out_of_date_from_a_change_made_elsewhere_until_it_is_read_anew(service, elsewhere):
    current, store = service.desk.current, service.desk.store
    assert store.permissions() == current.read_under
    elsewhere.forget("p007")
    elsewhere.readmit("p007")
    assert store.permissions() != current.read_under
    current.remember()
    assert store.permissions() == current.read_under


def test_the_memory_is_counted_anew_once_for_a_change_made_elsewhere(service, elsewhere, monkeypatch):
    current, store = service.desk.current, service.desk.store
    looks, counts, permissions, remember = [], [], store.permissions, current.remember
    monkeypatch.setattr(store, "permissions", lambda: looks.append(1) or permissions())
    monkeypatch.setattr(current, "remember", lambda: counts.append(1) or remember())
    watcher = _Service(Path(), Path(), service.desk, service.door, None, HttpConfig(watch_s=0.001))

    async def watch(times):
        watching = asyncio.create_task(watcher._watch_people())
        end = len(looks) + times
        while len(looks) < end:
            await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(watch(10))
    assert counts == []
    elsewhere.set_choice("p007", training=False)
    asyncio.run(watch(10))
    assert counts == [1]


def test_where_the_store_cannot_be_read_there_is_no_memory_rather_than_an_old_one(guarded, key, monkeypatch):
    def refuse(**_):
        raise RunError("the disk is gone")

    monkeypatch.setattr(guarded.desk.store, "training_rows", refuse)
    assert guarded.ask("DELETE", "/v1/people/p007", **key).status_code == 503
    assert guarded.desk.current.served.memory is None
    assert guarded.ask("POST", "/v1/recommend", BODY, **key).status_code == 200


def test_a_person_whose_id_has_a_slash_can_be_forgotten(guarded, key):
    guarded.ask("POST", "/v1/events", {"events": [{"user": "a/b c", "item": "i03"}]}, **key)
    assert guarded.ask("DELETE", "/v1/people/a%2Fb%20c", **key).json()["events"] == 1
    assert guarded.ask("DELETE", "/v1/people/%00", **key).status_code == 422


def test_a_new_shop_without_anybody_is_served_without_a_memory(counted_run, tmp_path):
    with EventStore.create(tmp_path / "new.sqlite") as store:
        new = service_of(store, counted_run.out)
        assert new.desk.current.served.memory is None
        assert len(new.items("/v1/recommend")) == 10
