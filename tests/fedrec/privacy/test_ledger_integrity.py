import hmac
import json
import sqlite3

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Charge, Ledger, LedgerFiles
from fedrec.privacy.ledger_entries import next_entry
from tests.fedrec.privacy.ledgers import DATA, new_ledger, reopened, rewrite, uses

# --- what someone with an editor does ---


def test_sql_cannot_change_or_remove_an_entry(ledger):
    connection = sqlite3.connect(ledger.files.ledger)
    for statement in ("UPDATE entries SET steps = 0", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="the ledger is append-only"):
            connection.execute(statement)
    connection.close()


SWAP = (
    "UPDATE entries SET sequence = -2 WHERE sequence = 2; UPDATE entries SET sequence = 2 WHERE sequence = 3; "
    "UPDATE entries SET sequence = 3 WHERE sequence = -2"
)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE entries SET steps = 0 WHERE sequence = 2", "entry 2 was altered, or the key is another ledger's"),
        ("UPDATE entries SET noise_multiplier = 9e9 WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET delta = NULL WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET noise_multiplier = 9e999 WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET reason = x'00ff' WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET mac = x'00ff' WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET mac = 'ä' WHERE sequence = 3", "entry 3 was altered"),
        ("UPDATE entries SET round_id = round_id || 'x'", "entry 1 was altered"),
        ("UPDATE entries SET dataset = 'ffff'", "entry 1 was altered"),
        ("UPDATE entries SET state = 'released' WHERE sequence = 4", "entry 4 was altered"),
        ("DELETE FROM entries WHERE sequence = 2", "entry 2 was altered"),
        ("DELETE FROM entries WHERE sequence = 1", "entry 1 was altered"),
        ("UPDATE entries SET previous = 'x' WHERE sequence = 3", "entry 3 was altered"),
        (SWAP, "entry 2 was altered"),
        (
            "DELETE FROM entries WHERE sequence = 4",
            "rolled back: holds 3 entries, .* 4 entries long; restore the newest",
        ),
        ("DELETE FROM entries", "the ledger has no first entry; restore a backup"),
        ("UPDATE entries SET reason = CAST(x'ff' AS TEXT) WHERE sequence = 3", "unusable ledger: Could not decode"),
    ],
)
def test_a_changed_removed_or_swapped_row_is_found_on_opening(ledger, policy, statement, message):
    rewrite(ledger.files.ledger, statement)
    with pytest.raises(PrivacyError, match=message):
        reopened(ledger, policy)
    with pytest.raises(PrivacyError, match=message):
        ledger.entries()


def test_an_open_ledger_goes_on_from_what_it_verified_and_not_from_what_an_editor_left(ledger, plan):
    spent = ledger.spent()
    rewrite(ledger.files.ledger, "UPDATE entries SET steps = 0 WHERE sequence = 2")
    assert ledger.spent() == spent


def test_a_deleted_tail_is_found_by_an_open_ledger_whatever_it_is_asked(ledger, plan):
    rewrite(ledger.files.ledger, "DELETE FROM entries WHERE sequence = 4")
    for use in uses(ledger, plan):
        with pytest.raises(PrivacyError, match="rolled back"):
            use()


def test_a_row_that_someone_without_the_key_appends_is_found(ledger, plan, policy):
    forged = next_entry(ledger.entries()[-1]._replace(round_id="run/z"), after=ledger.entries()[-1], at=0, key=b"guess")
    rewrite(ledger.files.ledger, f"INSERT INTO entries VALUES {tuple(forged)}".replace("None", "NULL"))
    for use in [*uses(ledger, plan), lambda: reopened(ledger, policy)]:
        with pytest.raises(PrivacyError, match="entry 5 was altered"):
            use()


def test_a_second_history_sealed_with_the_right_key_does_not_pass_for_the_first(ledger, policy):
    key = bytes.fromhex(ledger.files.key.read_text())
    entries = ledger.entries()
    cheaper = next_entry(entries[2]._replace(steps=1), after=entries[1], at=0, key=key)
    values = f"steps = 1, mac = '{cheaper.mac}', at = {cheaper.at}"
    rewrite(ledger.files.ledger, f"UPDATE entries SET {values} WHERE sequence = 3")
    with pytest.raises(PrivacyError, match="entry 4 was altered"):
        reopened(ledger, policy)
    rewrite(ledger.files.ledger, "DELETE FROM entries WHERE sequence = 4")
    with pytest.raises(PrivacyError, match="rolled back"):
        reopened(ledger, policy)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER no_update",
        "DROP TRIGGER no_delete",
        "CREATE TRIGGER eat AFTER INSERT ON entries BEGIN SELECT 1; END",
        "DROP TABLE entries",
        "ALTER TABLE entries ADD COLUMN more TEXT",
    ],
)
def test_another_table_or_trigger_is_no_ledger(ledger, plan, policy, statement):
    with sqlite3.connect(ledger.files.ledger) as connection:
        connection.executescript(statement)
    connection.close()
    for use in [*uses(ledger, plan), lambda: reopened(ledger, policy)]:
        with pytest.raises(PrivacyError, match="not a ledger, or only a part of one, or its tables were altered"):
            use()


# --- key and witness ---


def test_another_ledgers_key_opens_nothing(ledger, policy):
    ledger.files.key.write_text("00" * 32 + "\n")
    with pytest.raises(PrivacyError, match="witness was altered, or the key is another's"):
        reopened(ledger, policy)


def test_another_key_with_a_witness_of_its_own_opens_nothing(ledger, policy, tmp_path):
    (tmp_path / "other").mkdir()
    other = new_ledger(tmp_path / "other", policy)
    files = LedgerFiles(ledger.files.ledger, other.files.key, other.files.witness)
    with pytest.raises(PrivacyError, match="entry 1 was altered, or the key is another ledger's; restore a backup"):
        Ledger.open(files, dataset=DATA, policy=policy)


@pytest.mark.parametrize("content", ["", "zz" * 32, "00" * 31, "00" * 33])
def test_a_damaged_key_is_refused_and_not_shown(ledger, policy, content):
    ledger.files.key.write_text(content)
    with pytest.raises(PrivacyError, match="not a ledger's key: expected 64 hex digits; restore it") as refusal:
        reopened(ledger, policy)
    assert not content or content not in str(refusal.value)


def test_a_missing_or_unreadable_key_is_refused(ledger, policy):
    ledger.files.key.unlink()
    with pytest.raises(PrivacyError, match="the ledger's key is missing; restore it, no other key fits"):
        reopened(ledger, policy)
    ledger.files.key.mkdir()
    with pytest.raises(PrivacyError, match="the ledger's key cannot be read: Is a directory"):
        reopened(ledger, policy)


def test_a_missing_witness_is_refused_with_the_way_to_restore_it(ledger, plan, policy):
    ledger.files.witness.unlink()
    for use in [*uses(ledger, plan), lambda: reopened(ledger, policy)]:
        with pytest.raises(
            PrivacyError, match=r"witness is missing; restore it, or .*fedrec privacy ledger verify .*--acc"
        ):
            use()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"sequence": 4', '"sequence": 1'),
        lambda text: text[:-9],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps(json.loads(text) | {"head": "0" * 64}),
        lambda text: json.dumps(json.loads(text) | {"mac": 5}),
        lambda text: json.dumps(json.loads(text) | {"more": 5}),
    ],
)
def test_an_altered_witness_is_refused(ledger, policy, change):
    ledger.files.witness.write_text(change(ledger.files.witness.read_text()))
    with pytest.raises(PrivacyError, match="the ledger's witness was altered, or the key is another's"):
        reopened(ledger, policy)


def test_an_unreadable_witness_is_refused(ledger, policy):
    ledger.files.witness.unlink()
    ledger.files.witness.mkdir()
    with pytest.raises(PrivacyError, match="the ledger's witness cannot be read: Is a directory"):
        reopened(ledger, policy)


def test_an_entry_digest_is_not_a_witness_digest(ledger):
    key = bytes.fromhex(ledger.files.key.read_text())
    entry = ledger.entries()[-1]
    text = json.dumps(entry[:-1], separators=(",", ":")).encode()
    assert hmac.digest(key, b"fedrec ledger entry 1\n" + text, "sha256").hex() == entry.mac
    assert hmac.digest(key, b"fedrec ledger witness 1\n" + text, "sha256").hex() != entry.mac


def test_a_ledger_ahead_of_its_witness_is_fine_as_after_a_crash(ledger, plan, policy):
    before = ledger.files.witness.read_text()
    ledger.charge("run/d", plan.training(1), plan=plan)
    ledger.files.witness.write_text(before)
    again = reopened(ledger, policy)
    assert again.charge("run/d", plan.training(1), plan=plan) is Charge.ALREADY_CHARGED
    assert json.loads(ledger.files.witness.read_text())["head"] == again.head()


@pytest.mark.parametrize("durable", [True, False])
def test_a_charge_counts_as_refused_until_its_witness_is_written(ledger, plan, policy, monkeypatch, durable):
    ledger = reopened(ledger, policy, durable=durable)

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"fedrec.privacy.witness.{'replace_file' if durable else 'overwrite_file'}", full)
        with pytest.raises(PrivacyError, match="the ledger's witness cannot be written: No space left on device"):
            ledger.charge("run/d", plan.training(1), plan=plan)
    assert reopened(ledger, policy).spendings() == (plan.training(7),)  # counted all the same
    assert ledger.charge("run/d", plan.training(1), plan=plan) is Charge.ALREADY_CHARGED
    assert json.loads(ledger.files.witness.read_text())["sequence"] == 5
