"""What the server has seen of a ledger outlives the run: a ledger that was set back between two runs is caught."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.app import build_app
from clients.merchant import Merchant
from clients.opening import local_training
from clients.replies import ReplyCache
from clients.training import RankerLearner
from fedrec.agreement import agreed_ranker, read_agreement, write_agreement
from fedrec.config import parse_config
from fedrec.errors import RunError
from fedrec.runfolder import RunFolder, server_key_path
from fedrec.workspace import client_histories, ledger_files, ledger_of, policy_of
from server.heads import add_heads, read_heads
from server.job import job_of_run, run_job
from server.strategy import ServerState
from simulations.local_grid import LocalGrid
from tests.tiny_federation import client_app, head_of, job
from tests.tiny_ranker import histories, private_plan, run_folder

CLIENTS = 3
SETTINGS = {"partition": {"clients": CLIENTS}, "federation": {"rounds": 4}}
OTHER = "d" * 64


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two federations of the same server and the same clients; ledgers and policies are those in the first folder."""
    first, second = tmp_path / "first", tmp_path / "second"
    people = [np.array([2 * client, 2 * client + 1]) for client in range(CLIENTS)]
    everyone, plan = histories(*[4] * 2 * CLIENTS), private_plan(rounds=4)
    agreed = run_folder(first, everyone, people, plan=plan)
    run_folder(second, everyone, people, plan=plan, run_id="run-2")
    write_agreement(replace(agreed, run_id="run-2"), second)
    shutil.copy2(server_key_path(first), server_key_path(second))
    return first, second


def _merchant(run: Path, home: Path, partition: int) -> Merchant:
    """A client of ``run`` whose policy and ledger are at ``home``, whatever run it takes part in."""
    agreed = read_agreement(run)
    return Merchant(
        agreed,
        learner=RankerLearner(agreed_ranker(agreed, run), client_histories(run, partition), local_training(agreed)),
        policy=policy_of(home, agreed.plan),
        ledger=ledger_of(home, partition, agreed.plan),
        replies=ReplyCache(run / f"reply-{partition}.safetensors"),
        partition=partition,
    )


def _run(run: Path, home: Path, *, heads: Path | None, until_round: int) -> ServerState:
    app = build_app(lambda context: _merchant(run, home, int(context.node_id) - 2))
    with RunFolder.open_for_resume(run) as folder:
        work = job_of_run(folder, parse_config(SETTINGS, source="test"), heads=heads)
        return run_job(LocalGrid(app, clients=CLIENTS), work, until_round=until_round)


@pytest.mark.parametrize("remembers", [True, False])
def test_ledger_set_back_between_two_runs_is_caught_as_long_as_the_server_remembers(
    remembers: bool, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nothing on the client's machine can tell: its ledger, key and witness fit each other."""
    first, second = runs
    heads = tmp_path / "heads.json" if remembers else None
    files, saved = ledger_files(first, 0), tmp_path / "saved"
    _run(first, first, heads=heads, until_round=1)
    saved.mkdir()
    for path in (files.ledger, files.witness):
        shutil.copy2(path, saved / path.name)
    _run(first, first, heads=heads, until_round=2)
    for path in (files.ledger, files.witness):
        shutil.copy2(saved / path.name, path)
    state = _run(second, first, heads=heads, until_round=1)
    assert state.records[0].reasons == ({"E_BUDGET": 1} if remembers else {})
    assert state.records[0].admitted == (2 if remembers else 3)


def test_untouched_ledgers_go_from_run_to_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    heads = tmp_path / "heads.json"
    before = _run(first, first, heads=heads, until_round=2)
    assert read_heads(heads) == before.ledger_heads
    state = _run(second, first, heads=heads, until_round=2)
    assert [record.admitted for record in state.records] == [3, 3]
    assert read_heads(heads) == state.ledger_heads
    assert state.ledger_heads.keys() == before.ledger_heads.keys()
    assert not set(state.ledger_heads.values()) & set(before.ledger_heads.values())


def test_file_is_newer_than_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    """A run that is resumed after another one of the same clients must not fall back to what it saw itself."""
    heads = tmp_path / "heads.json"
    work = job(tmp_path / "run", heads=heads)
    run_job(LocalGrid(client_app(), clients=5), work, until_round=3)
    assert read_heads(heads) == {2 + partition: head_of(partition, 3) for partition in range(5)}
    add_heads(heads, {2: OTHER, 99: OTHER})
    state = run_job(LocalGrid(client_app(), clients=5), work, until_round=3)
    assert state.ledger_heads[2] == OTHER
    assert read_heads(heads)[99] == OTHER


def test_a_round_writes_only_what_it_has_seen_itself(tmp_path: Path) -> None:
    heads, seen = tmp_path / "heads.json", []

    def meanwhile(record: object) -> None:
        seen.append(record)
        if len(seen) == 1:
            add_heads(heads, {99: OTHER})

    work = job(tmp_path / "run", heads=heads)
    add_heads(heads, {99: "e" * 64})
    run_job(LocalGrid(client_app(), clients=5), work, on_round=meanwhile)
    assert read_heads(heads)[99] == OTHER


def test_ends_are_on_disk_before_the_checkpoint_that_rests_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = tmp_path / "heads.json"
    work = job(tmp_path / "run", heads=heads)

    def full(*_: object, **__: object) -> None:
        raise RunError("full")

    run_job(LocalGrid(client_app(), clients=5), work, until_round=1)
    monkeypatch.setattr("server.job.save_checkpoint", full)
    with pytest.raises(RunError, match="full"):
        run_job(LocalGrid(client_app(), clients=5), work)
    assert read_heads(heads)[2] == head_of(0, 2)


def test_no_file_is_no_heads_and_nothing_new_writes_nothing(tmp_path: Path) -> None:
    assert read_heads(tmp_path / "heads.json") == {}
    add_heads(tmp_path / "heads.json", {})
    assert not (tmp_path / "heads.json").exists()


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"format": 1, "heads": {"2": "',
    "a list": b"[]",
    "another format": b'{"format": 2, "heads": {}}',
    "no heads": b'{"format": 1}',
    "heads a list": b'{"format": 1, "heads": []}',
    "a short head": b'{"format": 1, "heads": {"2": "ab"}}',
    "a head that is a number": b'{"format": 1, "heads": {"2": 7}}',
    "a node that is a name": b'{"format": 1, "heads": {"shop": "' + b"d" * 64 + b'"}}',
    "not text": b"\xff\xfe",
    "too deep": b"[" * 99999,
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_file_is_never_taken_for_an_empty_one(what: str, tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_bytes(DAMAGED[what])
    for use in (lambda: read_heads(path), lambda: add_heads(path, {2: OTHER}), lambda: run_with(path, tmp_path)):
        with pytest.raises(RunError, match=r"heads\.json: not the ends of ledgers that a server wrote; put a backup"):
            use()
    assert path.read_bytes() == DAMAGED[what]


def run_with(heads: Path, folder: Path) -> None:
    with job(folder / "run", heads=heads).folder as opened:
        run_job(LocalGrid(client_app(), clients=5), job(opened, heads=heads))


def test_file_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"heads\.json: cannot be read: Is a directory"):
        read_heads(_folder(tmp_path / "heads.json"))
    with pytest.raises(RunError, match=r"none/heads\.json: cannot be written: No such file"):
        add_heads(tmp_path / "none" / "heads.json", {2: OTHER})


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_two_runs_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"

    def write(start: int) -> None:
        for node in range(start, start + 20):
            add_heads(path, {node: OTHER})

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_heads(path)) == 80
