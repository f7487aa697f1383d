"""``fedrec serve`` as it runs: a process that is killed, told, and given another run."""

import os
import signal
import socket
import threading
import time

import httpx
import pytest

from clients.serving.http.service import run_named, tokens_for
from clients.serving.http.tokens import new_token
from clients.serving.store import EventStore
from fedrec.errors import ConfigError, RunError
from fedrec.runfolder import ADAPTER
from tests.clients.serving.http.tiny_service import another_run, bearer, process, started
from tests.tiny_run import fedrec


def model_of(serving):
    return serving.ask("GET", "/v1/statement").json()["model"]


def test_another_run_is_served_once_it_is_named_and_a_corrupt_one_never(counted_run, tmp_path, store):
    another_run(counted_run.out, tmp_path / "good")
    (another_run(counted_run.out, tmp_path / "bad") / ADAPTER).write_bytes(b"not a model")
    current = tmp_path / "current"
    current.write_text(f"{counted_run.out}\n")
    with process(current, store) as serving:
        first, failed, stop = model_of(serving), [], threading.Event()

        def ask():
            with httpx.Client(base_url=serving.address, trust_env=False, timeout=30) as client:
                while not stop.is_set():
                    answer = client.post("/v1/recommend", json={"user": "p007"})
                    failed.extend([] if answer.status_code == 200 else [answer.text])
                    stop.wait(0.02)

        asking = threading.Thread(target=ask)
        asking.start()
        current.write_text("bad")
        serving.until(lambda: "run: not taken: " in serving.said())
        assert model_of(serving) == first
        current.write_text("nowhere")
        os.kill(serving.running.pid, signal.SIGHUP)
        serving.until(lambda: "expected a run folder, or a text file that names one" in serving.said())
        current.write_text("good")
        serving.until(lambda: model_of(serving) != first)
        stop.set()
        asking.join(30)
        assert failed == []
        page = serving.ask("GET", "/metrics").text
        assert 'fedrec_serving_swaps_total{outcome="refused"} 1.0' in page
        assert 'fedrec_serving_swaps_total{outcome="taken"} 1.0' in page
    assert "Traceback" not in serving.said()


def test_no_acknowledged_event_is_lost_when_the_service_is_killed(counted_run, store):
    acknowledged = []
    with process(counted_run.out, store) as serving:

        def send(worker):
            with httpx.Client(base_url=serving.address, trust_env=False, timeout=30) as client:
                for index in range(10_000):
                    name = f"e{worker}-{index}"
                    events = [{"user": "new", "item": "i05", "event_id": name}]
                    try:
                        answer = client.post("/v1/events", json={"events": events})
                    except httpx.TransportError:
                        return
                    if answer.status_code == 200:
                        acknowledged.append(name)

        senders = [threading.Thread(target=send, args=(worker,)) for worker in range(3)]
        for sender in senders:
            sender.start()
        serving.until(lambda: len(acknowledged) > 20)
        serving.running.kill()
        serving.running.wait(30)
        for sender in senders:
            sender.join(30)
    with EventStore.open(store) as opened:
        with opened._file.connection() as connection:
            kept = {name for (name,) in connection.execute("SELECT event_id FROM events WHERE event_id IS NOT NULL")}
        assert kept >= set(acknowledged)
        assert len(kept) <= len(acknowledged) + 3
        assert opened.damage() is None


@pytest.mark.slow
def test_who_is_forgotten_or_says_no_by_hand_is_soon_out_of_the_memory(counted_run, store):
    with process(counted_run.out, store) as serving:
        time.sleep(0.1)
        assert "memory: taken" not in serving.said()
        with EventStore.open(store) as opened:
            serving.until(lambda: serving.ask("GET", "/readyz").status_code == 200)
            time.sleep(2.5)  # one look before
            opened.forget("p007")
        serving.until(lambda: "memory: taken" in serving.said())


@pytest.mark.slow
def test_a_token_that_is_taken_out_opens_nothing_after_a_signal(counted_run, store, tmp_path):
    tokens = tmp_path / "tokens.txt"
    kept, gone = new_token(tokens, "kept", ["recommend"]), new_token(tokens, "gone", ["recommend"])
    with process(counted_run.out, store, "--tokens", tokens) as serving:

        def ask(token):
            return serving.ask("POST", "/v1/recommend", {}, headers=bearer(token)).status_code

        assert (ask(kept), ask(gone)) == (200, 200)
        tokens.write_text(tokens.read_text().splitlines()[0] + "\n")
        os.kill(serving.running.pid, signal.SIGHUP)
        serving.until(lambda: ask(gone) == 401)
        assert ask(kept) == 200
        tokens.write_text("nonsense\n")
        os.kill(serving.running.pid, signal.SIGHUP)
        serving.until(lambda: "tokens: not taken: " in serving.said())
        assert ask(kept) == 200


@pytest.mark.slow
def test_what_is_not_http_or_has_headers_without_end_is_cut(counted_run, store):
    with process(counted_run.out, store) as serving:
        host, port = serving.address.removeprefix("http://").split(":")
        for sent in (b"\x16\x03\x01\x02\x00nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                assert b" 400 " in connection.recv(1_000).split(b"\r\n")[0]
        assert serving.ask("GET", "/healthz").status_code == 200
    assert serving.said().count("\n") <= 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "shop.example"])
def test_beyond_this_machine_it_does_not_start_without_tokens(host):
    with pytest.raises(ConfigError, match=r"others can reach it, so give --tokens FILE .* proxy with TLS in front"):
        tokens_for(host, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_alone_no_tokens_are_needed(host):
    assert tokens_for(host, None) is None


def test_mistakes_at_the_start_are_one_line(counted_run, store, tmp_path):
    def refused(*flags, run=counted_run.out):
        said = fedrec("serve", run, "--store", store, *flags, home=tmp_path)
        assert said.exit_code == 2
        assert said.stderr.startswith("error: ")
        assert said.stderr.count("\n") == 1
        return said.stderr

    assert "--host 0.0.0.0: others can reach it" in refused("--host", "0.0.0.0")
    assert "cannot be read: No such file" in refused("--tokens", tmp_path / "none")
    assert "expected a run folder, or a text file that names one" in refused(run=tmp_path / "none")
    assert "--open: with --tokens no page is shown" in refused("--open", "--tokens", tmp_path / "none")
    assert "--requests-per-s=-1.0: expected > 0" in refused("--requests-per-s", "-1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot listen there" in refused("--port", port)
    (tmp_path / "text.sqlite").write_text("not a store")
    said = fedrec("serve", counted_run.out, "--store", tmp_path / "text.sqlite", home=tmp_path)
    assert (said.exit_code, said.stderr.count("\n")) == (2, 1)


def test_the_newest_run_is_served_beside_its_store_and_shown_in_the_browser(counted_run, tmp_path, monkeypatch):
    runs, seen = tmp_path / "runs", tmp_path / "seen"
    runs.mkdir()
    (runs / "mine").symlink_to(counted_run.out)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with started("--open", home=tmp_path) as serving:
        assert serving.facts == {"address": serving.address, "run": "runs/mine", "store": str(runs / "shop.sqlite")}
        assert (runs / "shop.sqlite").exists()
        serving.until(lambda: seen.exists() and seen.read_text() == f"{serving.address}\n")
        page = serving.ask("GET", "/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "<title>fedrec shop</title>" in page.text


def test_a_run_is_named_by_its_folder_or_by_a_file_beside_it(tmp_path):
    (tmp_path / "run").mkdir()
    named = tmp_path / "current"
    named.write_text(" run\n")
    assert run_named(tmp_path / "run") == run_named(named) == tmp_path / "run"
    for text in ("", "\n", "none", "x" * 5_000, "a\0b"):
        named.write_text(text)
        with pytest.raises(RunError, match="current: expected a run folder, or a text file that names one"):
            run_named(named)


@pytest.mark.slow
def test_sigint_ends_it_as_sigterm_does(counted_run, store):
    with process(counted_run.out, store) as serving:
        serving.running.send_signal(signal.SIGINT)
        assert serving.ended() == 0
