"""A round whose messages were lost is asked again; who has answered it sends the same reply and is charged nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from clients.app import build_app
from clients.merchant import load_merchant
from fedrec.agreement import read_agreement
from fedrec.config import parse_config
from fedrec.runfolder import RunFolder
from fedrec.workspace import ledger_of
from server.job import Job, job_of_run, run_job
from server.rounds import was_cut_short
from server.strategy import RoundRecord
from simulations.local_grid import LocalGrid
from tests.tiny_federation import federation
from tests.tiny_ranker import histories, private_plan, run_folder

CLIENTS, ROUNDS = 4, 3


class ForgetfulGrid(LocalGrid):
    """Loses the clients' replies of some calls, by number from 1, after they were made."""

    def __init__(self, *arguments, lost: set[int], keep: int = 0, **options) -> None:
        super().__init__(*arguments, **options)
        self.calls, self._lost, self._keep = 0, lost, keep

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        self.calls += 1
        replies = list(super().send_and_receive(messages, timeout=timeout))
        yield from replies[: self._keep] if self.calls in self._lost else replies


def _job(path: Path, *, retries: int) -> Job:
    people = [np.array([3 * client, 3 * client + 1, 3 * client + 2]) for client in range(CLIENTS)]
    run_folder(path, histories(*[4] * 3 * CLIENTS), people, plan=private_plan(rounds=ROUNDS))
    settings = {"partition": {"clients": CLIENTS}, "federation": {"rounds": ROUNDS, "min_replies": 0.5}}
    job = job_of_run(RunFolder.open_for_resume(path), parse_config(settings, source="test"))
    return replace(job, conduct=replace(job.conduct, retries=retries))


def _grid(path: Path, *, lost: set[int], keep: int = 0) -> ForgetfulGrid:
    app = build_app(lambda context: load_merchant(path, int(context.node_id) - 2))
    return ForgetfulGrid(app, clients=CLIENTS, lost=lost, keep=keep)


def _charges(path: Path) -> list[int]:
    plan = read_agreement(path).plan
    entries = [ledger_of(path, partition, plan).entries() for partition in range(CLIENTS)]
    return [sum(entry.state == "released" for entry in one) for one in entries]


def test_lost_round_is_asked_again_and_charged_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    grid = _grid(path, lost={2, 3}, keep=1)
    state = run_job(grid, _job(path, retries=2))
    assert grid.calls == ROUNDS + 2
    assert [(one.round_index, one.admitted, one.void) for one in state.records] == [
        (1, 4, False), (2, 4, False), (3, 4, False)
    ]  # fmt: skip
    assert _charges(path) == [ROUNDS] * CLIENTS


def test_after_the_last_try_the_round_is_void_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    grid = _grid(path, lost={1, 2})
    state = run_job(grid, _job(path, retries=1))
    assert grid.calls == ROUNDS + 1
    assert [one.void for one in state.records] == [True, False, False]
    assert dict(state.records[0].reasons) == {"no-reply": CLIENTS}


@pytest.mark.parametrize(
    ("admitted", "reasons", "expected"),
    [
        (1, {"no-reply": 2}, True),
        (0, {"failed": 1, "no-reply": 1, "E_BUDGET": 2}, True),
        (1, {"E_BUDGET": 3}, False),
        (1, {"not-signed": 2, "too-long": 1}, False),
        (2, {"no-reply": 2}, False),
    ],
)
def test_a_round_was_cut_short_when_what_was_lost_would_have_made_it_count(admitted, reasons, expected):
    tiny = replace(federation(), clients=4, clients_per_round=4, min_replies=0.5)
    counted = {"seconds": 1.0, "bytes_up": 0, "measures": {}, "epsilon_spent": None, "quarantined": 0}
    record = RoundRecord(
        round_index=1, asked=4, admitted=admitted, reasons=reasons, void=admitted < tiny.quorum, **counted
    )
    assert was_cut_short(record, tiny) is expected
