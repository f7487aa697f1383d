"""Marks that stand for people, their items and their queries are looked for wherever the service writes."""

import logging

import pytest

from clients.serving.http.tokens import SCOPES, digest_of
from tests.clients.serving.http.tiny_service import ALL, bearer, process, stocked

PERSON, QUERY, EVENT = "seed-person-4711", "seed-query-0815 mug", "seed-event-1234"
SEEDS = ("seed-", "4711", "0815", ALL)
REQUESTS = [
    ("POST", "/v1/events", {"events": [{"user": PERSON, "item": "i05", "query": QUERY, "event_id": EVENT}]}),
    ("POST", "/v1/events", {"events": [{"user": PERSON, "item": "i06", "query": QUERY, "event_id": EVENT}]}),
    ("POST", "/v1/events", {"events": [{"user": PERSON, "item": "i05", "timestamp": 9e11}]}),
    ("POST", "/v1/events", {"events": [{"user": PERSON + "\x01", "item": "i05"}]}),
    ("POST", "/v1/recommend", {"user": PERSON, "k": 3, "reasons": True}),
    ("POST", "/v1/recommend", {"user": PERSON + "\x01"}),
    ("POST", "/v1/recommend", {"user": PERSON, "history": ["i05"]}),
    ("POST", "/v1/recommend", {"user": PERSON, PERSON: PERSON}),
    ("POST", "/v1/recommend", {"user": [PERSON]}),
    ("POST", "/v1/recommend", {"user": PERSON, "filters": {"min_price": PERSON}}),
    ("POST", "/v1/search", {"query": QUERY, "user": PERSON}),
    ("POST", "/v1/search", {"query": [QUERY]}),
    ("POST", "/v1/explain", {"user": PERSON, "item": "i05"}),
    ("GET", f"/v1/{PERSON}", None),
    ("GET", f"/v1/recommend?user={PERSON}", None),
    ("DELETE", f"/v1/people/{PERSON}", None),
    ("DELETE", f"/v1/people/{PERSON}%01", None),
]


def seeds_in(text):
    return [seed for seed in SEEDS if seed in text]


def test_nothing_personal_is_in_any_answer_metric_or_log_line(guarded, key, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    for method, path, body in REQUESTS:
        answer = guarded.ask(method, path, body, **key)
        assert answer.status_code < 500
        assert seeds_in(answer.text) == [], (path, body)
        assert seeds_in(str(answer.headers)) == []
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert seeds_in("\n".join(ours)) == []
    assert seeds_in(guarded.metrics()) == []
    assert seeds_in("".join(capsys.readouterr())) == []


@pytest.mark.parametrize("where", ["read_history", "allowed_items"])
def test_a_bug_is_noted_without_what_was_asked(guarded, key, caplog, monkeypatch, where):
    def broken(*_, **__):
        raise KeyError(PERSON)

    monkeypatch.setattr(f"clients.serving.http.answering.{where}", broken)
    caplog.set_level(logging.DEBUG)
    answer = guarded.ask("POST", "/v1/search", {"query": QUERY, "user": PERSON}, **key)
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "code": "internal",
        "message": "the fault is ours; it was noted, without your data",
    }
    notes = [record for record in caplog.records if record.name == "clients.serving.http.door"]
    assert [note.getMessage().split(" at=")[0] for note in notes] == ["request failed: route=/v1/search error=KeyError"]
    assert all(note.exc_info is None for note in notes)
    assert seeds_in("".join(note.getMessage() for note in notes)) == []
    assert 'route="/v1/search",status="500"' in guarded.metrics()


def test_a_process_writes_no_personal_word_to_its_output_or_its_log(counted_run, tmp_path):
    stocked(counted_run, tmp_path / "shop.sqlite").close()
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"all {','.join(SCOPES)} {digest_of(ALL).hex()}\n")
    tokens.chmod(0o600)
    with process(counted_run.out, tmp_path / "shop.sqlite", "--tokens", tokens) as serving:
        for method, path, body in REQUESTS:
            assert serving.ask(method, path, body, headers=bearer(ALL)).status_code < 500
        assert seeds_in(serving.ask("GET", "/metrics", headers=bearer(ALL)).text) == []
        rest = serving.running
    assert seeds_in(serving.said()) == []
    assert rest.returncode == 0
