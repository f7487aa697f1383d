"""The benchmark against peers: everybody does the same work, and the numbers are read rightly."""

import numpy as np
import pytest

from benchmarks.pages import rewrite
from benchmarks.peers import bare_loop, fedrec_engines, flower_opacus, ratios, turns
from benchmarks.peers.pace import Pace
from benchmarks.peers.table import MARKS, section
from benchmarks.peers.turns import Result, measure
from benchmarks.peers.work import REGIMES, base_ranker, checksum_of, made_up_people
from fedrec.errors import RunError
from server.optimizer import AdamState, ServerAdam
from simulations.engines import run_local

TINY = [REGIMES["tiny"], REGIMES["tiny-devices"]]


def pace(said: list[dict] | None = None, *, runs: int = 2, rounds: int = 1) -> Pace:
    """A pace that never waits."""
    return Pace(runs=runs, rounds=rounds, say=(said if said is not None else []).append, wait=lambda: None)


@pytest.mark.parametrize("regime", TINY, ids=lambda regime: regime.name)
def test_fedrec_ends_where_the_bare_loop_ends(regime):
    loop = bare_loop.run(regime, pace(), workers=1)
    ours = fedrec_engines.run(regime, pace(), workers=1)
    assert ours["checksum"] == pytest.approx(loop["checksum"], rel=1e-5)
    assert ours["bytes"] > 0


@pytest.mark.parametrize("regime", TINY, ids=lambda regime: regime.name)
def test_flower_with_opacus_ends_where_the_bare_loop_ends(regime):
    loop = bare_loop.run(regime, pace(), workers=1)
    training = flower_opacus.Training(regime, pace())
    run_local(flower_opacus.server_app(training), flower_opacus.client_app(regime), clients=regime.clients)
    assert training.server.checksum == pytest.approx(loop["checksum"], rel=ratios.AGREEMENT)


@pytest.mark.slow
def test_a_run_with_noise_has_no_checksum_and_says_so():
    found = fedrec_engines.run(REGIMES["tiny-devices"], pace(), workers=1, private=True)
    assert found["checksum"] is None


def test_work_is_the_same_each_time_and_nobody_repeats_an_item():
    regime = REGIMES["tiny"]
    first, second = made_up_people(regime), made_up_people(regime)
    assert np.array_equal(first.items, second.items)
    assert all((np.diff(first.of(person)) != 0).all() for person in range(len(first)))
    assert base_ranker(regime).head.weight.equal(base_ranker(regime).head.weight)


def test_a_checksum_is_what_a_mean_update_came_to():
    _, state = ServerAdam(beta1=0.5).step(AdamState.zeros(2), np.array([1.0, -3.0]), learning_rate=1.0)
    assert checksum_of(state) == 2.0


def test_one_round_warms_up_and_every_run_of_rounds_is_told_and_waited_for():
    said, waits = [], []
    paced = Pace(runs=2, rounds=3, say=said.append, wait=lambda: waits.append(len(said)))
    for _ in range(paced.total):
        paced.after_round()
    assert paced.total == 7
    assert [event["event"] for event in said] == ["ready", "ran", "ran"]
    assert ["seconds" in event for event in said] == [False, True, True]
    assert waits == [1, 2, 3]


def results(**seconds: list[float]) -> list[Result]:
    """Results with nothing but seconds and a checksum; names with an underscore for the hyphen."""
    return [Result(name.replace("_", "-"), seconds=taken, checksum=1.0) for name, taken in seconds.items()]


def test_a_ratio_compares_turn_by_turn_and_a_slow_turn_of_both_does_not_move_it():
    found = results(fedrec_1=[1.0, 10.0, 1.0], loop=[0.9, 9.0, 0.9])
    assert ratios.ratio(found, "fedrec-1", "loop") == pytest.approx(0.9)
    assert ratios.ratio(found, "fedrec-1", "pfl") is None


def test_the_guard_goes_by_processor_time_where_a_busy_machine_would_mislead_it():
    found = results(fedrec_1=[9.0], loop=[1.0])
    found[0].cpu_s, found[1].cpu_s = [1.0], [0.5]
    assert ratios.guarded_ratios(found) == {"fedrec-1/loop": 0.5}


def test_a_contender_that_failed_has_no_ratio():
    found = results(fedrec_1=[1.0], loop=[0.9])
    found[0].cpu_s, found[1].cpu_s = [1.0], [0.5]
    found[1].failure = "no memory"
    assert ratios.guarded_ratios(found) == {}


def test_the_guard_lets_a_fifth_pass_and_no_more():
    recorded = {"quick": {"fedrec-1/loop": 1.0, "fedrec-1/pfl": 1.0}}  # pfl is not everywhere
    assert ratios.falls({"quick": {"fedrec-1/loop": 0.81}}, recorded) == []
    assert ratios.falls({"quick": {"fedrec-1/loop": 0.79}}, recorded) == [
        "quick: fedrec-1/loop: 0.79, recorded 1: 21% less"
    ]


def test_the_guard_does_not_pass_what_was_never_recorded():
    assert ratios.falls({"quick": {"fedrec-1/loop": 1.0}}, {}) == ["quick: nothing recorded; run with --quick --record"]


def test_who_ends_elsewhere_is_named():
    found = results(loop=[1.0], pfl=[1.0], flower=[1.0])
    found[1].checksum, found[2].checksum = 1.00005, 1.002
    assert ratios.disagreements(found) == ["flower: checksum 1.002, loop has 1"]


def test_recording_keeps_what_was_not_measured_this_time(tmp_path):
    path = tmp_path / "recorded.json"
    ratios.record({"quick": {"fedrec-1/loop": 0.5, "fedrec-1/pfl": 2.0}, "other": {"a/b": 1.0}}, path)
    ratios.record({"quick": {"fedrec-1/loop": 0.6}}, path)
    assert ratios.read_recorded(path) == {"quick": {"fedrec-1/loop": 0.6, "fedrec-1/pfl": 2.0}, "other": {"a/b": 1.0}}


def test_the_table_is_written_between_its_marks_alone(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nafter\n", encoding="utf-8")
    found = results(loop=[0.5, 0.7, 0.6], fedrec_1=[1.2, 1.2, 1.2])
    for result in found:
        result.cpu_s = [1.0]
    found.append(Result("pfl", failure="no module named pfl"))
    rewrite(page, section({"compute": found}, machine="a machine"), marks=MARKS)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Title\n\n{MARKS[0]}\n\nMeasured on a machine.")
    assert text.endswith(f"{MARKS[1]}\n\nafter\n")
    assert "| bare loop | 83.3 | 1.00 |" in text
    assert "| fedrec, 1 process | 41.7 | 0.50 |" in text
    assert "did not run: no module named pfl" in text
    assert "fedrec, 1 process over bare loop, at least 0.87: 0.50: not met" in text
    assert "pfl, 1 process, at least 1.10: not measured" in text


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"{MARKS[1]}\n{MARKS[0]}\n", encoding="utf-8")
    with pytest.raises(RunError, match=rf"{page}: expected the two lines"):
        rewrite(page, "text", marks=MARKS)
    assert page.read_text(encoding="utf-8") == f"{MARKS[1]}\n{MARKS[0]}\n"


def test_the_page_of_this_repository_has_its_marks():
    text = (turns.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert 0 < text.index(MARKS[0]) < text.index(MARKS[1])


def test_a_contender_that_cannot_start_is_told_in_its_last_words(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such environment' >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o700)
    (found,) = measure(["pfl"], "tiny", runs=1, pythons={"pfl": str(broken)}, tell=lambda line: None)
    assert found.failure == "no such environment"


@pytest.mark.slow
def test_contenders_take_turns_in_processes_of_their_own_and_agree(tmp_path):
    found = measure(["loop", "fedrec-1", "flower"], "tiny-devices", runs=2, pythons={}, tell=lambda line: None)
    assert [result.failure for result in found] == ["", "", ""]
    assert ratios.disagreements(found) == []
    for result in found:
        assert len(result.seconds) == len(result.cpu_s) == 2
        assert min(result.seconds) > 0
        assert min(result.cpu_s) >= 0
        assert result.peak_mb > 50
        assert result.start_s > 0


@pytest.mark.slow
def test_pfl_agrees_where_its_environment_is_there():
    from benchmarks.peers.pfl_environment import pfl_folder

    python = pfl_folder() / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with pfl; python -m benchmarks.peers.run makes one")
    found = measure(["loop", "pfl"], "tiny", runs=1, pythons={"pfl": str(python)}, tell=lambda line: None)
    assert [result.failure for result in found] == ["", ""]
    assert ratios.disagreements(found) == []
