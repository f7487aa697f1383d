"""A merchant asks its own policy, and believes its ledger only as long as the server's receipts fit it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import clients.merchant
from clients.merchant import load_merchant
from fedrec.agreement import read_agreement
from fedrec.errors import PrivacyError
from fedrec.privacy.policy import load_policy, write_policy
from fedrec.runfolder import server_key_path
from fedrec.signing import Purpose, SigningKey
from fedrec.wire import Receipt, Refusal, RefusalCode
from fedrec.workspace import ledger_files, ledger_of
from tests.tiny_ranker import histories, instruction, private_plan, run_folder, start_arrays

PEOPLE = histories(5, 9, 3, 14, 2, 7, 6, 8)
CLIENTS = [np.array([0, 3, 4, 6]), np.array([1, 2, 5, 7])]


@pytest.fixture
def run(tmp_path):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=private_plan())
    return tmp_path / "run"


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """One entry for each time the training was reached."""
    real, times = clients.merchant.private_direction, []
    monkeypatch.setattr(clients.merchant, "private_direction", lambda *a, **k: times.append(1) or real(*a, **k))
    return times


def _ask(run, *, round_index: int = 1):
    agreed = read_agreement(run)
    return instruction(agreed, start_arrays(agreed), round_index=round_index)


def _states(run) -> list[str]:
    return [entry.state for entry in ledger_of(run, 0, read_agreement(run).plan).entries() if entry.round_id]


def _receipt(run, head: str) -> Receipt:
    key = SigningKey.load(server_key_path(run))
    return Receipt(head, key.sign(bytes.fromhex(head), purpose=Purpose.LEDGER_HEAD))


def test_receipt_of_the_server_is_taken_and_costs_nothing(run):
    first = load_merchant(run, 0).train_round(_ask(run))
    asked = replace(_ask(run, round_index=2), receipt=_receipt(run, first.ledger_head))
    load_merchant(run, 0).train_round(asked)
    assert _states(run) == ["reserved", "released"] * 2


def test_ledger_restored_from_a_backup_with_its_witness_is_caught_by_the_servers_receipt(
    run, tmp_path, trained, caplog
):
    """Nothing on the client's own machine can tell: file, key and witness fit each other."""
    files = ledger_files(run, 0)
    load_merchant(run, 0).train_round(_ask(run))
    for path in (files.ledger, files.witness):
        shutil.copy2(path, tmp_path / path.name)
    second = load_merchant(run, 0).train_round(_ask(run, round_index=2))
    for path in (files.ledger, files.witness):
        shutil.copy2(tmp_path / path.name, path)
    load_merchant(run, 0)  # opens: it does look whole
    asked = replace(_ask(run, round_index=3), receipt=_receipt(run, second.ledger_head))
    with pytest.raises(PrivacyError, match="the server has countersigned an entry this ledger does not hold"):
        load_merchant(run, 0).train_round(asked)
    assert len(trained) == 2
    (why,) = caplog.messages  # the owner reads it at once; the ledger's own check finds nothing
    assert why.startswith("because ")
    assert "the server has countersigned an entry this ledger does not hold" in why


def test_receipt_that_the_pinned_server_did_not_sign_is_refused(run, tmp_path, trained):
    first = load_merchant(run, 0).train_round(_ask(run))
    forger = SigningKey.create(tmp_path / "forger.key")
    forged = Receipt(first.ledger_head, forger.sign(bytes.fromhex(first.ledger_head), purpose=Purpose.LEDGER_HEAD))
    with pytest.raises(PrivacyError, match="expected the server's signature of it"):
        load_merchant(run, 0).train_round(replace(_ask(run, round_index=2), receipt=forged))
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_noise_multiplier": 1e6}, "min_noise_multiplier"),
        ({"max_clip_norm": 1e-6}, "max_clip_norm"),
        ({"max_sampling_rate": 1e-6}, "max_sampling_rate"),
        ({"min_people": 5}, "min_people"),
        ({"allowed_bases": ()}, "allowed_bases"),
        ({"allowed_code": ()}, "allowed_code"),
        ({"max_epsilon": 1.0}, "max_epsilon"),
    ],
)
def test_what_the_clients_own_policy_forbids_is_refused_before_anything_is_spent(run, trained, change, said, caplog):
    path = run / "policy.toml"
    write_policy(load_policy(path).model_copy(update=change), path)
    with pytest.raises(Refusal, match=f"E_PLAN: .*{said}") as refused:
        load_merchant(run, 0).train_round(_ask(run))
    assert refused.value.code is RefusalCode.PLAN
    assert caplog.messages == [f"because {refused.value}"]
    assert not trained
    assert _states(run) == []


def test_private_plan_without_a_policy_is_refused(run, trained):
    (run / "policy.toml").unlink()
    with pytest.raises(PrivacyError, match="policy"):
        load_merchant(run, 0).train_round(_ask(run))
    assert not trained


def test_lost_ledger_means_nothing_is_trained(run, trained):
    merchant = load_merchant(run, 0)
    (run / "ledger" / "client-00000.sqlite").unlink()
    with pytest.raises(PrivacyError, match="unusable ledger"):
        merchant.train_round(_ask(run))
    assert not trained


def test_more_people_than_the_plan_provides_for_are_refused_before_anything_is_charged(tmp_path, trained):
    run = tmp_path / "crowded"
    run_folder(run, PEOPLE, CLIENTS, plan=private_plan(batch_cap=2, max_people=3))
    with pytest.raises(Refusal, match=r"E_PLAN: max_people=3: there are more people here") as refused:
        load_merchant(run, 0).train_round(_ask(run))
    assert refused.value.code is RefusalCode.PLAN
    assert not trained
    assert _states(run) == []
