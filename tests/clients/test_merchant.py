"""A merchant answers each round once, on one charge, with noise that nobody can repeat."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch

import clients.merchant
import clients.training
from clients.merchant import Merchant, load_merchant
from clients.opening import local_training
from clients.replies import Answer, ReplyCache
from clients.training import RankerLearner
from fedrec.agreement import Agreement, agreed_ranker
from fedrec.agreement import read_agreement as _agreed
from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.schema import Arrays
from fedrec.wire import Refusal, RefusalCode
from fedrec.workspace import client_histories, ledger_of, policy_of, replies_path
from tests.tiny_ranker import histories, instruction, open_plan, private_plan, run_folder, start_arrays

PEOPLE = histories(5, 9, 3, 14, 2, 7, 6, 8)
CLIENTS = [np.array([0, 3, 4, 6]), np.array([1, 2, 5, 7])]


@pytest.fixture
def open_run(tmp_path):
    """A run without noise: what it computes can be compared."""
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=open_plan(sampling_rate=0.5, local_steps=2))
    return tmp_path / "run"


@pytest.fixture
def private_run(tmp_path):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=private_plan())
    return tmp_path / "run"


def _ask(run, *, round_index: int = 1, shift: float = 0.0):
    agreed = _agreed(run)
    start = {name: values + np.float32(shift) for name, values in start_arrays(agreed).items()}
    return instruction(agreed, start, round_index=round_index)


def _states(run, partition: int = 0) -> list[tuple[str, str, int]]:
    entries = ledger_of(run, partition, _agreed(run).plan).entries()
    return [(entry.round_id, entry.state, entry.steps) for entry in entries if entry.round_id]


def _equal(one: Answer, other: Answer) -> bool:
    """Whether two answers are the same bytes, the end of the ledger included."""
    return one.ledger_head == other.ledger_head and _same_arrays(one.arrays, other.arrays)


def _same_arrays(one: Arrays, other: Arrays) -> bool:
    return list(one) == list(other) and all(values.tobytes() == other[name].tobytes() for name, values in one.items())


class Computed:
    """Stands in front of the training and counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, self.fail, self.before = 0, False, lambda: None
        real = clients.merchant.private_direction

        def counted(*arguments, **how):
            self.times += 1
            self.before()
            if self.fail:
                raise MemoryError("a crash")
            return real(*arguments, **how)

        monkeypatch.setattr(clients.merchant, "private_direction", counted)


@pytest.fixture
def computed(monkeypatch) -> Computed:
    return Computed(monkeypatch)


def test_round_is_charged_before_training_and_noted_as_sent_after(private_run, computed):
    seen = []
    computed.before = lambda: seen.extend(_states(private_run))
    load_merchant(private_run, 0).train_round(_ask(private_run))
    assert seen == [("run-1/1", "reserved", 1)]
    assert _states(private_run) == [("run-1/1", "reserved", 1), ("run-1/1", "released", 0)]
    assert _states(private_run, 1) == []


def test_ledger_that_refuses_means_nothing_is_computed(private_run, computed):
    """Four rounds of another run on the same people have used the budget up."""
    ledger = ledger_of(private_run, 0, _agreed(private_run).plan)
    plan = _agreed(private_run).plan
    for round_index in range(1, 5):
        ledger.charge(f"run-0/{round_index}", plan.training(1), plan=plan)
    before = _states(private_run)
    with pytest.raises(PrivacyError, match="max_rounds_total"):
        load_merchant(private_run, 0).train_round(_ask(private_run))
    assert computed.times == 0
    assert _states(private_run) == before
    assert not replies_path(private_run, 0).exists()


def test_repeated_instruction_gets_the_same_bytes_and_costs_nothing(private_run, computed):
    asked = _ask(private_run)
    first = load_merchant(private_run, 0).train_round(asked)
    charged = _states(private_run)
    for _ in range(2):  # also from a merchant that was started anew
        again = load_merchant(private_run, 0).train_round(_ask(private_run))
        assert _equal(first, again)
    assert computed.times == 1
    assert _states(private_run) == charged


def test_same_round_for_another_adapter_is_refused(private_run, computed):
    merchant = load_merchant(private_run, 0)
    merchant.train_round(_ask(private_run))
    charged = _states(private_run)
    with pytest.raises(Refusal, match="E_REPLAY: this round was answered for another adapter") as refused:
        merchant.train_round(_ask(private_run, shift=0.01))
    assert refused.value.code is RefusalCode.REPLAY
    assert computed.times == 1
    assert _states(private_run) == charged


def test_earlier_round_whose_reply_is_no_longer_kept_is_refused(private_run, computed):
    merchant = load_merchant(private_run, 0)
    for round_index in (1, 2):
        merchant.train_round(_ask(private_run, round_index=round_index))
    with pytest.raises(Refusal, match="E_REPLAY"):
        merchant.train_round(_ask(private_run, round_index=1))
    assert computed.times == 2


def test_sent_reply_that_was_lost_is_never_computed_again(private_run, computed):
    merchant = load_merchant(private_run, 0)
    merchant.train_round(_ask(private_run))
    replies_path(private_run, 0).unlink()
    with pytest.raises(Refusal, match="E_REPLAY"):
        merchant.train_round(_ask(private_run))
    assert computed.times == 1


@pytest.mark.parametrize("changes", [{"round_index": 5}, {"run_id": "run-2"}])
def test_round_outside_the_plan_is_refused_and_costs_nothing(private_run, computed, changes):
    with pytest.raises(Refusal, match="E_PLAN: this round is not part of the agreed plan") as refused:
        load_merchant(private_run, 0).train_round(replace(_ask(private_run), **changes))
    assert refused.value.code is RefusalCode.PLAN
    assert computed.times == 0
    assert _states(private_run) == []


def test_last_round_of_the_plan_is_trained_and_uses_the_budget_up(private_run):
    merchant = load_merchant(private_run, 0)
    for round_index in range(1, 5):
        merchant.train_round(_ask(private_run, round_index=round_index))
    assert 7 < ledger_of(private_run, 0, _agreed(private_run).plan).spent() <= 8


def test_crash_after_the_charge_is_made_good_on_the_booked_charge(private_run, computed):
    computed.fail = True
    with pytest.raises(MemoryError):
        load_merchant(private_run, 0).train_round(_ask(private_run))
    assert _states(private_run) == [("run-1/1", "reserved", 1)]
    computed.fail = False
    reply = load_merchant(private_run, 0).train_round(_ask(private_run, shift=0.01))  # nothing was sent: any adapter
    assert computed.times == 2
    assert _states(private_run) == [("run-1/1", "reserved", 1), ("run-1/1", "released", 0)]
    assert _equal(reply, load_merchant(private_run, 0).train_round(_ask(private_run, shift=0.01)))


def test_crash_before_a_sent_reply_is_noted_never_opens_a_second_release(private_run, computed, monkeypatch):
    """The reply is kept but not noted; sending it from the cache must note it, or another adapter gets a second one."""
    with monkeypatch.context() as patch:

        def crash(ledger: Ledger, round_id: str) -> str:
            raise MemoryError("a crash")

        patch.setattr(Ledger, "release", crash)
        with pytest.raises(MemoryError):
            load_merchant(private_run, 0).train_round(_ask(private_run))
    merchant = load_merchant(private_run, 0)
    merchant.train_round(_ask(private_run))
    with pytest.raises(Refusal, match="E_REPLAY"):
        merchant.train_round(_ask(private_run, shift=0.01))
    assert computed.times == 1


def test_two_askers_at_once_get_one_answer(private_run, computed):
    """Both find the round unanswered; whoever comes second must wait, and then learns that it is answered."""
    second, heard = load_merchant(private_run, 0), []

    def ask_second() -> None:
        try:
            heard.append(second.train_round(_ask(private_run, shift=0.01)))
        except Refusal as refusal:
            heard.append(refusal.code)

    thread = Thread(target=ask_second)

    def meanwhile() -> None:
        computed.before = lambda: None
        thread.start()
        thread.join(timeout=0.5)  # long enough to be answered, were it let in

    computed.before = meanwhile
    load_merchant(private_run, 0).train_round(_ask(private_run))
    thread.join()
    assert heard == [RefusalCode.REPLAY]
    assert computed.times == 1


def _merchant(run, tmp_path, agreed: Agreement, name: str, partition: int = 0) -> Merchant:
    """A merchant of the same people with a ledger and replies of its own."""
    files = LedgerFiles.beside(tmp_path / f"{name}.sqlite")
    return Merchant(
        agreed,
        learner=RankerLearner(agreed_ranker(agreed, run), client_histories(run, partition), local_training(agreed)),
        policy=(policy := policy_of(run, agreed.plan)),
        ledger=Ledger.create(files, dataset="same", policy=policy, durable=False),
        replies=ReplyCache(tmp_path / f"{name}.safetensors"),
        partition=partition,
    )


def test_noise_of_a_private_plan_cannot_be_repeated(private_run, tmp_path):
    """Same seed, same data, same instruction, and every seeded generator of the process set alike."""
    agreed, replies = _agreed(private_run), []
    for name in ("one", "other"):
        merchant = _merchant(private_run, tmp_path, agreed, name)
        torch.manual_seed(0)
        np.random.seed(0)
        state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        replies.append(merchant.train_round(_ask(private_run)).arrays)
        assert torch.equal(state[0], torch.random.get_rng_state())  # nor is it drawn from
        assert np.array_equal(state[1], np.random.get_state()[1])
    for name, values in replies[0].items():
        assert (values != replies[1][name]).mean() > 0.99, name


def test_private_plan_never_asks_the_seeded_source(private_run, monkeypatch):
    def refuse(seed: int) -> None:
        raise AssertionError("seeded noise in a private run")

    monkeypatch.setattr(clients.merchant, "SeededRandom", refuse)
    load_merchant(private_run, 0).train_round(_ask(private_run))


def test_run_that_is_not_private_depends_on_the_seed_alone(open_run, tmp_path):
    agreed = _agreed(open_run)

    def reply(name: str, *, partition: int = 0, **changes) -> Arrays:
        torch.manual_seed(len(name))
        merchant = _merchant(open_run, tmp_path, replace(agreed, **changes), name, partition=partition)
        return merchant.train_round(_ask(open_run)).arrays

    first = reply("one")
    assert _same_arrays(first, reply("another"))
    assert not _same_arrays(first, reply("other seed", seed=4))


def test_masks_of_clients_and_rounds_differ(open_run, monkeypatch):
    sampled = []
    real = clients.merchant.SeededRandom

    def noted(seed: int):
        sampled.append(seed)
        return real(seed)

    monkeypatch.setattr(clients.merchant, "SeededRandom", noted)
    for partition in (0, 1):
        for round_index in (1, 2):
            load_merchant(open_run, partition).train_round(_ask(open_run, round_index=round_index))
    assert len(set(sampled)) == 4


def test_round_takes_up_the_steps_where_the_last_one_ended(open_run, monkeypatch):
    """Two steps a round: round 2 shows the windows of steps 2 and 3, whoever asks for it first."""
    merchants, steps = [load_merchant(open_run, partition) for partition in (0, 1)], []
    real = clients.training.window_of_step

    def noted(sequence, *, step, history):
        steps.append(step)
        return real(sequence, step=step, history=history)

    monkeypatch.setattr(clients.training, "window_of_step", noted)
    for merchant in merchants:
        merchant.train_round(_ask(open_run, round_index=2))
    assert set(steps) == {2, 3}


def test_clients_of_one_process_do_not_see_each_other(open_run, tmp_path):
    """They share the resident model, one after the other."""
    alone = _merchant(open_run, tmp_path, _agreed(open_run), "alone", partition=1).train_round(_ask(open_run))
    first, second = load_merchant(open_run, 0), load_merchant(open_run, 1)
    first.train_round(_ask(open_run))
    assert _same_arrays(second.train_round(_ask(open_run)).arrays, alone.arrays)
