import os
import sqlite3
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Charge, Ledger, LedgerFiles
from tests.fedrec.privacy.ledgers import DATA, new_ledger, reopened, uses

NOBODY = 65534
LOST = "the ledger was lost .*: restore a backup; a lost ledger is never a fresh budget"


@pytest.mark.parametrize("part", ["ledger", "key", "witness"])
def test_what_is_left_of_a_ledger_is_no_place_for_a_new_one(ledger, policy, part):
    for name, path in zip(ledger.files._fields, ledger.files, strict=True):
        if name != part:
            path.unlink()
    with pytest.raises(PrivacyError, match="part of a ledger exists; open it, or choose another place"):
        Ledger.create(ledger.files, dataset=DATA, policy=policy)


def test_a_write_ahead_log_alone_is_no_place_for_a_new_ledger(tmp_path, policy):
    files = LedgerFiles.beside(tmp_path / "x.sqlite")
    files.write_ahead_log.write_bytes(b"")
    with pytest.raises(PrivacyError, match=r"x.sqlite-wal: part of a ledger exists"):
        Ledger.create(files, dataset=DATA, policy=policy)


def test_a_lost_ledger_beside_its_key_is_never_a_fresh_budget(ledger, plan, policy):
    ledger.files.ledger.unlink()
    with pytest.raises(PrivacyError, match=LOST):
        reopened(ledger, policy)
    for use in uses(ledger, plan):
        with pytest.raises(PrivacyError, match="unusable ledger: unable to open"):
            use()
    assert not ledger.files.ledger.exists()
    ledger.files.key.unlink()
    with pytest.raises(PrivacyError, match=LOST):
        reopened(ledger, policy)


def test_opening_where_nothing_is_says_so(tmp_path, policy):
    with pytest.raises(PrivacyError, match="no ledger here; expected an existing one"):
        Ledger.open(LedgerFiles.beside(tmp_path / "x.sqlite"), dataset=DATA, policy=policy)


def test_a_crash_anywhere_in_create_leaves_nothing_that_opens_or_is_created_anew(tmp_path, policy, monkeypatch):
    steps = ["create_key", "create_store", "write_witness"]
    for number, step in enumerate(steps):
        for after in (False, True):
            folder = tmp_path / f"{number}{after}"
            folder.mkdir()
            with monkeypatch.context() as patch:
                patch.setattr(f"fedrec.privacy.ledger.{step}", crashing(f"fedrec.privacy.ledger.{step}", after=after))
                with pytest.raises(KeyboardInterrupt):
                    new_ledger(folder, policy)
            if (step, after) in (("create_key", False), ("write_witness", True)):
                continue  # nothing was written yet, or all of it
            files = LedgerFiles.beside(next(folder.iterdir()).with_suffix("").with_suffix(".sqlite"))
            with pytest.raises(PrivacyError, match=r"lost|missing"):
                Ledger.open(files, dataset=DATA, policy=policy)
            with pytest.raises(PrivacyError, match="part of a ledger exists"):
                Ledger.create(files, dataset=DATA, policy=policy)


def crashing(name: str, *, after: bool) -> Callable[..., object]:
    """The named function, cut off before or after its work."""
    module, _, function = name.rpartition(".")
    real = getattr(sys.modules[module], function)

    def crash(*args: object, **options: object) -> object:
        if after:
            real(*args, **options)
        raise KeyboardInterrupt

    return crash


def test_an_empty_or_foreign_file_is_no_ledger(ledger, policy):
    for content, message in (
        (b"", "not a ledger, or only a part of one"),
        (b"not a database, but long enough to look like something" * 40, "unusable ledger: file is not a database"),
    ):
        ledger.files.ledger.write_bytes(content)
        with pytest.raises(PrivacyError, match=message):
            reopened(ledger, policy)


@pytest.mark.parametrize("dataset", ["", "a\nb", None, "x" * 201])
def test_a_data_set_without_a_proper_identity_is_refused(tmp_path, policy, dataset):
    with pytest.raises(PrivacyError, match=r"dataset=.*: expected a short printable identity, such as a digest"):
        Ledger.create(LedgerFiles.beside(tmp_path / "x.sqlite"), dataset=dataset, policy=policy)
    assert not list(tmp_path.iterdir())


def test_another_data_set_is_refused(ledger, policy):
    with pytest.raises(PrivacyError, match="belongs to another data set; expected 'ffff'"):
        Ledger.open(ledger.files, dataset="ffff", policy=policy)
    assert Ledger.open(ledger.files, dataset=None, policy=policy).dataset == DATA


def test_an_unwritable_place_is_refused(tmp_path, policy):
    with pytest.raises(PrivacyError, match="the ledger cannot be written: no such folder"):
        Ledger.create(LedgerFiles.beside(tmp_path / "no" / "x.sqlite"), dataset=DATA, policy=policy)


def test_a_key_that_cannot_be_written_is_refused(tmp_path, policy):
    files = LedgerFiles.beside(tmp_path / ("x" * 252 + ".db"))._replace(ledger=tmp_path / "x", witness=tmp_path / "w")
    with pytest.raises(PrivacyError, match="the ledger's key cannot be written: File name too long"):
        Ledger.create(files, dataset=DATA, policy=policy)


@pytest.fixture
def bound_by_modes(tmp_path) -> Iterator[Callable[[Callable[[Path], None]], bool]]:
    """Run something on a folder as somebody whom file modes bind: in a child process as nobody when we are root."""
    if os.geteuid() != 0:
        yield lambda work: work(tmp_path) is None
        return
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        os.chown(name, NOBODY, NOBODY)

        def in_child(work: Callable[[Path], None]) -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
                child = os.fork()
            if child:
                return os.waitpid(child, 0)[1] == 0
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                work(Path(name))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)

        yield in_child


@pytest.mark.parametrize("is_file", [True, False])
def test_a_read_only_file_or_folder_is_refused_and_nothing_is_lost(bound_by_modes, plan, policy, is_file):
    def work(folder: Path) -> None:
        ledger = new_ledger(folder, policy)
        ledger.charge("run/a", plan.training(2), plan=plan)
        part = ledger.files.ledger if is_file else folder
        before = part.stat().st_mode
        part.chmod(0o400 if is_file else 0o500)
        with pytest.raises(PrivacyError, match=r"unusable ledger|cannot be written"):
            ledger.charge("run/b", plan.training(1), plan=plan)
        part.chmod(before)
        for left in folder.glob("*.sqlite-*"):
            left.chmod(0o600)  # SQLite gave them the mode of the file beside which it made them
        again = reopened(ledger, policy)
        assert again.spendings()[0].steps >= 2
        assert again.charge("run/c", plan.training(1), plan=plan) is Charge.CHARGED

    assert bound_by_modes(work)


def test_a_ledger_that_another_writer_holds_is_refused_after_a_while(ledger, plan, monkeypatch):
    monkeypatch.setattr("fedrec.privacy.ledger_store._BUSY_TIMEOUT_S", 0.01)
    holder = sqlite3.connect(ledger.files.ledger, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(PrivacyError, match="unusable ledger: database is locked; expected an intact, writable file"):
        ledger.charge("run/d", plan.training(1), plan=plan)
    holder.execute("ROLLBACK")
    holder.close()
    assert ledger.charge("run/d", plan.training(1), plan=plan) is Charge.CHARGED
