"""``fedrec search --search-engine``: words by an engine of the shop's own."""

import json
import os
import subprocess
import sys

import pytest

from clients.serving.elastic_link import AUTHORIZATION
from tests.clients.serving.tiny_engine import running
from tests.clients.serving.tiny_shop import settings_of_a_run
from tests.tiny_run import ROOT


@pytest.fixture
def shop_run(tmp_path):
    """The settings of a run over the tiny shop."""
    return settings_of_a_run(tmp_path)


def search(run, *words):
    code = "import logging; logging.basicConfig(level=logging.INFO); from fedrec.cli import main; main()"
    environment = os.environ | {"HOME": str(run), AUTHORIZATION: "ApiKey c2VjcmV0"}
    command = [sys.executable, "-c", code, "search", str(run), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False)


def test_words_are_asked_of_the_engine_and_nothing_of_it_is_shown(shop_run):
    with running() as engine:
        found = search(shop_run, "red mug", "--search-engine", engine.url, "--json")
        assert len(engine.asked("_search")) == 2
        assert engine.requests[-1][2]["authorization"] == "ApiKey c2VjcmV0"
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["hits"][0]["item_id"] == "m1"
    assert found.stderr == ""


def test_an_engine_that_cannot_be_used_is_one_line(shop_run):
    for url, expected in (
        ("http://search.example.org", "--search-engine http://search.example.org: expected https beyond this machine"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9: does not answer (ConnectError); mend it, or leave --search-engine"),
    ):
        refused = search(shop_run, "red mug", "--search-engine", url)
        assert refused.returncode == 2
        assert expected in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
