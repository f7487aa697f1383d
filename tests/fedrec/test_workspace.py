from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.agreement import write_agreement
from fedrec.cli.privacy_ledger import ledger_app
from fedrec.code import code_digest
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError, RunError
from fedrec.privacy.ledger import Charge
from fedrec.runfolder import server_key_path
from fedrec.signing import SigningKey
from fedrec.workspace import (
    client_histories,
    copy_workspace,
    ledger_files,
    ledger_of,
    make_keys,
    open_budgets,
    policy_of,
    replies_path,
    was_asked,
    write_workspace,
)
from tests.tiny_ranker import agreement, histories, open_plan, private_plan

PEOPLE = histories(4, 7, 3, 5, 2, 6)
CLIENTS = [np.array([4, 1]), np.array([], np.int64), np.array([0, 5, 2])]  # person 3 is at no client


@pytest.fixture
def run(tmp_path):
    return _folder(tmp_path / "run")


def _folder(path):
    for name in ("base", "workspace", "ledger"):
        (path / name).mkdir(parents=True)
    write_workspace(path, PEOPLE, CLIENTS)
    return path


def test_each_client_gets_its_own_people_and_nobody_elses(run):
    for partition, group in enumerate(CLIENTS):
        own = client_histories(run, partition)
        assert len(own) == len(group)
        for row, person in enumerate(group):
            assert own.of(row).tolist() == PEOPLE.of(person).tolist()
            assert own.times(row).tolist() == PEOPLE.times(person).tolist()


def test_people_at_no_client_are_not_in_the_workspace(tmp_path):
    run = _folder(tmp_path / "run")
    without = Histories.from_lists([PEOPLE.of(person).tolist() if person != 3 else [0] for person in range(6)])
    before = (run / "workspace" / "people.safetensors").read_bytes()
    write_workspace(run, without, CLIENTS)
    assert (run / "workspace" / "people.safetensors").read_bytes() == before


@pytest.mark.parametrize("partition", [-1, 3, 99])
def test_client_that_is_not_there_is_refused(run, partition):
    with pytest.raises(RunError, match=f"holds clients 0 to 2, not {partition}; match --clients to the run"):
        client_histories(run, partition)


def test_workspace_that_is_missing_or_cut_short_is_refused(run):
    path = run / "workspace" / "people.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunError, match=r"people.safetensors: not a usable workspace: .*prepare the run again"):
        client_histories(run, 0)
    path.unlink()
    with pytest.raises(RunError, match="not a usable workspace"):
        client_histories(run, 0)


def test_each_client_has_a_ledger_of_its_own(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    for outcome in (Charge.CHARGED, Charge.ALREADY_CHARGED):
        charged = ledger_of(run, 0, agreed.plan).charge("run-1/1", agreed.plan.training(1), plan=agreed.plan)
        assert charged is outcome
    assert ledger_of(run, 1, agreed.plan).spent() == 0
    assert 0 < ledger_of(run, 0, agreed.plan).spent() <= 8
    assert replies_path(run, 2).parent.is_dir()
    assert len({replies_path(run, partition) for partition in range(3)}) == 3


def test_lost_ledger_is_never_a_fresh_budget(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    write_agreement(agreed, run)
    for again in (lambda: open_budgets(run, agreed, clients=3), lambda: make_keys(run)):
        with pytest.raises(
            PrivacyError, match="was agreed on already; its ledgers are kept, and a lost one is no fresh"
        ):
            again()
    ledger_of(run, 1, agreed.plan)
    files = ledger_files(run, 1)
    files.ledger.unlink()
    with pytest.raises(PrivacyError, match="the ledger was lost"):
        ledger_of(run, 1, agreed.plan)
    for rest in files[1:]:
        rest.unlink()
    with pytest.raises(PrivacyError, match=r"client-00001\.sqlite: no ledger here; expected an existing one"):
        ledger_of(run, 1, agreed.plan)


def test_client_that_was_never_asked_costs_one_byte(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    assert (run / "ledger" / "asked").read_bytes() == bytes(3)
    assert not any(path.exists() for partition in range(3) for path in ledger_files(run, partition))
    ledger_of(run, 2, agreed.plan)
    assert [was_asked(run, partition) for partition in range(3)] == [False, False, True]
    assert [partition for partition in range(3) if ledger_files(run, partition).ledger.exists()] == [2]


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_without_the_list_of_who_was_asked_no_ledger_is_made(run, harm):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    write_agreement(agreed, run)
    harm(run / "ledger" / "asked")
    with pytest.raises(PrivacyError, match=r"client-00000\.sqlite: no ledger here; expected an existing one"):
        ledger_of(run, 0, agreed.plan)
    assert not any(path.exists() for path in ledger_files(run, 0))


def test_ledger_that_a_crash_left_half_made_is_made_anew_and_a_whole_one_is_kept(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    ledger_files(run, 0).key.write_text("cut sho")
    assert ledger_of(run, 0, agreed.plan).spent() == 0
    ledger_of(run, 1, agreed.plan).charge("run-1/1", agreed.plan.training(1), plan=agreed.plan)
    open_list = run / "ledger" / "asked"
    open_list.write_bytes(bytes(3))  # as if a crash had come before the note, or an old list had been put back
    assert ledger_of(run, 1, agreed.plan).spent() > 0
    assert open_list.read_bytes() == b"\0\1\0"


def test_clients_that_were_never_asked_are_counted_and_not_looked_for(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    ledger_of(run, 1, agreed.plan)
    for command in ("show", "verify"):
        found = CliRunner().invoke(ledger_app, [command, str(run)])
        assert found.exit_code == 0
        first, last = found.stdout.splitlines()
        assert "client-00001" in first
        assert last == "2 more clients were never asked: nothing was spent on their people"
    ledger_files(run, 1).ledger.unlink()
    assert CliRunner().invoke(ledger_app, ["verify", str(run)]).exit_code == 3


def test_two_that_ask_a_client_for_the_first_time_share_one_ledger(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    with ThreadPoolExecutor(4) as threads:
        heads = list(threads.map(lambda _: ledger_of(run, 0, agreed.plan).head(), range(8)))
    assert len(set(heads)) == 1


def test_budgets_that_a_crash_left_half_made_are_made_anew(run):
    open_budgets(run, agreement(private_plan(), server_key=make_keys(run)), clients=2)
    ledger_of(run, 0, agreement(private_plan()).plan)
    (run / "keys" / "client-00000.key").unlink()
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    assert [ledger_of(run, partition, agreed.plan).spent() for partition in range(3)] == [0, 0, 0]


def test_simulated_policy_allows_exactly_the_agreed_run(run):
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=1)
    policy = policy_of(run, agreed.plan)
    policy.check_plan(agreed.plan)
    assert policy.allowed_bases == (agreed.base_digest,)
    assert policy.allowed_code == (code_digest(),)
    assert policy.server_key == agreed.server_key == SigningKey.load(server_key_path(run)).public
    assert policy_of(run, open_plan()) is None
    (run / "policy.toml").unlink()
    with pytest.raises(PrivacyError, match=r"policy\.toml"):
        policy_of(run, agreed.plan)


def test_ledger_belongs_to_its_people(tmp_path):
    """The same file under other people's data: its charges say nothing about them."""
    run = _folder(tmp_path / "run")
    agreed = agreement(private_plan(), server_key=make_keys(run))
    open_budgets(run, agreed, clients=3)
    ledger_of(run, 0, agreed.plan).charge("run-1/1", agreed.plan.training(1), plan=agreed.plan)
    ledger_of(run, 2, agreed.plan).charge("run-1/1", agreed.plan.training(1), plan=agreed.plan)
    (run / "ledger" / "client-00000.sqlite").replace(run / "ledger" / "client-00002.sqlite")
    with pytest.raises(PrivacyError, match="entry 1 was altered, or the key is another ledger's"):
        ledger_of(run, 2, agreed.plan)
    for ours, theirs in zip(ledger_files(run, 0)[1:], ledger_files(run, 2)[1:], strict=True):
        ours.replace(theirs)
    with pytest.raises(PrivacyError, match="belongs to another data set"):
        ledger_of(run, 2, agreed.plan)


def test_copy_has_the_same_people_and_base_but_neither_ledgers_nor_replies(tmp_path):
    run, other = _folder(tmp_path / "run"), tmp_path / "other"
    open_budgets(run, agreement(server_key=make_keys(run)), clients=3)
    (run / "base" / "ranker.json").write_text("{}")
    replies_path(run, 0).write_bytes(b"a reply")
    for name in ("base", "workspace", "ledger"):
        (other / name).mkdir(parents=True)
    copy_workspace(run, other)
    assert client_histories(other, 0).items.tolist() == client_histories(run, 0).items.tolist()
    assert (other / "base" / "ranker.json").read_text() == "{}"
    assert not list((other / "ledger").iterdir())
    assert not replies_path(other, 0).exists()
