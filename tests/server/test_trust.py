"""What a round publishes under each trust model, through the real clients and the real server."""

import math
from pathlib import Path

import numpy as np
import pytest

from clients.app import app
from fedrec.config import Config, parse_config
from fedrec.data.histories import Histories
from fedrec.errors import ConfigError, PrivacyError
from fedrec.privacy.plan import PrivacyPlan
from fedrec.runfolder import RunFolder
from fedrec.schema import flatten
from fedrec.workspace import ledger_of
from server.averaging import Averaging
from server.job import Job, job_of_run
from server.rounds import run_rounds
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.fedrec.privacy.noises import is_noise_of
from tests.tiny_federation import federation
from tests.tiny_ranker import histories, private_plan, run_folder

CLIENTS, ROUNDS = 4, 12
QUIET = Histories.from_lists([[0]] * 8)  # one event each, nothing to predict: all that leaves is noise
SHARERS = {"local": 1, "distributed": CLIENTS, "central": 1}
MEAN = {"local": math.sqrt(CLIENTS), "distributed": CLIENTS, "central": CLIENTS}  # how much thinner its noise is


def plan_of(trust: str) -> PrivacyPlan:
    return private_plan(rounds=ROUNDS, trust=trust, noise_sharers=SHARERS[trust])


def settings(trust: str, **federation: object) -> Config:
    public = {"rounds": ROUNDS, **federation}
    values = {"partition": {"clients": CLIENTS}, "federation": public, "privacy": {"trust": trust}}
    return parse_config(values, source="test")


def prepared(path: Path, trust: str, people: Histories = QUIET) -> RunFolder:
    run_folder(path, people, list(np.arange(len(people)).reshape(CLIENTS, -1)), plan=plan_of(trust))
    return RunFolder.open_for_resume(path)


def rounds_of(job: Job, *, answering: int = CLIENTS, until_round: int = ROUNDS) -> list[ServerState]:
    """The state after each round, when the last clients stay away."""
    states: list[ServerState] = []
    grid = LocalGrid(app, clients=CLIENTS, run_config={"workspace": str(job.folder.path)})
    deliver = grid.answer

    def some(message):
        is_there = message.metadata.dst_node_id - 2 < answering
        return deliver(message) if is_there else deliver(_spoiled(message))

    grid.answer = some  # type: ignore[method-assign]
    start = initial_state(job.initial, job.federation.schema, measures={})
    run_rounds(grid, job.federation, job.conduct, state=start, save=states.append, until_round=until_round)
    return states


def _spoiled(message):
    """An instruction that no client follows: it is empty."""
    message.content.clear()
    return message


def means(states: list[ServerState], job: Job) -> np.ndarray:
    """Every round's mean update, (T, P), out of Adam's first moments."""
    decay = job.federation.optimizer.beta1
    firsts = np.array([np.zeros_like(flatten(job.initial, job.federation.schema)), *(s.adam.first for s in states)])
    return (firsts[1:] - decay * firsts[:-1]) / (1 - decay)


@pytest.mark.parametrize("trust", SHARERS)
def test_noise_on_a_rounds_mean_is_the_planned_one(tmp_path: Path, trust: str) -> None:
    """Red when clients forget to share or share too thinly, and when the server forgets its noise or adds it twice."""
    with prepared(tmp_path / "run", trust) as folder:
        job = job_of_run(folder, settings(trust))
        noise, plan = means(rounds_of(job), job).ravel(), plan_of(trust)
        scale = plan.noise_multiplier * plan.clip_norm / (plan.normaliser * MEAN[trust])
        assert len(noise) > 1000
        assert is_noise_of(noise, scale)
        for wrong in (2 / 3, 3 / 2, 1 / math.sqrt(CLIENTS), math.sqrt(CLIENTS), math.sqrt(2)):
            assert not is_noise_of(noise * wrong, scale)


@pytest.mark.parametrize(("trust", "counts"), [("local", True), ("distributed", False), ("central", True)])
def test_a_sum_without_all_who_share_the_noise_is_never_formed(tmp_path: Path, trust: str, counts: bool) -> None:
    with prepared(tmp_path / "run", trust) as folder:
        states = rounds_of(job_of_run(folder, settings(trust)), answering=CLIENTS - 1)
    assert [state.records[-1].void for state in states] == [not counts] * ROUNDS
    assert [state.records[-1].admitted for state in states] == [CLIENTS - 1] * ROUNDS
    assert states[-1].adam.first.any() == counts


@pytest.mark.parametrize("trust", SHARERS)
def test_people_are_in_the_mean_and_every_ledger_is_charged_the_plan(tmp_path: Path, trust: str) -> None:
    with prepared(tmp_path / "run", trust, histories(*[9] * 24)) as folder:
        job = job_of_run(folder, settings(trust))
        states, plan = rounds_of(job), plan_of(trust)
        assert not any(state.records[-1].void for state in states)
        for partition in range(CLIENTS):
            assert ledger_of(folder.path, partition, plan).spent() == pytest.approx(plan.epsilon_after(ROUNDS))


def test_a_round_run_again_after_a_crash_has_fresh_noise_and_no_second_charge(tmp_path: Path) -> None:
    with prepared(tmp_path / "run", "central", histories(*[9] * 24)) as folder:
        job, plan = job_of_run(folder, settings("central")), plan_of("central")
        first, second = (means(rounds_of(job, until_round=1), job)[0] for _ in range(2))
        assert ledger_of(folder.path, 0, plan).spent() == pytest.approx(plan.epsilon_after(1))
    scale = plan.noise_multiplier * plan.clip_norm / (plan.normaliser * CLIENTS)
    assert is_noise_of(first - second, math.sqrt(2) * scale), "the same sums, two independent noises"


def test_a_quorum_below_the_sharers_is_refused() -> None:
    with pytest.raises(ConfigError, match="a quorum of 3 brings less than the noise that 4 clients share; leave fed"):
        federation(noise_sharers=4)
    assert federation(noise_sharers=3).quorum == 3


@pytest.mark.parametrize("other", [{"trim": 0.2}, {"weighted": True}])
def test_the_servers_noise_goes_on_nothing_but_the_plain_sum(other: dict) -> None:
    with pytest.raises(ConfigError, match=r"noise belongs on the plain sum; set federation\.weights = uniform"):
        Averaging(noise_std=1.0, **other)


def test_the_noise_is_in_the_sum_once_from_its_start() -> None:
    total = Averaging(noise_std=1.0).start(1000)
    for _ in range(10):
        total.add(np.full(1000, 5.0), weight=1.0)
    assert is_noise_of(total.mean() - 5.0, 1 / 10)
    np.testing.assert_array_equal(total.mean(), total.mean())


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_a_server_with_a_roster_runs_local_trust_alone(tmp_path: Path, trust: str) -> None:
    refused = pytest.raises(PrivacyError, match=rf"privacy\.trust={trust}: needs .* simulation only; use local")
    with prepared(tmp_path / "run", trust) as folder, refused:
        job_of_run(folder, settings(trust), roster=dict)
