"""A release of counts is asked of the policy, charged before data is touched, noised for any one person, sent once."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clients.merchant
import clients.training
from clients.merchant import Merchant, load_merchant
from clients.opening import local_training
from clients.replies import ReplyCache
from clients.training import RankerLearner
from fedrec.agreement import Agreement, read_agreement
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError
from fedrec.model.counting import person_statistics
from fedrec.model.statistics import Counting, StatisticsSpec
from fedrec.privacy.ledger import Kind, Ledger, LedgerFiles
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import load_policy, write_policy
from fedrec.schema import Arrays, flatten, parameters_of
from fedrec.wire import Refusal, RefusalCode
from fedrec.workspace import ledger_of
from tests.fedrec.privacy.noises import is_noise_of
from tests.tiny_ranker import (
    ITEMS,
    agreement,
    histories,
    instruction,
    learned,
    open_plan,
    private_plan,
    public_pairs,
    run_folder,
    start_arrays,
)

PEOPLE = histories(5, 9, 3, 14, 2, 7, 6, 8)
CLIENTS = [np.array([0, 3, 4, 6]), np.array([1, 2, 5, 7])]
SPEC = StatisticsSpec(window=3, popularity_share=0.25)
COUNTING = Counting(public_pairs(), SPEC)
SIGMA = 5.0


def _plan(**changes) -> PrivacyPlan:
    return private_plan(statistics_noise_multiplier=SIGMA, **changes)


@pytest.fixture
def run(tmp_path):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=_plan(), statistics=SPEC)
    return tmp_path / "run"


def _ask(run, *, shift: float = 0.0):
    agreed = read_agreement(run)
    start = {name: values + np.float32(shift) for name, values in start_arrays(agreed).items()}
    return instruction(agreed, start)


def _entries(run, partition: int = 0):
    return [
        (e.round_id, e.kind, e.state, e.steps)
        for e in ledger_of(run, partition, read_agreement(run).plan).entries()
        if e.round_id
    ]


def _same(one: Arrays, other: Arrays) -> bool:
    return list(one) == list(other) and all(values.tobytes() == other[name].tobytes() for name, values in one.items())


class Touched:
    """Counts how often anyone's history is counted, and can run something or fail just before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, self.fail, self.before = 0, False, lambda: None

        def counted(*arguments):
            self.times += 1
            self.before()
            if self.fail:
                raise MemoryError("a crash")
            return person_statistics(*arguments)

        monkeypatch.setattr(clients.training, "person_statistics", counted)


@pytest.fixture
def touched(monkeypatch) -> Touched:
    return Touched(monkeypatch)


RESERVED = ("run-1/statistics", "statistics", "reserved", 1)
RELEASED = ("run-1/statistics", "statistics", "released", 0)


def test_release_is_charged_before_data_is_touched_and_noted_before_it_is_sent(run, touched):
    booked = []
    touched.before = lambda: booked.append(_entries(run))
    answer = load_merchant(run, 0).count_statistics(_ask(run))
    assert booked == [[RESERVED]]
    assert _entries(run) == [RESERVED, RELEASED]
    assert {name: values.shape for name, values in answer.arrays.items()} == {"popularity": (ITEMS,), "pairs": (80,)}
    assert {values.dtype for values in answer.arrays.values()} == {np.dtype(np.float32)}
    assert answer.ledger_head == ledger_of(run, 0, _plan()).head()


def test_repeated_instruction_gets_the_same_bytes_and_costs_nothing(run, touched):
    first = load_merchant(run, 0).count_statistics(_ask(run))
    for _ in range(2):  # also from a merchant that was started anew
        again = load_merchant(run, 0).count_statistics(_ask(run))
        assert _same(first.arrays, again.arrays)
        assert first.ledger_head == again.ledger_head
    assert touched.times == 1
    assert _entries(run) == [RESERVED, RELEASED]


def test_counting_and_training_do_not_displace_each_others_replies(run, touched):
    merchant = load_merchant(run, 0)
    counted, trained = merchant.count_statistics(_ask(run)), merchant.train_round(_ask(run, shift=0.01))
    assert _same(counted.arrays, merchant.count_statistics(_ask(run)).arrays)
    assert _same(trained.arrays, merchant.train_round(_ask(run, shift=0.01)).arrays)
    assert touched.times == 1


def test_there_is_no_second_release_whatever_round_or_adapter_it_is_asked_with(run, touched):
    merchant = load_merchant(run, 0)
    merchant.count_statistics(_ask(run))
    for asked in (_ask(run, shift=0.01), replace(_ask(run), round_index=2)):
        with pytest.raises(Refusal, match="E_REPLAY: this round was answered for another adapter"):
            merchant.count_statistics(asked)
    assert touched.times == 1
    assert _entries(run) == [RESERVED, RELEASED]


def test_ledger_that_was_charged_under_another_name_refuses_a_second_release(run, touched):
    plan = _plan()
    ledger_of(run, 0, plan).charge("run-1/again", plan.statistics_release(), plan=plan, kind=Kind.STATISTICS)
    with pytest.raises(PrivacyError, match="would bring statistics of this run to 2 steps, expected <= 1"):
        load_merchant(run, 0).count_statistics(_ask(run))
    assert touched.times == 0


def test_crash_after_the_charge_is_made_good_on_the_booked_charge(run, touched):
    touched.fail = True
    with pytest.raises(MemoryError):
        load_merchant(run, 0).count_statistics(_ask(run))
    assert _entries(run) == [RESERVED]
    touched.fail = False
    load_merchant(run, 0).count_statistics(_ask(run))
    assert _entries(run) == [RESERVED, RELEASED]


@pytest.mark.parametrize("changes", [{"round_index": 5}, {"run_id": "run-2"}])
def test_another_run_or_a_round_outside_the_plan_is_refused_and_costs_nothing(run, touched, changes):
    with pytest.raises(Refusal, match="E_PLAN: this round is not part of the agreed plan"):
        load_merchant(run, 0).count_statistics(replace(_ask(run), **changes))
    assert (touched.times, _entries(run)) == (0, [])


def test_client_that_agreed_to_no_statistics_refuses_to_count(tmp_path, touched):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=private_plan())
    with pytest.raises(Refusal, match="E_PLAN: no statistics were agreed on"):
        load_merchant(tmp_path / "run", 0).count_statistics(_ask(tmp_path / "run"))
    assert (touched.times, _entries(tmp_path / "run")) == (0, [])


def test_counts_that_the_clients_own_policy_does_not_allow_stay_home(run, touched):
    """The agreement says yes, the owner no."""
    policy = load_policy(run / "policy.toml")
    write_policy(policy.model_copy(update={"statistics": False}), run / "policy.toml")
    with pytest.raises(Refusal, match="policy statistics: a release of counts, allowed none") as refused:
        load_merchant(run, 0).count_statistics(_ask(run))
    assert refused.value.code is RefusalCode.PLAN
    assert (touched.times, _entries(run)) == (0, [])


def test_training_and_the_release_together_use_the_budget_up_and_no_more(run):
    merchant, plan = load_merchant(run, 0), _plan()
    merchant.count_statistics(_ask(run))
    for round_index in range(1, 5):
        merchant.train_round(replace(_ask(run), round_index=round_index))
    spent = ledger_of(run, 0, plan).spent()
    assert 7 < spent <= 8
    assert spent == plan.epsilon_after(4, statistics=True)
    assert plan.epsilon_after(4) < spent
    assert plan.noise_multiplier > private_plan().noise_multiplier


class Source:
    """Merchants of any people under one agreement; each has a ledger of its own."""

    def __init__(self, folder, agreed: Agreement) -> None:
        self.folder, self.agreed, self.ranker, self.made = folder, agreed, learned(), 0

    def counts_of(self, people: Histories) -> np.ndarray:
        """The flat reply of a merchant who has these people, (S,)."""
        self.made += 1
        place = self.folder / str(self.made)
        place.mkdir()
        merchant = Merchant(
            self.agreed,
            learner=RankerLearner(self.ranker, people, local_training(self.agreed)),
            policy=None if not self.agreed.plan.private else self._policy(),
            ledger=Ledger.create(
                LedgerFiles.beside(place / "ledger.sqlite"),
                dataset="people",
                policy=None if not self.agreed.plan.private else self._policy(),
                durable=False,
            ),
            replies=ReplyCache(place / "reply.safetensors"),
            partition=0,
            counting=COUNTING,
        )
        asked = instruction(self.agreed, start_arrays(self.agreed))
        return flatten(merchant.count_statistics(asked).arrays, COUNTING.schema)

    def _policy(self):
        from clients.audited import _policy_of

        return _policy_of(self.agreed)


person = st.lists(st.integers(0, ITEMS - 1), max_size=12)


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> Source:
    """No noise, 50 people expected: what a merchant sends is the sum itself."""
    plan = open_plan(releases_statistics=True, expected_people=50)
    return Source(tmp_path_factory.mktemp("exact"), agreement(plan=plan, statistics=SPEC))


EXTREMES = {
    "one event": [3],
    "10,000 events": [0, 1, 2] * 3333 + [0],
    "one item again and again": [7] * 500,
    "one pair": [0, 1],
    "the whole catalogue": list(range(ITEMS)),
}


@pytest.mark.parametrize("history", EXTREMES.values(), ids=EXTREMES)
def test_one_person_moves_the_reply_of_a_real_merchant_by_at_most_their_bound(exact, history):
    """Whatever their history: the float32 of the reply may round each number, and nothing more."""
    others = [[0, 1, 2, 3], [5, 6, 5, 6, 7], [0, 1]]
    moved = exact.counts_of(Histories.from_lists([*others, history])) - exact.counts_of(Histories.from_lists(others))
    assert 0 < np.linalg.norm(moved) <= (1 + 1e-6) / 50


@given(others=st.lists(person, max_size=5), history=person)
def test_any_person_among_any_others_moves_it_by_no_more(exact, others, history):
    moved = exact.counts_of(Histories.from_lists([*others, history])) - exact.counts_of(Histories.from_lists(others))
    assert np.linalg.norm(moved) <= (1 + 1e-6) / 50


def test_the_divisor_is_public_and_not_the_number_of_people(exact):
    one = exact.counts_of(Histories.from_lists([[0, 1, 2]]))
    many = exact.counts_of(Histories.from_lists([[0, 1, 2]] * 7))
    assert many == pytest.approx(7 * one, rel=1e-6)
    assert np.linalg.norm(one) == pytest.approx(1 / 50, rel=1e-6)


@pytest.mark.parametrize(("trust", "sharers", "scale"), [("local", 1, 1.0), ("distributed", 4, 0.5)])
def test_noise_of_a_real_merchant_has_exactly_its_share(tmp_path, trust, sharers, scale):
    """What is left without the exact counts of the same people is normal noise of sigma / sqrt(m) over 8 people."""
    plan = _plan(trust=trust, noise_sharers=sharers)
    people = Histories.from_lists([[0, 1, 2, 3], [5, 6]])
    places_and_values = list(person_statistics(people, COUNTING))
    exact = np.zeros(parameters_of(COUNTING.schema))
    for places, values in places_and_values:
        exact[places] += values / 8
    source = Source(tmp_path, agreement(plan=plan, statistics=SPEC))
    noise = np.concatenate([source.counts_of(people) - exact for _ in range(40)])
    std = SIGMA * scale / 8
    assert is_noise_of(noise, std)
    assert not is_noise_of(noise * 2 / 3, std)
    assert not is_noise_of(noise * 3 / 2, std)
    assert not is_noise_of(noise, SIGMA / math.sqrt(sharers + 1 if sharers > 1 else 2) / 8)


def test_under_central_trust_a_merchant_adds_no_noise(tmp_path):
    people = Histories.from_lists([[0, 1, 2, 3], [5, 6]])
    source = Source(tmp_path, agreement(plan=_plan(trust="central"), statistics=SPEC))
    assert source.counts_of(people).tolist() == source.counts_of(people).tolist()
