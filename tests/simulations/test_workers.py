"""Worker processes give the result of one process, die with their parent, and are missed at once when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from fedrec.config import parse_config
from fedrec.errors import RunError
from fedrec.wire import update_from_record
from server.app import build_app
from simulations.engines import run_local
from simulations.local_grid import LocalGrid
from simulations.workers import ASKED_AHEAD, Workers, worker_count
from tests.tiny_federation import SCHEMA, TinyMerchant, client_app, job, message_to

ROOT = Path(__file__).parents[2]
TINY = "tests.tiny_federation:client_app"
DEADLINE_S = 20.0


def telling_app() -> ClientApp:
    """Each client answers with the process it is in, and keeps how often it was asked."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del message
        raise ValueError(f"process={os.getpid()} workspace={context.run_config['workspace']} run={context.run_id}")

    return app


def hanging_app() -> ClientApp:
    def merchant_of(context: Context) -> TinyMerchant:
        del context
        time.sleep(60)  # never so long: whoever waits is killed
        raise ValueError

    return build_client_app(merchant_of)


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers(2, app=TINY) as workers:
        yield workers


def _is_there(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(processes: list[int]) -> None:
    end = time.monotonic() + DEADLINE_S
    while any(map(_is_there, processes)):
        assert time.monotonic() < end, f"still there: {processes}"
        time.sleep(0.05)


def test_result_does_not_depend_on_the_number_of_workers(two: Workers, tmp_path: Path) -> None:
    adapters = []
    for name, workers in (("here", None), ("two", two)):
        run_local(build_app(lambda _, path=tmp_path / name: job(path)), client_app(), clients=5, workers=workers)
        adapters.append((tmp_path / name / "adapter.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_replies_come_in_the_order_of_the_messages_and_those_nobody_waits_for_are_dropped(two: Workers) -> None:
    grid = LocalGrid(client_app(), clients=40, workers=two)
    for asked in ([5, 3, 4, 2, 9, 8], [30, *range(2, 30)]):
        messages = [message_to(node) for node in asked]
        replies = grid.send_and_receive(messages)
        first = next(replies)
        assert first.metadata.src_node_id == asked[0]
        replies.close()  # type: ignore[attr-defined]
        again = list(grid.send_and_receive(messages))
        assert [reply.metadata.src_node_id for reply in again] == asked
        for node, reply in zip(asked, again, strict=True):
            expected = grid.answer(message_to(node)).content
            one, other = (update_from_record(record, schema=SCHEMA).arrays for record in (reply.content, expected))
            assert all((one[name] == other[name]).all() for name in one)


def test_few_messages_are_asked_ahead(two: Workers) -> None:
    taken: list[int] = []

    def messages() -> Iterator[Message]:
        for node in range(2, 102):
            taken.append(node)
            yield message_to(node)

    replies = LocalGrid(client_app(), clients=100, workers=two).send_and_receive(messages())
    for count in range(1, 101):
        next(replies)
        assert len(taken) <= count - 1 + 2 * ASKED_AHEAD


def test_push_and_pull_hand_each_reply_over_once(two: Workers) -> None:
    grid = LocalGrid(client_app(), clients=2, workers=two)
    identifiers = grid.push_messages([message_to(2), message_to(3)])
    assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages(identifiers)] == identifiers
    assert grid.pull_messages(identifiers) == []


def test_client_stays_with_its_worker_and_its_text_comes_back_as_from_one_process() -> None:
    with Workers(2, app=f"{__name__}:telling_app") as workers:
        for run_id in (7, 8):
            grid = LocalGrid(telling_app(), clients=4, run_config={"workspace": "w"}, run_id=run_id, workers=workers)
            said = [reply.error.reason for reply in grid.send_and_receive([message_to(n) for n in (2, 3, 4, 5, 2, 9)])]
            first, second = workers.processes
            for text, process in zip(said, (first, second, first, second, first), strict=False):
                assert text == f"<class 'ValueError'>:<'process={process} workspace=w run={run_id}'>"
            assert "node 9 is not part of this run" in said[5]
        processes = workers.processes
    assert not any(map(_is_there, processes))


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_worker_is_an_error_in_seconds(victim: int) -> None:
    with Workers(2, app=f"{__name__}:hanging_app") as workers:
        grid = LocalGrid(client_app(), clients=2, workers=workers)
        replies = grid.send_and_receive([message_to(2 + victim)])
        started = time.monotonic()
        os.kill(workers.processes[victim], signal.SIGKILL)
        with pytest.raises(
            RunError,
            match=rf"engine local: worker process {victim} has ended with status -9: out of memory, perhaps; "
            r"go on with --resume, or with fewer --workers",
        ):
            next(iter(replies))
        with pytest.raises(RunError, match=f"worker process {victim} has ended"):
            list(grid.send_and_receive([message_to(2 + victim)]))
        processes = workers.processes
    assert time.monotonic() - started < DEADLINE_S
    assert not any(map(_is_there, processes))


def test_app_that_cannot_be_imported_is_an_error(capfd: Any) -> None:
    has_ended = pytest.raises(RunError, match="worker process 0 has ended with status 1")
    with Workers(1, app="tests.nothing_here:app") as workers, has_ended:
        list(LocalGrid(client_app(), clients=2, workers=workers).send_and_receive([message_to(2)]))
    assert "No module named 'tests.nothing_here'" in capfd.readouterr().err


PROGRAM = f"""
from simulations.local_grid import LocalGrid
from simulations.workers import Workers
from tests.tiny_federation import client_app, message_to

with Workers(2, app="{__name__}:hanging_app") as workers:
    grid = LocalGrid(client_app(), clients=2, workers=workers)
    replies = grid.send_and_receive([message_to(2), message_to(3)])
    print(*workers.processes, flush=True)
    next(replies)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_parent_goes_however_it_goes(how: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        processes = [int(word) for word in parent.stdout.readline().split()]
        assert len(processes) == 2
        assert all(map(_is_there, processes))
        assert [os.getsid(process) for process in processes] == processes  # a Ctrl-C of the terminal is not for them
        parent.send_signal(how)
        _wait_until_gone(processes)
        parent.wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("settings", "cores", "expected"),
    [
        ({}, 2, 2),
        ({}, 16, 6),
        ({}, 1, 1),
        ({"rounds": 3}, 16, 1),
        ({"rounds": 3, "workers": 3}, 1, 3),
        ({"workers": 1}, 16, 1),
        ({"rounds": 10, "local_steps": 5}, 16, 10),
        ({"rounds": 1, "clients_per_round": 1}, 16, 1),
    ],
)
def test_workers_are_as_many_as_the_cores_and_the_run_are_worth(
    settings: dict[str, int], cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.workers._cores", lambda: cores)
    config = parse_config({"partition": {"clients": 50}, "federation": settings}, source="test")
    assert worker_count(config) == expected
