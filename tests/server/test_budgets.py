"""Clients whose ledgers run out decline politely; the run goes on while a quorum is left, and then it says so."""

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.app import build_app
from clients.merchant import load_merchant
from clients.replies import Answer
from fedrec.agreement import read_agreement
from fedrec.config import parse_config
from fedrec.errors import BudgetSpentError, PrivacyError
from fedrec.runfolder import RunFolder
from fedrec.wire import Instruction
from fedrec.workspace import ledger_of
from server.job import Job, job_of_run, run_job
from server.roster import Registered
from server.rounds import Conduct, check_budgets, run_rounds
from server.strategy import ServerState, initial_state
from simulations.local_grid import LocalGrid
from tests.tiny_federation import SCHEMA, SIGNER, TinyMerchant, arrays, client_app, federation
from tests.tiny_ranker import histories, private_plan, run_folder

CLIENTS, ROUNDS = 5, 4


def _job(path: Path, *, spent: Collection[int], rounds_spent: int = 2) -> Job:
    """A real federation in which some ledgers have been charged for an earlier run."""
    people = [np.array([3 * client, 3 * client + 1, 3 * client + 2]) for client in range(CLIENTS)]
    agreed = run_folder(path, histories(*[4] * 3 * CLIENTS), people, plan=private_plan(rounds=ROUNDS))
    for partition in spent:
        ledger = ledger_of(path, partition, agreed.plan)
        for earlier in range(rounds_spent):
            ledger.charge(f"an-earlier-run/{earlier}", agreed.plan.training(1), plan=agreed.plan)
    settings = {"partition": {"clients": CLIENTS}, "federation": {"rounds": ROUNDS, "min_replies": 0.6}}
    return job_of_run(RunFolder.open_for_resume(path), parse_config(settings, source="test"))


def _grid(path: Path) -> LocalGrid:
    return LocalGrid(build_app(lambda context: load_merchant(path, int(context.node_id) - 2)), clients=CLIENTS)


def _left(path: Path, partition: int) -> list[str]:
    plan = read_agreement(path).plan
    return [entry.round_id for entry in ledger_of(path, partition, plan).entries() if entry.state == "released"]


def test_run_goes_on_to_its_end_while_a_quorum_has_budget(tmp_path: Path) -> None:
    path = tmp_path / "run"
    state = run_job(_grid(path), _job(path, spent=[0, 4]))
    assert [record.admitted for record in state.records] == [5, 5, 3, 3]
    assert [dict(record.reasons) for record in state.records] == [{}, {}, {"E_BUDGET": 2}, {"E_BUDGET": 2}]
    assert not any(record.void for record in state.records)
    assert state.spent == {2, 6}
    assert [len(_left(path, partition)) for partition in range(CLIENTS)] == [2, 4, 4, 4, 2]


def test_run_stops_when_no_quorum_can_have_budget_and_publishes_what_was_reached(tmp_path: Path) -> None:
    path = tmp_path / "run"
    work = _job(path, spent=[0, 2, 4])
    with pytest.raises(BudgetSpentError) as stopped:
        run_job(_grid(path), work)
    assert str(stopped.value) == (
        "3 of 5 clients have no budget left for a round, and a round needs 3: stopped after round 3 of 4; "
        "the adapter of round 2 is published"
    )
    assert isinstance(stopped.value, PrivacyError)
    assert stopped.value.exit_code == 3
    assert [line["void"] for line in work.folder.read_events()] == [False, False, True]
    assert load_file(work.folder.adapter).keys() == work.initial.keys()
    moved = [np.abs(load_file(work.folder.adapter)[name] - work.initial[name]).max() for name in work.initial]
    assert max(moved) > 0


def test_stopped_run_asks_again_when_it_is_resumed(tmp_path: Path) -> None:
    """Merchants may have raised their budgets since; here they have not."""
    path = tmp_path / "run"
    work = _job(path, spent=[0, 2, 4], rounds_spent=4)
    with pytest.raises(BudgetSpentError, match="stopped after round 1 of 4; the adapter of round 0 is published"):
        run_job(_grid(path), work)
    with pytest.raises(BudgetSpentError, match="stopped after round 2 of 4"):
        run_job(_grid(path), work)
    assert [_left(path, partition) for partition in (0, 2, 4)] == [[], [], []]


def test_client_that_answers_again_has_budget_again() -> None:
    """A cap of so many rounds a day passes, and a policy may be raised."""

    class Capped(TinyMerchant):
        def train_round(self, instruction: Instruction) -> Answer:
            if instruction.round_index == 1 and self.partition < 2:
                raise PrivacyError("policy max_rounds_per_day")
            return super().train_round(instruction)

    spent = []
    run_rounds(
        LocalGrid(client_app(Capped), clients=CLIENTS),
        federation(rounds=2),
        state=initial_state(arrays(), SCHEMA, measures={}),
        conduct=Conduct(SIGNER),
        save=lambda state: spent.append(state.spent),
    )
    assert spent == [{2, 3}, frozenset()]


def _after_a_void_round(*spent: int, rounds: int = 1) -> ServerState:
    return replace(initial_state(arrays(), SCHEMA, measures={}), round_index=rounds, spent=frozenset(spent))


@pytest.mark.parametrize(
    ("spent", "clients", "stops"),
    [
        ((), 5, False),
        ((2, 3), 5, False),
        ((2, 3, 4), 5, True),
        ((2, 3, 4), 6, False),  # one more is enrolled, though not there
        ((2, 3, 90, 91), 5, False),  # who is no longer enrolled does not count
    ],
)
def test_only_a_quorum_that_can_never_be_reached_stops_a_run(spent: tuple[int, ...], clients: int, stops: bool) -> None:
    enrolled = {2 + index: Registered("k") for index in range(clients)}
    state = _after_a_void_round(*spent)
    stopped = pytest.raises(BudgetSpentError, match=f"3 of {clients} clients have no budget left")
    with stopped if stops else nullcontext():
        check_budgets(state, federation(), clients=enrolled)


def test_a_run_that_is_over_is_over() -> None:
    check_budgets(_after_a_void_round(2, 3, 4, 5, 6, rounds=8), federation(), clients=range(2, 7))
