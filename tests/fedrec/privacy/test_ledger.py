import dataclasses
import hashlib
import json
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import Steps, composed_epsilon
from fedrec.privacy.ledger import Charge, Ledger
from fedrec.privacy.plan import PrivacyPlan

DATA = "8e3f"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client 7?#.db"


@pytest.fixture
def plan(make_plan) -> PrivacyPlan:
    return make_plan()


@pytest.fixture
def ledger(path: Path, plan: PrivacyPlan) -> Ledger:
    return Ledger.create(path, dataset=DATA, plan=plan)


def rewrite(path: Path, statement: str) -> None:
    """What someone with an editor can do: the triggers are no lock."""
    with sqlite3.connect(path) as connection:
        connection.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {statement};")
    connection.close()


def test_a_charge_is_on_record_before_anything_is_trained(ledger, path, plan):
    assert ledger.charge("run/1", 1) is Charge.CHARGED
    (entry,) = Ledger.open(path, dataset=DATA, plan=plan).entries()
    assert (entry.sequence, entry.round_id, entry.state, entry.steps) == (1, "run/1", "reserved", 1)
    assert (entry.key, entry.plan) == (f"{DATA}/person at a client", plan.digest())
    assert (entry.noise_multiplier, entry.sampling_rate) == (plan.noise_multiplier, plan.sampling_rate)


def test_the_same_round_is_charged_once(ledger):
    assert ledger.charge("run/1", 1) == "charged"
    spent = ledger.spent()
    assert ledger.charge("run/1", 1) == "already charged"
    ledger.release("run/1")
    assert ledger.charge("run/1", 1) is Charge.ALREADY_CHARGED
    assert ledger.spent() == spent


def test_the_same_round_with_other_steps_or_plan_is_refused(ledger, path, make_plan):
    ledger.charge("run/1", 1)
    message = "round 'run/1': charged with other steps or another plan; expected the same"
    with pytest.raises(PrivacyError, match=message):
        ledger.charge("run/1", 2)
    with pytest.raises(PrivacyError, match=message):
        Ledger.open(path, dataset=DATA, plan=make_plan(clip_norm=2.0)).charge("run/1", 1)
    assert len(ledger.entries()) == 1


def test_the_whole_plan_fits_and_not_a_step_more(ledger, plan):
    for round_index in range(plan.rounds):
        ledger.charge(f"run/{round_index}", 1)
    assert ledger.spent() == plan.epsilon_after(plan.steps) <= plan.epsilon
    with pytest.raises(
        PrivacyError, match=r"would bring epsilon to 8\.\d+, expected <= 8.0 at delta 1e-05, person at a client"
    ):
        ledger.charge("run/30", 1)
    assert len(ledger.entries()) == plan.rounds


def test_a_new_run_goes_on_with_the_old_budget(ledger, path, plan, make_plan):
    ledger.charge("first/0", 20)
    again = Ledger.open(path, dataset=DATA, plan=plan)
    again.charge("second/0", 10)
    with pytest.raises(PrivacyError, match="would bring epsilon to"):
        again.charge("second/1", 1)
    cheaper = make_plan(epsilon=1.0)
    with pytest.raises(PrivacyError, match=r"expected <= 1.0"):
        Ledger.open(path, dataset=DATA, plan=cheaper).charge("third/0", 1)


def test_different_mechanisms_compose(ledger, path, plan):
    ledger.charge("first/0", 10)
    other = dataclasses.replace(plan, sampling_rate=0.2, clipping="auto-s")
    again = Ledger.open(path, dataset=DATA, plan=other)
    again.charge("second/0", 5)
    expected = composed_epsilon((Steps(plan.noise_multiplier, 0.25, 10), Steps(plan.noise_multiplier, 0.2, 5)), 1e-5)
    assert again.spent() == expected
    assert again.spent() > max(plan.epsilon_after(10), other.epsilon_after(5))


def test_a_run_without_noise_spends_everything(path, make_open_plan, plan):
    ledger = Ledger.create(path, dataset=DATA, plan=make_open_plan())
    assert ledger.spent() == 0.0
    ledger.charge("open/0", 1)
    assert ledger.spent() == float("inf")
    with pytest.raises(PrivacyError, match="would bring epsilon to inf"):
        Ledger.open(path, dataset=DATA, plan=plan).charge("run/0", 1)


@pytest.mark.parametrize(("round_id", "steps"), [("", 1), ("r", 0), ("r", -3), ("r", 1.0), ("r", True), ("r", 31)])
def test_a_charge_that_is_no_charge_is_refused(ledger, round_id, steps):
    with pytest.raises(PrivacyError, match=r"round .*, steps=.*: expected a name and 1 to 30 steps"):
        ledger.charge(round_id, steps)
    assert ledger.entries() == ()


def test_a_release_is_noted_once_and_costs_nothing(ledger):
    ledger.charge("run/1", 1)
    spent = ledger.spent()
    assert not ledger.is_released("run/1")
    ledger.release("run/1")
    ledger.release("run/1")
    assert ledger.is_released("run/1")
    assert [entry.state for entry in ledger.entries()] == ["reserved", "released"]
    assert ledger.spent() == spent


def test_a_release_without_a_charge_is_refused(ledger):
    with pytest.raises(PrivacyError, match="round 'run/9': never charged; expected charge before release"):
        ledger.release("run/9")


def test_a_ledger_is_never_begun_twice_nor_silently_anew(ledger, path, plan, tmp_path):
    with pytest.raises(PrivacyError, match="a ledger exists; open it, or choose another place"):
        Ledger.create(path, dataset=DATA, plan=plan)
    with pytest.raises(PrivacyError, match=r"unusable ledger: .*; expected an intact, writable file"):
        Ledger.open(tmp_path / "lost.db", dataset=DATA, plan=plan)
    path.unlink()
    for use in (ledger.spent, lambda: ledger.charge("run/1", 1)):
        with pytest.raises(PrivacyError, match="unusable ledger"):
            use()
    assert not path.exists()


def test_an_empty_or_foreign_file_is_no_ledger(tmp_path, plan):
    for content in (b"", b"not a database, but long enough to look like something" * 40):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(PrivacyError, match=r"unusable ledger: .*; expected an intact, writable file"):
            Ledger.open(tmp_path / "x.db", dataset=DATA, plan=plan)


def test_an_unwritable_place_is_refused(tmp_path, plan):
    with pytest.raises(PrivacyError, match="the ledger cannot be written: No such file or directory"):
        Ledger.create(tmp_path / "no" / "x.db", dataset=DATA, plan=plan)


def test_another_data_set_is_refused(ledger, path, plan):
    ledger.charge("run/1", 1)
    with pytest.raises(PrivacyError, match="belongs to another data set or unit; expected 'ffff/person at a client'"):
        Ledger.open(path, dataset="ffff", plan=plan)


def test_only_the_owner_may_read_it(ledger, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sql_cannot_change_or_remove_an_entry(ledger, path):
    ledger.charge("run/1", 1)
    connection = sqlite3.connect(path)
    for statement in ("UPDATE entries SET steps = 0", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE entries SET steps = 0 WHERE sequence = 2", "entry 2 was altered; expected the ledger as written"),
        ("UPDATE entries SET noise_multiplier = 9e9 WHERE sequence = 1", "entry 1 was altered"),
        ("UPDATE entries SET round_id = round_id || 'x'", "entry 1 was altered"),
        ("UPDATE entries SET state = 'released' WHERE sequence = 3", "entry 3 was altered"),
        ("DELETE FROM entries WHERE sequence = 2", "entry 2 was altered"),
        ("DELETE FROM entries WHERE sequence = 1", "entry 1 was altered"),
        ("DELETE FROM entries WHERE sequence = 3", "entries after 2 were removed; expected the ledger as written"),
        ("DELETE FROM entries", "entries after 0 were removed"),
        ("UPDATE entries SET previous = hash WHERE sequence = 3", "entry 3 was altered"),
    ],
)
def test_tampering_is_found_before_anything_is_charged(ledger, path, plan, statement, message):
    for name in "abc":
        ledger.charge(name, 1)
    rewrite(path, statement)
    uses: list[Callable[[], object]] = [
        ledger.spent,
        lambda: ledger.charge("d", 1),
        lambda: ledger.release("a"),
        lambda: Ledger.open(path, dataset=DATA, plan=plan),
    ]
    for use in uses:
        with pytest.raises(PrivacyError, match=message):
            use()


def test_an_entry_that_was_rewritten_with_a_fitting_hash_breaks_the_chain(ledger, path):
    for name in "abc":
        ledger.charge(name, 2)
    second = ledger.entries()[1]._replace(steps=1)
    digest = hashlib.sha256(json.dumps(second[:-1]).encode()).hexdigest()
    rewrite(path, f"UPDATE entries SET steps = 1, hash = '{digest}' WHERE sequence = 2")
    with pytest.raises(PrivacyError, match="entry 3 was altered"):
        ledger.spent()


def test_a_charge_that_cannot_be_written_is_refused(ledger, path, monkeypatch):
    monkeypatch.setattr("fedrec.privacy.ledger._BUSY_TIMEOUT_S", 0.01)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(PrivacyError, match="unusable ledger: database is locked"):
        ledger.charge("run/1", 1)
    holder.execute("ROLLBACK")
    holder.close()
    assert ledger.charge("run/1", 1) is Charge.CHARGED


def test_several_writers_together_spend_no_more_than_the_budget(ledger, path, plan):
    def spend(worker: int) -> int:
        mine, granted = Ledger.open(path, dataset=DATA, plan=plan, durable=False), 0
        for turn in range(15):
            try:
                granted += mine.charge(f"{worker}/{turn}", 1) is Charge.CHARGED
            except PrivacyError as refusal:
                assert "would bring epsilon" in str(refusal)  # noqa: PT017
                break
        return granted

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(spend, range(4))) == plan.steps
    assert ledger.spent() <= plan.epsilon


WRITER = """
import json, sys
from pathlib import Path
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
plan = PrivacyPlan.from_dict(json.loads(sys.argv[2]))
ledger = Ledger.open(Path(sys.argv[1]), dataset="8e3f", plan=plan, durable=sys.argv[3] == "durable")
for index in range(plan.steps):
    ledger.charge(f"run/{index}", 1)
    print(index, flush=True)
"""


@pytest.mark.parametrize("durable", ["durable", "fast"])
def test_no_acknowledged_charge_is_lost_when_the_process_is_killed(path, make_open_plan, durable):
    plan = make_open_plan(rounds=3000)
    Ledger.create(path, dataset=DATA, plan=plan)
    command = [sys.executable, "-c", WRITER, str(path), json.dumps(plan.to_dict()), durable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split()]
    ledger = Ledger.open(path, dataset=DATA, plan=plan)
    booked = [entry.round_id for entry in ledger.entries()]
    assert set(booked) >= {f"run/{index}" for index in acknowledged}
    assert len(booked) <= len(acknowledged) + 1  # one may be booked and not yet acknowledged: spent, never lost
    assert ledger.charge("run/0", 1) is Charge.ALREADY_CHARGED


def test_a_simulated_charge_is_cheap(path, plan):
    ledger = Ledger.create(path, dataset=DATA, plan=plan, durable=False)
    start = time.process_time()
    for index in range(30):
        ledger.charge(f"run/{index}", 1)
    assert (time.process_time() - start) / 30 < 0.02  # 0.0007 s measured
