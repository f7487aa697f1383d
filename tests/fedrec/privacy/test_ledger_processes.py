"""Processes that die, that compete, and that run out of disk."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fedrec.privacy.ledger import Charge, Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from tests.fedrec.privacy.ledgers import generous, new_ledger, reopened
from tests.killing import killed_at_random

OPEN = """
import json, os, resource, sys
from pathlib import Path
from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
files = LedgerFiles(*map(Path, json.loads(sys.argv[1])))
plan, policy = PrivacyPlan.from_dict(json.loads(sys.argv[2])), Policy.model_validate_json(sys.argv[3])
def opened():
    return Ledger.open(files, dataset="8e3f", policy=policy, durable=sys.argv[4] == "durable")
def charge(ledger, round_id):
    ledger.charge(round_id, plan.training(1), plan=plan)
    os.write(1, f"{round_id}\\n".encode())  # whole or not at all, whenever it is killed
"""

# A fresh process for each line read, without importing everything anew.
MORTAL = """
for run in map(str.strip, sys.stdin):
    child = os.fork()
    if child == 0:
        ledger, index = opened(), 0
        while True:
            charge(ledger, f"{run}/{index}")
            index += 1
    print("pid", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""

GREEDY = """
print("ready", flush=True)
run, ledger = sys.stdin.readline().strip(), opened()
try:
    for index in range(15):
        charge(ledger, f"{run}/{index}")
except PrivacyError as refusal:
    print(refusal)
"""

SHORT_OF_DISK = """
ledger, room = opened(), int(sys.stdin.readline())
largest = max(path.stat().st_size for path in files)
resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, resource.RLIM_INFINITY))
try:
    for index in range(plan.steps):
        charge(ledger, f"full/{index}")
except PrivacyError as refusal:
    print(refusal)
"""


@contextmanager
def process(
    code: str, ledger: Ledger, plan: PrivacyPlan, *, policy: Policy, durable: bool = True
) -> Iterator[subprocess.Popen]:
    """A Python process that has the ledger's files, the plan and the policy, and reads lines."""
    paths = json.dumps([str(path) for path in ledger.files])
    arguments = [paths, json.dumps(plan.to_dict()), policy.model_dump_json(), "durable" if durable else "fast"]
    command = [sys.executable, "-c", OPEN + code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.stdin.close()


@pytest.fixture
def long_plan() -> PrivacyPlan:
    """10,000 steps under a lot of noise, so that no limit is met."""
    return PrivacyPlan(
        epsilon=8.0,
        delta=1e-5,
        noise_multiplier=50.0,
        sampling_rate=0.25,
        steps=10_000,
        local_steps=1,
        clip_norm=1.0,
        clipping="flat",
        expected_people=80,
    )


@pytest.mark.parametrize(
    ("durable", "kills"),
    [(True, 200), (False, 20)],
)
def test_no_acknowledged_charge_is_lost_when_a_process_is_killed(tmp_path, long_plan, durable, kills):
    policy = generous(long_plan)
    ledger = new_ledger(tmp_path, policy)
    acknowledged: set[str] = set()
    with process(MORTAL, ledger, long_plan, policy=policy, durable=durable) as mortal:
        for run in range(kills):
            acknowledged |= killed_at_random(mortal, run)
            booked = [entry.round_id for entry in reopened(ledger, policy).entries() if entry.state == "reserved"]
            assert set(booked) >= acknowledged
            assert len(booked) <= len(acknowledged) + run + 1  # one a kill may be booked and not acknowledged: spent
    assert len(acknowledged) > kills
    again = reopened(ledger, policy)
    assert again.charge(min(acknowledged), long_plan.training(1), plan=long_plan) is Charge.ALREADY_CHARGED
    assert sum(spending.steps for spending in again.spendings()) >= len(acknowledged)


def test_four_processes_on_one_ledger_grant_exactly_the_capacity(tmp_path, make_plan):
    plan = make_plan()
    policy = generous(plan)
    ledger = new_ledger(tmp_path, policy)
    with ExitStack() as stack:
        running = [stack.enter_context(process(GREEDY, ledger, plan, policy=policy, durable=False)) for _ in range(4)]
        assert {greedy.stdout.readline() for greedy in running} == {"ready\n"}
        for index, greedy in enumerate(running):
            greedy.stdin.write(f"{index}\n")
            greedy.stdin.flush()
        lines = [line for greedy in running for line in greedy.stdout.read().splitlines()]
    granted = [line for line in lines if "/" in line.split()[0]]
    assert len(granted) == len(set(granted)) == plan.steps
    assert all("would bring epsilon to" in line for line in lines if line not in granted)
    again = reopened(ledger, policy)
    assert again.spent() == plan.epsilon_after(plan.steps) <= policy.max_epsilon
    assert len(again.entries()) == 1 + plan.steps


@pytest.mark.parametrize("room", [0, 100, 5_000, 40_000])
def test_on_a_full_disk_charges_are_refused_and_none_is_lost(tmp_path, long_plan, room):
    policy = generous(long_plan)
    ledger = new_ledger(tmp_path, policy)
    for index in range(30):
        ledger.charge(f"before/{index}", long_plan.training(1), plan=long_plan)
    with process(SHORT_OF_DISK, ledger, long_plan, policy=policy) as short:
        output, _ = short.communicate(f"{room}\n", timeout=60)
    *acknowledged, refusal = output.splitlines()
    assert "unusable ledger: " in refusal or "witness cannot be written" in refusal
    again = reopened(ledger, policy)
    booked = {entry.round_id for entry in again.entries()}
    assert booked >= set(acknowledged)
    assert len(booked) <= 1 + 30 + len(acknowledged) + 1
    assert again.charge("after/1", long_plan.training(1), plan=long_plan) is Charge.CHARGED


def test_threads_that_share_one_open_ledger_take_turns(tmp_path, make_plan):
    from concurrent.futures import ThreadPoolExecutor

    from fedrec.errors import PrivacyError

    plan = make_plan()
    ledger = new_ledger(tmp_path, generous(plan))

    def spend(worker: int) -> int:
        granted = 0
        for turn in range(15):
            try:
                granted += ledger.charge(f"{worker}/{turn}", plan.training(1), plan=plan) is Charge.CHARGED
            except PrivacyError as refusal:
                assert "would bring epsilon" in str(refusal)  # noqa: PT017
        return granted

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(spend, range(4))) == plan.steps
