"""Six merchants' processes and one server's: an accident at each step of a round loses no charge and repeats none."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from safetensors.numpy import load_file

from fedrec.agreement import read_agreement
from fedrec.config import Config
from fedrec.keyfiles import make_client
from fedrec.runfolder import RunFolder
from fedrec.workspace import ledger_of
from server.control import open_control
from server.flower_run import open_grid
from server.job import job_of_run, run_job
from server.roster import Registered
from server.strategy import RoundRecord
from tests.tiny_gateway import ROOT, eventually
from tests.tiny_ranker import histories, private_plan, run_folder
from tests.tiny_superlink import Site, running_site

pytestmark = pytest.mark.slow

ACCIDENTS = ("none", "killed-before-charge", "killed-before-training", "killed-before-sending", "stopped", "no-memory")
KILLED = [who for who, accident in enumerate(ACCIDENTS) if accident.startswith("killed")]
STOPPED, NO_MEMORY = ACCIDENTS.index("stopped"), ACCIDENTS.index("no-memory")
DEADLINE_S = 12.0
ROUNDS = 3


@dataclass
class Federation:
    """Who takes part, and what happened."""

    site: Site
    run: Path
    folder: Path
    nodes: list[int] = field(default_factory=list)
    roster: dict[int, Registered] = field(default_factory=dict)
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)
    records: list[RoundRecord] = field(default_factory=list)
    seconds_to_end: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def enrol(self, who: int) -> None:
        home = self.folder / str(who)
        reply_key = make_client(home, f"shop-{who}", with_request=False)
        (home / "ca.crt").write_bytes(self.site.gateway.authority.read_bytes())
        with open_control(self.site.settings.loopback) as control:
            public = serialization.load_ssh_public_key((home / "node.pub").read_bytes())
            self.nodes.append(control.register(public))
        self.roster[self.nodes[-1]] = Registered(reply_key)

    def start(self, who: int, accident: str = "none") -> None:
        words = (self.run, who, f"127.0.0.1:{self.site.gateway.public}", self.folder / str(who), accident)
        called = [sys.executable, "-m", "tests.deployed_client", *map(str, words)]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.log(who).open("ab") as log:
            self.processes[who] = subprocess.Popen(called, env=os.environ | own, cwd=ROOT, stdout=log, stderr=log)

    def log(self, who: int) -> Path:
        return self.folder / f"{who}.log"

    def joined(self, who: int) -> list[str]:
        """The numbers under which it has joined so far."""
        return re.findall(r"joined node=(\d+)", self.log(who).read_text())

    def states(self, who: int) -> dict[int, list[str]]:
        """What its ledger says of each round, after a look at all of the ledger."""
        found: dict[int, list[str]] = {}
        for entry in ledger_of(self.run, who, read_agreement(self.run).plan).entries():
            if entry.round_id:
                found.setdefault(int(entry.round_id.split("/")[1]), []).append(entry.state)
        return found

    def mend(self, record: RoundRecord) -> None:
        """After the first round: as a supervisor would. After the second: the server's turn to be killed."""
        self.records.append(record)
        if record.round_index == 1:
            for who in KILLED:
                assert self.processes[who].wait(10) == -signal.SIGKILL
                self.start(who)
            os.kill(self.processes[STOPPED].pid, signal.SIGCONT)
            assert eventually(lambda: all(len(self.joined(who)) == 2 for who in KILLED), within_s=200)
        elif record.round_index == 2:
            os.kill(self.site.superlink.pid, signal.SIGKILL)

    def terminate(self) -> None:
        for process in self.processes.values():
            started = time.monotonic()
            process.terminate()
            self.ends.append(process.wait(60))
            self.seconds_to_end.append(time.monotonic() - started)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Three rounds: accidents in the first, all well in the second, SuperLink killed before the third."""
    folder = tmp_path_factory.mktemp("federation")
    run, people = folder / "run", histories(*[5, 9, 3, 14, 2, 7] * 4)
    plan = private_plan()
    run_folder(run, people, [np.arange(who, 24, len(ACCIDENTS)) for who in range(len(ACCIDENTS))], plan=plan)
    with running_site(folder) as site:
        made = Federation(site, run, folder)
        try:
            _rounds(made)
            made.terminate()
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()


def _rounds(made: Federation) -> None:
    for who, accident in enumerate(ACCIDENTS):
        made.enrol(who)
        made.start(who, accident)
    settings = {"partition": {"clients": len(ACCIDENTS)}, "federation": {"rounds": ROUNDS, "min_replies": 0.1}}
    with RunFolder.open_for_resume(made.run) as opened:
        job = job_of_run(opened, Config.model_validate(settings))
        job = replace(job, conduct=replace(job.conduct, timeout_s=DEADLINE_S, roster=lambda: made.roster))
        with open_grid(made.site.settings) as grid:
            assert eventually(lambda: set(made.nodes) <= set(grid.get_node_ids()), within_s=200)
            run_job(grid, job, on_round=made.mend)


def test_round_with_accidents_counts_on_its_quorum(federation):
    first = federation.records[0]
    assert (first.asked, first.admitted, first.void) == (6, 1, False)
    assert first.reasons == {"E_INTERNAL": 1, "no-reply": 4}
    assert DEADLINE_S <= first.seconds < DEADLINE_S + 10


def test_everyone_is_back_in_the_next_round(federation):
    second = federation.records[1]
    assert (second.asked, second.admitted, second.reasons) == (6, 6, {})


def test_killed_before_the_charge_is_not_charged(federation):
    assert federation.states(ACCIDENTS.index("killed-before-charge")) == _charged_and_sent(2, 3)


def test_killed_between_charge_and_training_keeps_the_charge(federation):
    who = ACCIDENTS.index("killed-before-training")
    assert federation.states(who) == {1: ["reserved"]} | _charged_and_sent(2, 3)


def test_killed_between_training_and_sending_keeps_charge_and_reply(federation):
    assert federation.states(ACCIDENTS.index("killed-before-sending")) == _charged_and_sent(1, 2, 3)


def test_killed_client_comes_back_as_the_same_node(federation):
    for who in KILLED:
        assert set(federation.joined(who)) == {str(federation.nodes[who])}


def test_reply_that_comes_after_the_deadline_is_charged_and_counts_for_nothing(federation):
    assert federation.states(STOPPED) == _charged_and_sent(1, 2, 3)
    assert federation.records[1].admitted + federation.records[1].quarantined == 6


def test_client_without_memory_keeps_the_charge_and_says_one_word(federation):
    assert federation.states(NO_MEMORY) == {1: ["reserved"]} | _charged_and_sent(2, 3)
    assert "MemoryError" in federation.log(NO_MEMORY).read_text()


def test_killed_superlink_is_restarted_and_the_run_goes_on_with_each_round_once(federation):
    assert [record.round_index for record in federation.records] == [1, 2, 3]
    assert (federation.records[2].admitted, federation.records[2].void) == (6, False)
    assert federation.states(0) == _charged_and_sent(1, 2, 3)
    assert all(np.isfinite(array).all() for array in load_file(federation.run / "adapter.safetensors").values())


def test_clients_end_within_five_seconds_of_sigterm_and_leave_their_ledgers_whole(federation):
    assert federation.ends == [0] * len(ACCIDENTS)
    assert max(federation.seconds_to_end) < 5
    assert all(federation.states(who) for who in range(len(ACCIDENTS)))


def _charged_and_sent(*rounds: int) -> dict[int, list[str]]:
    return {index: ["reserved", "released"] for index in rounds}
