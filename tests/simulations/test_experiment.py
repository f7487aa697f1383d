"""The order of things in a run: what is refused leaves nothing, what is prepared stays, what is there is not redone."""

import json

import pytest

from fedrec.config import parse_config
from fedrec.errors import ConfigError, DataError, RunError
from fedrec.report.progress import Progress
from fedrec.runfolder import RunFolder
from simulations import experiment
from simulations.experiment import simulate
from tests.tiny_run import SETTINGS, Bench, read_lines


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return Bench.at(tmp_path)


def config_of(bench, **sections):
    files = {"events": str(bench.events), "catalogue": str(bench.catalogue)}
    values = SETTINGS | {"data": SETTINGS["data"] | files, "privacy": {"enabled": False}} | sections
    return parse_config(json.loads(json.dumps(values)), source="test")


def run(config, bench, **changes):
    settings = {"resume": False, "prepare_only": False, "progress": Progress(enabled=False)} | changes
    return simulate(config, out=bench.out, **settings)


def test_it_returns_what_it_writes(bench):
    assert run(config_of(bench), bench) == bench.summary()


def test_a_finished_run_is_refused_without_resume_and_left_alone(bench):
    run(config_of(bench), bench)
    before = {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="exists; pass --resume or another --out"):
        run(config_of(bench), bench)
    assert {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()} == before


def test_another_process_at_work_is_refused_and_its_folder_left_alone(bench):
    run(config_of(bench), bench, prepare_only=True)
    with RunFolder.open_for_resume(bench.out), pytest.raises(RunError, match="in use by another process"):
        run(config_of(bench), bench, resume=True)
    assert (bench.out / "agreement.json").exists()


def test_a_refused_start_leaves_no_folder(bench):
    bench.events.write_text("user_id,item_id,timestamp\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no rows"):
        run(config_of(bench), bench)
    assert not bench.out.exists()


def test_a_refused_resume_keeps_the_folder(bench):
    run(config_of(bench), bench, prepare_only=True)
    content = bench.events.read_text(encoding="utf-8")
    bench.events.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        run(config_of(bench), bench, resume=True)
    bench.events.write_text(content, encoding="utf-8")
    assert run(config_of(bench), bench, resume=True) is not None


def test_resume_with_other_settings_is_refused_and_lets_go_of_the_folder(bench):
    run(config_of(bench), bench, prepare_only=True)
    with pytest.raises(ConfigError, match=r"config\.toml: differs from the settings given"):
        run(config_of(bench, seed=1), bench, resume=True)
    RunFolder.open_for_resume(bench.out).close()


def test_preparing_stops_before_the_first_round(bench):
    assert run(config_of(bench), bench, prepare_only=True) is None
    assert list((bench.out / "checkpoints").iterdir()) == []
    assert read_lines(bench.out / "events.jsonl") == []


def test_what_shows_only_when_the_parts_meet_is_refused_while_preparing(bench):
    federation = SETTINGS["federation"] | {"clients_per_round": 5}
    with pytest.raises(ConfigError, match="clients_per_round=5: expected 1 to 4"):
        run(config_of(bench, federation=federation), bench, prepare_only=True)
    assert not bench.out.exists()


def test_resume_keeps_the_time_that_pretraining_took(bench):
    run(config_of(bench), bench, prepare_only=True)
    timing = bench.out / "workspace" / "timing.json"
    timing.write_text('{"pretrain_s": 123.0}', encoding="utf-8")
    assert run(config_of(bench), bench, resume=True)["timing"]["pretrain_s"] == 123.0


def test_the_base_is_made_once(bench, monkeypatch):
    run(config_of(bench), bench)

    def again(*args, **kwargs):
        raise AssertionError("the base was made twice")

    monkeypatch.setattr("simulations.prepare.make_base", again)
    assert run(config_of(bench), bench, resume=True) is not None


def test_the_reference_without_noise_has_its_own_ledgers_and_no_noise(bench):
    run(config_of(bench, privacy={"enabled": True}, compare=True), bench)
    inner = bench.out / experiment.REFERENCE
    ours, theirs = (
        json.loads((folder / "agreement.json").read_text(encoding="utf-8"))["plan"] for folder in (bench.out, inner)
    )
    assert ours["noise_multiplier"] > 0.0 == theirs["noise_multiplier"]
    assert (ours["private"], theirs["private"]) == (True, False)
    same = ("sampling_rate", "steps", "local_steps", "clip_norm", "clipping", "expected_people")
    assert [ours[name] for name in same] == [theirs[name] for name in same]
    assert [line["epsilon_spent"] for line in read_lines(inner / "events.jsonl")] == [None] * 3
    assert [line["round"] for line in read_lines(bench.out / "events.jsonl")] == [1, 2, 3]
