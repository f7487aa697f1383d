"""``fedrec run``: what it says at the end, and every mistake before it begins."""

import pytest

from fedrec.cli.run import _text
from tests.tiny_invitation import Operator as Federation
from tests.tiny_server import Operator

FACTS = {
    "rounds": 3,
    "planned_rounds": 4,
    "void_rounds": 0,
    "seconds": 8.14,
    "admitted": 6,
    "quarantined": {"norm": 2, "late": 1},
    "adapter": "spring/adapter.safetensors",
    "published_round": 2,
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return Federation(tmp_path_factory.mktemp("federation"))


def test_a_run_that_stopped_early_says_what_to_type_to_go_on(federation):
    said = _text(FACTS, federation.agreement, "spring --config server.toml").splitlines()
    assert said[:3] == [
        "rounds    3 of 4, 0 void, 8.1 s",
        "replies   6 counted; set aside: 1 late, 2 norm",
        "adapter   spring/adapter.safetensors, of round 2",
    ]
    assert said[-1] == "next      fedrec run spring --config server.toml --resume"
    assert "next" not in _text(FACTS | {"rounds": 4}, federation.agreement, "spring")


def test_a_server_that_is_not_there_and_rounds_beyond_the_plan_are_one_line(federation, tmp_path):
    operator = Operator.at(tmp_path)
    beyond = operator.fedrec("run", federation.run, "--rounds", 9)
    assert (beyond.exit_code, beyond.stderr) == (
        2,
        "error: --rounds 9: expected 1 to 4, the rounds of the agreed plan\n",
    )
    nowhere = operator.fedrec("run", tmp_path / "gone")
    assert nowhere.exit_code == 2
    assert "gone/agreement.json: not a usable agreement: No such file or directory" in nowhere.stderr
