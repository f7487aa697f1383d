"""One connection for a whole round sees all that a connection for each operation saw."""

import sqlite3
import threading
from contextlib import suppress

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy import ledger_access
from fedrec.privacy.durable import overwrite_file, read_whole
from tests.fedrec.privacy.ledgers import new_ledger, reopened, rewrite, signed_head


@pytest.fixture
def opened(monkeypatch):
    """Counts the connections that are opened, and closed again."""
    counts = {"opened": 0, "closed": 0}
    real = sqlite3.connect

    class Counted(sqlite3.Connection):
        def close(self):
            counts["closed"] += 1
            super().close()

    def connect(*arguments, **options):
        counts["opened"] += 1
        return real(*arguments, factory=Counted, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    return counts


def test_a_session_opens_the_file_once_when_it_is_needed_and_closes_it(ledger, plan, opened):
    with ledger.session():
        assert opened["opened"] == 0
        ledger.charge("run/d", plan.training(1), plan=plan)
        head = ledger.release("run/d")
        assert opened == {"opened": 1, "closed": 0}
    assert opened == {"opened": 1, "closed": 1}
    assert ledger.head() == head
    assert opened == {"opened": 2, "closed": 2}


def test_a_session_that_fails_is_closed_and_the_next_operation_starts_afresh(ledger, plan, opened):
    with pytest.raises(PrivacyError, match="never charged"), ledger.session():
        ledger.release("run/nothing")
    assert opened == {"opened": 1, "closed": 1}
    ledger.charge("run/d", plan.training(1), plan=plan)
    assert ledger.entries()[-1].round_id == "run/d"


@pytest.mark.parametrize("durable", [True, False])
def test_what_a_session_writes_is_on_file_for_everybody_else_at_once(tmp_path, plan, policy, durable):
    ledger = new_ledger(tmp_path, policy, durable=durable)
    with ledger.session():
        ledger.charge("run/d", plan.training(1), plan=plan)
        assert reopened(ledger, policy).entries()[-1].state == "reserved"
        reopened(ledger, policy).charge("run/e", plan.training(1), plan=plan)
        ledger.release("run/d")
        assert [entry.round_id for entry in ledger.entries()] == ["", "run/d", "run/e", "run/d"]
    assert len(reopened(ledger, policy).entries()) == 4


def test_another_thread_has_a_connection_of_its_own(ledger, plan, opened):
    failed = []

    def other():
        try:
            ledger.charge("run/e", plan.training(1), plan=plan)
        except BaseException as error:
            failed.append(error)

    with ledger.session():
        ledger.charge("run/d", plan.training(1), plan=plan)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        assert opened == {"opened": 2, "closed": 1}
        ledger.release("run/d")
    assert not failed


@pytest.mark.parametrize("how", ["another file", "removed file", "removed tail", "altered line", "older witness"])
def test_a_ledger_that_is_changed_during_a_session_is_noticed_before_anything_is_sent(ledger, plan, policy, how):
    path, older = ledger.files.ledger, ledger.files.witness.with_name("older")
    ledger.backup(older)
    reasons = {
        "another file": "was moved or replaced while in use; restore the newest backup",
        "removed file": "was moved or replaced while in use; restore the newest backup",
        "removed tail": "rolled back",
        "altered line": "rolled back: entry 5 is no longer as it was",
        "older witness": None,
    }
    witness = ledger.files.witness.read_text()
    with ledger.session():
        ledger.charge("run/d", plan.training(1), plan=plan)
        if how == "another file":
            older.replace(path)
        elif how == "removed file":
            path.unlink()
        elif how == "removed tail":
            rewrite(path, "DELETE FROM entries WHERE sequence > 4")
        elif how == "altered line":
            rewrite(path, "UPDATE entries SET steps = 0 WHERE sequence = 5")
        else:
            ledger.files.witness.write_text(witness)
        if reasons[how] is None:  # the ledger is ahead of it, as after a crash: brought up again
            ledger.release("run/d")
            assert ledger.files.witness.read_text() != witness
        else:
            with pytest.raises(PrivacyError, match=reasons[how]):
                ledger.release("run/d")
    with suppress(PrivacyError):  # whatever is there now, the charge is in it or it does not open
        assert "run/d" in {entry.round_id for entry in reopened(ledger, policy).entries()}


def test_errors_of_sqlite_in_a_session_name_the_file(ledger, plan, monkeypatch):
    def failing(*arguments):
        raise sqlite3.OperationalError("disk I/O error")

    with ledger.session():
        ledger.charge("run/d", plan.training(1), plan=plan)
        monkeypatch.setattr(ledger_access, "append", failing)
        with pytest.raises(PrivacyError, match=r"unusable ledger: disk I/O error; expected an intact, writable file"):
            ledger.release("run/d")
        monkeypatch.undo()
        assert ledger.release("run/d")


def test_a_receipt_is_checked_in_a_session_as_outside(ledger, plan, tmp_path):
    head, signature, server = signed_head(ledger, tmp_path)
    with ledger.session(), pytest.raises(PrivacyError, match="policy server_key"):
        ledger.accept_countersigned(head, signature, server_key=server)


def test_a_file_written_over_is_whole_and_its_old_end_is_gone(tmp_path):
    path = tmp_path / "small"
    overwrite_file(path, "a longer text\n")
    assert path.stat().st_mode & 0o777 == 0o600
    inode = path.stat().st_ino
    overwrite_file(path, "short\n")
    assert read_whole(path).split() == ["short"]
    overwrite_file(path, "an even longer text\n")
    assert read_whole(path) == "an even longer text\n"
    assert path.stat().st_ino == inode


def test_a_reader_never_sees_a_part_of_what_is_written_over(tmp_path):
    path, stop = tmp_path / "small", threading.Event()
    overwrite_file(path, "0" * 300)

    def write():
        while not stop.is_set():
            for digit in "01":
                overwrite_file(path, digit * 300)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = {read_whole(path) for _ in range(3000)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {"0" * 300, "1" * 300}
