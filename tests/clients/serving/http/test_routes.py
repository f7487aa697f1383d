"""Each route answers what the function behind it answers, and shows no more than it was asked for."""

import numpy as np
import pytest

from clients.serving.explaining import explain
from clients.serving.ranking import Filters
from clients.serving.reading import read_history
from clients.serving.recommending import Wishes, recommend
from clients.serving.scoring import score_parts

PAST = ["i03", "i09", "i12"]
TEN = Wishes(10, Filters(), diversity=0.0, pool=100)


def ids(served, found):
    return [served.model.catalogue.item_ids[one.item] for one in found]


def test_a_list_for_a_past_is_that_of_the_model_and_the_memory(asked_only):
    served = asked_only.desk.current.served
    assert served.memory is not None
    expected = recommend(served.model, np.array([3, 9, 12]), TEN, memory=served.memory)
    assert asked_only.items("/v1/recommend", history=PAST) == ids(served, expected)
    without = recommend(served.model, np.array([3, 9, 12]), TEN)
    assert ids(served, without) != ids(served, expected), "else the memory would not be seen"


def test_a_list_for_a_person_reads_their_past_and_its_times_from_the_store(asked_only):
    served, store = asked_only.desk.current.served, asked_only.desk.store
    items, times = read_history(store, "p007", served.model.catalogue, latest=1000)
    expected = recommend(served.model, items, TEN, memory=served.memory, times=times)
    assert asked_only.items("/v1/recommend", user="p007") == ids(served, expected)


def test_filters_k_and_diversity_are_passed_on(asked_only):
    some = {"max_price": 3.0, "min_price": 2.0, "in_stock": ["i04", "i05", "i06", "i30"]}
    assert set(asked_only.items("/v1/recommend", history=PAST, filters=some)) == {"i04", "i05", "i06"}
    assert len(asked_only.items("/v1/recommend", history=PAST, k=3)) == 3
    everything = asked_only.items("/v1/recommend", history=PAST, k=40, filters={"hide_bought": True})
    assert set(PAST).isdisjoint(everything)
    plain, mixed = (asked_only.items("/v1/recommend", history=PAST, diversity=diversity) for diversity in (0, 1))
    assert plain != mixed


def test_without_personalisation_all_get_the_same_list(asked_only):
    lists = [
        asked_only.items("/v1/recommend", personalized=False, k=40, filters={"hide_bought": True}, **who)
        for who in ({}, {"user": "p007"}, {"user": "p011"}, {"history": PAST})
    ]
    assert all(one == lists[0] for one in lists)
    assert lists[0] != asked_only.items("/v1/recommend", k=40, user="p007")


def test_who_said_no_to_the_shop_gets_the_list_of_all_whatever_the_request_says(service):
    same, mine = (service.items("/v1/recommend", k=40, **who) for who in ({}, {"user": "p007"}))
    found = service.items("/v1/search", query="mug")
    assert mine != same
    assert service.items("/v1/search", query="mug", user="p007") != found
    service.desk.store.set_choice("p007", personalized=False)
    assert service.items("/v1/recommend", k=40, user="p007", personalized=True) == same
    assert service.items("/v1/search", query="mug", user="p007", personalized=True) == found


def test_an_event_changes_the_next_list_of_that_person_and_of_nobody_else(service):
    before = [service.items("/v1/recommend", user=user) for user in ("new", "p007")]
    answer = service.ask("POST", "/v1/events", {"events": [{"user": "new", "item": "i30"}]})
    assert answer.json() == {"added": 1, "repeated": 0, "forgotten": 0}
    after = [service.items("/v1/recommend", user=user) for user in ("new", "p007")]
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert service.desk.store.history("new")[0] == ["i30"]


def test_an_event_that_comes_twice_with_its_id_counts_once(service):
    event = {"user": "new", "item": "i30", "kind": "cart", "timestamp": 7, "query": "mug", "event_id": "e1"}
    answers = [service.ask("POST", "/v1/events", {"events": [event]}).json() for _ in range(2)]
    assert [answer["added"] for answer in answers] == [1, 0]
    assert [answer["repeated"] for answer in answers] == [0, 1]


def test_a_batch_with_an_unknown_item_is_refused_whole_unless_it_is_to_be_kept(service):
    events = [{"user": "new", "item": "i30"}, {"user": "new", "item": "nowhere"}]
    refused = service.ask("POST", "/v1/events", {"events": events})
    assert refused.status_code == 422
    assert refused.json()["error"]["message"] == "events.1.item: item 'nowhere' is not in the catalogue"
    assert service.desk.store.history("new")[0] == []
    kept = service.ask("POST", "/v1/events", {"events": events, "keep_unknown": True})
    assert kept.json()["added"] == 2


def test_search_finds_and_a_past_orders_what_is_found(asked_only):
    plain = asked_only.ask("POST", "/v1/search", {"query": "rde mug"}).json()
    assert plain["items"][0]["title"] == "red mug"
    assert plain["personalized"] is False
    served = asked_only.desk.current.served
    own = np.sum(list(score_parts(served.model, np.array([3, 9, 12]), memory=served.memory).values()), axis=0)
    expected = served.searcher.search("mug", k=10, allowed=np.ones(40, bool), user_scores=own)
    assert asked_only.items("/v1/search", query="mug", history=PAST) == ids(served, expected)
    assert asked_only.items("/v1/search", query="mug", history=PAST) != asked_only.items("/v1/search", query="mug")


def test_search_hides_what_was_bought_on_request(asked_only):
    hidden = asked_only.items("/v1/search", query="mug", history=["i00", "i05"], filters={"hide_bought": True}, k=100)
    assert hidden
    assert {"i00", "i05"}.isdisjoint(hidden)


def test_an_explanation_names_the_causes_in_the_order_of_what_they_do(asked_only):
    served = asked_only.desk.current.served
    (expected,) = explain(served.model, np.array([3, 9, 12]), [13], memory=served.memory)
    answer = asked_only.ask("POST", "/v1/explain", {"history": PAST, "item": "i13"}).json()
    assert [one["item_id"] for one in answer["causes"]] == ids(served, expected.causes)
    assert answer["causes"][0]["effect"] == "raises"
    assert answer["item"]["reason"] == expected.reason
    assert expected.sentence.startswith(expected.reason)


def test_reasons_are_those_of_the_explanations_and_hold_no_number(asked_only):
    body = {"history": PAST, "reasons": True, "k": 5}
    for one in asked_only.ask("POST", "/v1/recommend", body).json()["items"]:
        explained = asked_only.ask("POST", "/v1/explain", {"history": PAST, "item": one["item_id"]}).json()
        assert one["reason"] == explained["item"]["reason"]
        assert not any(letter.isdigit() for letter in one["reason"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend", {"history": PAST, "reasons": True}),
        ("/v1/search", {"query": "red mug", "history": PAST}),
        ("/v1/explain", {"history": PAST, "item": "i13"}),
    ],
)
def test_no_number_of_a_score_is_shown_unless_the_token_has_the_scope_for_it(guarded, key, path, body):
    def numbers(value):
        if isinstance(value, dict):
            return [one for part in value.values() for one in numbers(part)]
        if isinstance(value, list):
            return [one for part in value for one in numbers(part)]
        return [value] if isinstance(value, float) else []

    plain = guarded.ask("POST", path, body, **key)
    assert plain.status_code == 200
    assert numbers(plain.json()) == []
    raw = guarded.ask("POST", path, body | {"scores": True}, **key)
    assert numbers(raw.json())
    scope = path.removeprefix("/v1/")
    refused = guarded.ask("POST", path, body | {"scores": True}, headers={"authorization": f"Bearer {scope}"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_statement_is_that_of_the_model_being_served(asked_only):
    model = asked_only.desk.current.served.model
    expected = {"statement": model.statement, "model": model.version, "items": 40}
    assert asked_only.ask("GET", "/v1/statement").json() == expected
    assert asked_only.ask("POST", "/v1/recommend", {}).json()["model"] == model.version


def test_health_readiness_and_metrics_are_answered(asked_only):
    assert asked_only.ask("GET", "/healthz").json() == {"state": "ok"}
    assert asked_only.ask("GET", "/readyz").json() == {"state": "ok"}
    page = asked_only.ask("GET", "/metrics")
    assert 'fedrec_serving_requests_total{route="/healthz",status="200"}' in page.text
    assert page.headers["content-type"].startswith("text/plain")


def test_it_is_not_ready_when_the_store_is_gone(service):
    service.desk.store.close()
    for file in service.desk.store._file.path.parent.glob("shop.sqlite*"):
        file.unlink()
    answer = service.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store")
    assert str(service.desk.store._file.path) not in answer.text
    assert service.ask("GET", "/healthz").status_code == 200


def test_every_route_is_described_and_its_page_loads_nothing_from_elsewhere(asked_only):
    paths = asked_only.ask("GET", "/openapi.json").json()["paths"]
    assert {"/v1/recommend", "/v1/search", "/v1/explain", "/v1/events", "/v1/statement"} < set(paths)
    assert "ErrorAnswer" in str(paths["/v1/recommend"]["post"]["responses"]["422"])
    assert asked_only.ask("GET", "/docs").status_code == asked_only.ask("GET", "/redoc").status_code == 404
