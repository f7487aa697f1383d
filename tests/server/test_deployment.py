"""A federation folder is begun, or gone on with, whatever a crash left in it."""

from collections.abc import Collection
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.replies import Answer
from fedrec.cli import app
from fedrec.config import FederationConfig, parse_config
from fedrec.errors import ConfigError, RunError
from fedrec.run_config import write_run_config
from fedrec.runfolder import RunFolder
from fedrec.wire import Instruction, Refusal, RefusalCode
from server import deployment
from server.deployment import DEADLINE_S, LOSSES_IN_A_ROW, RETRIES, run_federation
from server.runtime_grid import RunLostError
from server.settings import ServerSettings
from server.strategy import RoundRecord
from simulations.local_grid import LocalGrid
from tests.tiny_federation import TinyMerchant, client_app, job
from tests.tiny_invitation import Operator
from tests.tiny_superlink import free_port

COUNTED = RoundRecord(1, 3, 3, 0, {}, void=False, seconds=0.0, bytes_up=0, measures={}, epsilon_spent=None)


def begun(folder: Path, events: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "events.jsonl").write_text(events)
    return folder


def run(path: Path, *, resume: bool) -> None:
    settings = ServerSettings(keys=path / "keys", state=path / "state", superlink_port=free_port())
    run_federation(path, settings, until_round=None, resume=resume, on_round=lambda record: None)


def test_a_folder_in_which_rounds_were_run_needs_resume(tmp_path):
    with pytest.raises(RunError, match=r"spring: 1 rounds were run; go on with --resume"):
        run(begun(tmp_path / "spring", '{"round": 1}\n'), resume=False)


@pytest.mark.parametrize("left", ['{"round": 1}\n{"round": 2, "asked', '{"round": 1}\n\0\0\0\n'])
def test_a_line_that_a_crash_cut_short_keeps_nobody_from_resuming(left, tmp_path):
    with pytest.raises(ConfigError, match=r"spring/config\.toml: cannot be read"):  # what it lacks
        run(begun(tmp_path / "spring", left), resume=True)


def test_the_deadline_is_the_one_that_the_settings_and_the_flag_name():
    said = FederationConfig.model_fields["deadline_s"].description or ""
    assert f"when absent {DEADLINE_S:g} between machines" in said
    shown = CliRunner().invoke(app, ["federation", "new", "--help"], env={"COLUMNS": "200"}).stdout
    assert f"seconds to wait for replies in a round [{DEADLINE_S:g}]" in " ".join(shown.split())


@pytest.mark.parametrize(("settings", "waits_s"), [({}, DEADLINE_S), ({"deadline_s": 7.0}, 7.0)])
def test_a_round_between_machines_always_ends_and_is_asked_again_when_it_was_cut_short(settings, waits_s, tmp_path):
    operator = Operator(tmp_path)
    config = parse_config({"partition": {"clients": 3}, "federation": settings}, source="test")
    write_run_config(config, operator.run / "config.toml")
    (operator.run / "checkpoints").mkdir()
    state = ServerSettings(keys=operator.keys, state=tmp_path / "state")
    with RunFolder.open_for_resume(operator.run) as folder:
        job = deployment._job(folder, state)
    assert (job.conduct.timeout_s, job.conduct.retries) == (waits_s, RETRIES)
    assert job.heads == tmp_path / "state" / "heads.json"
    assert job.conduct.roster is not None
    assert job.conduct.roster() == {}


def test_a_run_is_given_up_after_losses_without_a_round_between_them(tmp_path, monkeypatch):
    rounds_before_loss = [0, 0, 1, 0, 2] + [0] * 99
    taken: list[int] = []

    @contextmanager
    def lost(settings):
        yield None

    def run_job(grid, job, *, on_round, until_round):
        taken.append(rounds_before_loss[len(taken)])
        for number in range(taken[-1]):
            on_round(replace(COUNTED, round_index=number + 1))
        raise RunLostError("lost")

    monkeypatch.setattr(deployment, "open_grid", lost)
    monkeypatch.setattr(deployment, "run_job", run_job)
    monkeypatch.setattr(deployment, "PAUSE_S", 0.0)
    with pytest.raises(RunLostError):
        deployment._run_through_losses(None, None, until_round=None, on_round=lambda record: None)
    assert taken == [0, 0, 1, 0, 2] + [0] * (LOSSES_IN_A_ROW - 1)


class Refusing(TinyMerchant):
    """Refuses every round but those that are named."""

    answered: Collection[int] = ()

    def train_round(self, instruction: Instruction) -> Answer:
        if instruction.round_index not in self.answered:
            raise Refusal(RefusalCode.PLAN, "another code")
        return super().train_round(instruction)


@pytest.mark.parametrize(
    ("answered", "until", "rounds", "said"),
    [
        ([], None, 3, "round 1 to 3: too few replies counted; of the last round were set aside: 5 E_PLAN; see "),
        ([1, 4], None, 7, "round 5 to 7: too few replies counted; of the last round were set aside: 5 E_PLAN; see "),
        ([], 2, 2, "round 1 to 2: too few replies counted"),
        ([1], 2, 2, None),
        ([2, 4, 6, 8], None, 8, None),
    ],
)
def test_a_run_in_which_nothing_counts_fails_before_it_has_used_up_the_plan(
    answered, until, rounds, said, tmp_path, monkeypatch
):
    def merchant(partition: int) -> Refusing:
        one = Refusing(partition)
        one.answered = answered
        return one

    grid = LocalGrid(client_app(merchant), clients=5)
    monkeypatch.setattr(deployment, "open_grid", lambda settings: nullcontext(grid))
    work = job(tmp_path / "run")
    with pytest.raises(RunError, match=said) if said else nullcontext():
        deployment._run_through_losses(work, None, until_round=until, on_round=lambda record: None)
    assert len(work.folder.read_events()) == rounds
