import json
import shutil
import sqlite3
import subprocess
import sys

import pytest

from fedrec.errors import PrivacyError
from tests.fedrec.privacy.ledgers import generous, new_ledger, policy_for, reopened, rewrite, signed_head


def test_a_backup_is_the_whole_ledger_and_takes_its_place(ledger, plan, policy, tmp_path):
    reader = sqlite3.connect(ledger.files.ledger)  # holds the newest lines in the write-ahead log
    reader.execute("SELECT * FROM entries").fetchone()
    ledger.charge("run/d", plan.training(1), plan=plan)
    ledger.backup(tmp_path / "copy.sqlite")
    reader.close()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.sqlite"]
    assert (tmp_path / "copy.sqlite").stat().st_mode & 0o777 == 0o600
    expected = ledger.entries()
    (tmp_path / "copy.sqlite").replace(ledger.files.ledger)
    assert reopened(ledger, policy).entries() == expected


def test_a_backup_never_overwrites(ledger, tmp_path):
    (tmp_path / "copy.sqlite").write_text("mine")
    with pytest.raises(PrivacyError, match=r"copy.sqlite: exists; choose another place"):
        ledger.backup(tmp_path / "copy.sqlite")
    with pytest.raises(PrivacyError, match=r"copy.sqlite: cannot be written: No such file or directory"):
        ledger.backup(tmp_path / "no" / "copy.sqlite")


def test_an_older_backup_put_back_is_a_rollback(ledger, plan, policy, tmp_path):
    ledger.backup(tmp_path / "old.sqlite")
    ledger.charge("run/d", plan.training(1), plan=plan)
    (tmp_path / "old.sqlite").replace(ledger.files.ledger)
    with pytest.raises(PrivacyError, match=r"rolled back: holds 4 entries, and its witness saw .* 5 entries long"):
        reopened(ledger, policy)


def test_an_older_backup_that_has_grown_again_is_a_rollback_too(ledger, plan, policy, tmp_path):
    ledger.backup(tmp_path / "old.sqlite")
    old_witness = ledger.files.witness.read_text()
    ledger.charge("run/d", plan.training(2), plan=plan)
    new_witness = ledger.files.witness.read_text()
    (tmp_path / "old.sqlite").replace(ledger.files.ledger)
    ledger.files.witness.write_text(old_witness)
    reopened(ledger, policy).charge("run/e", plan.training(1), plan=plan)  # as long as the lost one, and cheaper
    ledger.files.witness.write_text(new_witness)
    with pytest.raises(PrivacyError, match="rolled back: holds 5 entries, and its witness saw another ledger"):
        reopened(ledger, policy)


def test_a_plain_copy_without_its_write_ahead_log_is_caught(tmp_path, plan, policy):
    ledger = new_ledger(tmp_path, policy)
    reader = sqlite3.connect(ledger.files.ledger, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM entries").fetchone()  # keeps the log from being folded in
    ledger.charge("run/a", plan.training(1), plan=plan)
    shutil.copy(ledger.files.ledger, tmp_path / "plain copy")
    reader.close()
    assert reopened(ledger, policy).spendings() == (plan.training(1),)
    (tmp_path / "plain copy").replace(ledger.files.ledger)
    with pytest.raises(PrivacyError, match="rolled back"):
        reopened(ledger, policy)


# --- the server's countersignature ---


def test_a_countersigned_head_shows_that_ledger_and_witness_were_put_back_together(ledger, plan, tmp_path):
    unpinned = generous(plan)
    for path in ledger.files:
        shutil.copy(path, tmp_path / f"old-{path.name}")
    ledger.charge("run/d", plan.training(1), plan=plan)
    head, signature, server = signed_head(ledger, tmp_path)
    policy = generous(plan, server_key=server)
    reopened(ledger, policy).accept_countersigned(head, signature, server_key=server)
    for path in ledger.files:
        shutil.copy(tmp_path / f"old-{path.name}", path)
    older = reopened(ledger, policy)  # nothing on this machine can tell
    with pytest.raises(PrivacyError, match="rolled back: the server has countersigned an entry this ledger does not"):
        older.accept_countersigned(head, signature, server_key=server)
    assert unpinned.digest() != policy.digest()


def test_a_kept_countersignature_outlives_a_removed_tail_with_a_matching_witness(ledger, plan, policy, tmp_path):
    head, signature, server = signed_head(ledger, tmp_path)
    policy = generous(plan, server_key=server)
    ledger = reopened(ledger, policy)
    ledger.accept_countersigned(head, signature, server_key=server)
    kept = json.loads(ledger.files.witness.read_text())["countersigned"]
    assert kept == {"head": head, "signature": signature}
    ledger.charge("run/d", plan.training(1), plan=plan)
    assert json.loads(ledger.files.witness.read_text())["countersigned"] == kept
    from fedrec.privacy.witness import Witness, read_witness, write_witness

    key = bytes.fromhex(ledger.files.key.read_text())
    witness = read_witness(ledger.files.witness, key=key)
    third = ledger.entries()[2]
    write_witness(Witness(3, third.mac, witness.countersigned), ledger.files.witness, key=key, durable=False)
    rewrite(ledger.files.ledger, "DELETE FROM entries WHERE sequence > 3")
    with pytest.raises(PrivacyError, match="the server has countersigned an entry this ledger does not hold"):
        reopened(ledger, policy)


def test_an_older_countersignature_changes_nothing(ledger, plan, tmp_path):
    old = signed_head(ledger, tmp_path)
    policy = generous(plan, server_key=old[2])
    ledger = reopened(ledger, policy)
    ledger.charge("run/d", plan.training(1), plan=plan)
    new = signed_head(ledger, tmp_path)
    for head, signature, server in (new, old):
        ledger.accept_countersigned(head, signature, server_key=server)
    assert json.loads(ledger.files.witness.read_text())["countersigned"]["head"] == new[0]


def test_a_signature_by_another_key_or_of_something_else_is_refused(ledger, plan, tmp_path):
    head, signature, server = signed_head(ledger, tmp_path)
    with pytest.raises(PrivacyError, match=f"policy server_key: '{server}', allowed '{'5e' * 32}'"):
        ledger.accept_countersigned(head, signature, server_key=server)
    pinned = reopened(ledger, generous(plan, server_key=server))
    wrong = [("0" * 64, signature), (head, "00" * 64), (head, ""), ("zz", signature), (None, signature), (head, None)]
    for other_head, other_signature in wrong:
        with pytest.raises(PrivacyError, match=r"ledger head .*: expected the server's signature of it"):
            pinned.accept_countersigned(other_head, other_signature, server_key=server)


def test_the_ledger_imports_in_a_moment_and_without_the_heavy_libraries():
    heavy = ("torch", "opacus", "scipy", "dp_accounting", "flwr")
    code = (
        "import time, sys; start = time.process_time(); import fedrec.privacy.ledger; "
        f"print(time.process_time() - start, [name for name in {heavy} if name in sys.modules])"
    )
    seconds, found = subprocess.check_output([sys.executable, "-c", code], text=True).split(maxsplit=1)
    assert found.strip() == "[]"
    assert float(seconds) < 1.0  # 0.2 s measured


def test_the_strictest_policy_is_recorded_with_each_charge(ledger, plan):
    strict = policy_for(plan)
    reopened(ledger, strict).charge("run/d", plan.training(1), plan=plan)
    assert ledger.entries()[-1].policy == strict.digest()
