"""Kill it anywhere, ``--resume``: the same rounds, each once, each paid for once."""

import os
import pkgutil
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from fedrec.agreement import read_agreement
from fedrec.workspace import ledger_of
from tests.tiny_run import (
    ROOT,
    SETTINGS,
    Bench,
    event_rows,
    fedrec,
    read_lines,
    without_clock,
    write_csv,
    write_settings,
)

ROUNDS = SETTINGS["federation"]["rounds"]
CLIENTS = SETTINGS["partition"]["clients"]

KILLED = """
import os, signal
import clients.merchant, fedrec.cli

train = clients.merchant.Merchant._train
def train_or_die(self, instruction):
    if (instruction.round_index, self._partition) == (2, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return train(self, instruction)

clients.merchant.Merchant._train = train_or_die
fedrec.cli.main()
"""


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_in_round_2(bench, *flags):
    """Run in a process of its own that dies by SIGKILL in round 2, at its second client, after the charge."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(bench.folder)}
    command = [sys.executable, "-c", KILLED, "simulate", *map(str, bench.inputs), "--out", str(bench.out), *flags]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def charges(folder):
    """How often each client booked each round."""
    plan = read_agreement(folder).plan
    return [
        Counter(entry.round_id for entry in ledger_of(folder, client, plan).entries() if entry.state == "reserved")
        for client in range(CLIENTS)
    ]


def each_round_once(folder):
    run_id = read_agreement(folder).run_id
    return [Counter(f"{run_id}/{number}" for number in range(1, ROUNDS + 1))] * CLIENTS


def crash(*args, **kwargs):
    raise Crash


def test_killed_private_run_resumes_with_each_round_once_and_paid_once(tmp_path):
    bench = Bench.at(tmp_path)
    assert kill_in_round_2(bench) == -9
    assert [line["round"] for line in read_lines(bench.out / "events.jsonl")] == [1]
    first = read_lines(bench.out / "events.jsonl")[0]
    assert not (bench.out / "summary.json").exists()
    assert bench.resume("--json").exit_code == 0
    lines = read_lines(bench.out / "events.jsonl")
    assert lines[0] == first
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    assert all(line["admitted"] == CLIENTS and not line["void"] for line in lines)
    assert charges(bench.out) == each_round_once(bench.out)
    privacy = bench.summary()["privacy"]
    assert privacy["steps"] == ROUNDS
    assert privacy["per_client_epsilon"]["max"] == privacy["epsilon"] <= 8.0
    spent = [line["epsilon_spent"] for line in lines]
    assert spent == sorted(set(spent))


@pytest.mark.slow
def test_killed_run_without_privacy_resumes_to_the_bytes_of_an_unbroken_one(bare_run, tmp_path):
    whole, _ = bare_run
    broken = Bench.at(tmp_path)
    assert kill_in_round_2(broken, "--no-dp") == -9
    assert broken.resume().exit_code == 0
    assert (broken.out / "adapter.safetensors").read_bytes() == (whole.out / "adapter.safetensors").read_bytes()
    assert without_clock(broken.out / "events.jsonl") == without_clock(whole.out / "events.jsonl")
    assert broken.summary()["metrics"] == whole.summary()["metrics"]


CRASHES = {
    "making the base": ("simulations.prepare.make_base", 1),
    "making ledgers": ("fedrec.workspace._dataset", 3),
    "signing the agreement": ("simulations.prepare.write_agreement", 1),
    "timing the preparation": ("simulations.experiment.write_json", 1),
    "measuring round 0": ("server.job.measure", 1),
    "before a charge": ("fedrec.privacy.ledger.Ledger.charge", 6),
    "between charge and training": ("clients.merchant.private_direction", 6),
    "between training and keeping the reply": ("clients.replies.ReplyCache.keep", 6),
    "between keeping the reply and noting it": ("fedrec.privacy.ledger.Ledger.release", 6),
    "between replies and the checkpoint": ("server.job.save_checkpoint", 3),
    "between the halves of a checkpoint": ("server.checkpoint.write_text", 3),
    "between checkpoint and event": ("fedrec.runfolder.RunFolder.append_event", 2),
    "publishing the adapter": ("server.job.write_arrays", 1),
    "measuring the table": ("simulations.experiment.measure_rows", 1),
    "writing the report": ("fedrec.report.page.build_report", 1),
}


def crash_at(monkeypatch, target, *, call):
    """Let the given call of a function, counted from 1, be the last thing the process does."""
    original, calls = pkgutil.resolve_name(target), Counter()

    def counted(*args, **kwargs):
        calls[target] += 1
        return crash() if calls[target] == call else original(*args, **kwargs)

    monkeypatch.setattr(target, counted)


@pytest.mark.parametrize(("target", "call"), CRASHES.values(), ids=CRASHES)
def test_wherever_it_stops_it_resumes_to_the_same_run(target, call, bare_run, tmp_path, monkeypatch):
    whole, _ = bare_run
    bench = Bench.at(tmp_path)
    with monkeypatch.context() as patch:
        crash_at(patch, target, call=call)
        with pytest.raises(Crash):
            bench.simulate("--no-dp")
    outcome = bench.resume()
    assert outcome.exit_code == 0, outcome.stderr
    assert (bench.out / "adapter.safetensors").read_bytes() == (whole.out / "adapter.safetensors").read_bytes()
    assert without_clock(bench.out / "events.jsonl") == without_clock(whole.out / "events.jsonl")
    assert charges(bench.out) == each_round_once(bench.out)
    assert bench.summary()["metrics"] == whole.summary()["metrics"]


@pytest.mark.parametrize("target", ["copy_workspace", "open_budgets", "write_agreement"])
def test_a_crash_while_preparing_the_reference_is_mended(target, tmp_path, monkeypatch):
    bench = Bench.at(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(f"simulations.experiment.{target}", crash)
        with pytest.raises(Crash):
            bench.simulate("--no-dp", "--compare")
    assert bench.resume().exit_code == 0
    assert "centralized" in bench.summary()["metrics"]
    assert charges(bench.out) == each_round_once(bench.out)


@pytest.fixture
def finished(private_run, tmp_path):
    """A copy of a finished private run."""
    bench, _ = private_run
    shutil.copytree(bench.out, tmp_path / "run")
    return Bench.at(tmp_path)


def test_going_on_with_other_code_than_the_run_was_prepared_with_is_refused(finished, tmp_path, monkeypatch):
    bench = Bench.at(tmp_path / "new")
    assert bench.simulate("--prepare-only").exit_code == 0
    monkeypatch.setattr("simulations.experiment.code_digest", lambda: "0" * 64)
    outcome = bench.resume()
    assert outcome.exit_code == 3
    assert "policy.toml: allowed_code: the code was changed since this run was prepared; start again" in outcome.stderr
    assert not any(charges(bench.out))
    assert finished.resume().exit_code == 0  # nothing is left to train: measured by today's code


def test_resuming_a_finished_run_measures_again_and_spends_nothing(finished):
    before, metrics = charges(finished.out), finished.summary()["metrics"]
    adapter = (finished.out / "adapter.safetensors").read_bytes()
    lines = read_lines(finished.out / "events.jsonl")
    assert finished.resume().exit_code == 0
    assert charges(finished.out) == before
    assert (finished.out / "adapter.safetensors").read_bytes() == adapter
    assert read_lines(finished.out / "events.jsonl") == lines
    assert finished.summary()["metrics"] == metrics


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_truncated_newest_checkpoint_falls_back_to_the_one_before_and_spends_nothing(end, finished):
    metrics, lines = finished.summary()["metrics"], without_clock(finished.out / "events.jsonl")
    truncate(finished.out / "checkpoints" / f"round-{ROUNDS:05d}.{end}")
    outcome = finished.resume()
    assert outcome.exit_code == 0, outcome.stderr
    assert without_clock(finished.out / "events.jsonl") == lines
    assert charges(finished.out) == each_round_once(finished.out)
    assert finished.summary()["metrics"] == metrics


def test_line_that_a_crash_cut_short_is_written_again(finished):
    events = finished.out / "events.jsonl"
    lines = without_clock(events)
    events.write_bytes(events.read_bytes()[:-20])
    outcome = finished.resume()
    assert outcome.exit_code == 0, outcome.stderr
    assert without_clock(events) == lines


def test_no_intact_checkpoint_is_one_line(finished):
    for path in (finished.out / "checkpoints").glob("*.json"):
        truncate(path)
    outcome = finished.resume()
    assert outcome.exit_code == 2
    newest = f"round-{ROUNDS:05d}.json"
    assert f"{newest}: damaged, and so is every older checkpoint; start again with another --out" in outcome.stderr
    assert (finished.out / "summary.json").exists(), "nothing is lost"


def test_resume_without_out_is_one_line(tmp_path):
    outcome = fedrec("simulate", "--resume", home=tmp_path)
    assert outcome.exit_code == 2
    assert outcome.stderr == "error: --resume: needs --out, the folder of the run to go on with\n"


def test_resume_of_nothing_is_one_line(tmp_path):
    bench = Bench.at(tmp_path)
    outcome = bench.resume()
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(f"error: {bench.out}: no run to resume")
    assert not bench.out.exists()


@pytest.mark.parametrize("flags", [["--epsilon", 4], ["--rounds", 5], ["--seed", 1], ["--no-dp"]])
def test_resume_with_other_settings_is_refused(flags, finished):
    before = {path: path.read_bytes() for path in finished.out.rglob("*.json*")}
    outcome = finished.resume(*flags)
    assert outcome.exit_code == 2
    assert "config.toml: differs from the settings given; resume with the run's own settings" in outcome.stderr
    assert {path: path.read_bytes() for path in finished.out.rglob("*.json*")} == before


def test_resume_with_another_settings_file_is_refused(finished):
    write_settings(finished.config, {"federation.server_learning_rate": 0.5})
    outcome = finished.resume("--config", finished.config)
    assert outcome.exit_code == 2
    assert "config.toml: differs from the settings given" in outcome.stderr


def test_resume_with_half_of_its_settings_is_refused(finished):
    path = finished.out / "config.toml"
    path.write_text(path.read_text().partition("\n[local]")[0] + "\n")
    outcome = finished.resume()
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith(
        f"error: {path}: cut short: it does not end with federation.workers; put the run's"
    )


def test_resume_with_other_data_is_refused(tmp_path):
    bench = Bench.at(tmp_path)
    assert bench.simulate("--prepare-only").exit_code == 0
    write_csv(bench.events, event_rows(seed=1))
    outcome = bench.resume()
    assert outcome.exit_code == 2
    assert "run: was prepared from other data or settings; choose another --out" in outcome.stderr


def test_prepared_folder_is_run_by_resume(bare_run, tmp_path):
    whole, _ = bare_run
    bench = Bench.at(tmp_path)
    outcome = bench.simulate("--no-dp", "--prepare-only", "--json")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert f"go on with: fedrec simulate --out {bench.out} --resume" in outcome.stderr
    assert not (bench.out / "events.jsonl").exists()
    assert bench.resume().exit_code == 0
    assert (bench.out / "adapter.safetensors").read_bytes() == (whole.out / "adapter.safetensors").read_bytes()
