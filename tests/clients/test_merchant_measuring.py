"""A release of metrics is asked of the policy, charged before data is touched, noised, and answered once."""

import math
from dataclasses import replace

import numpy as np
import pytest

import clients.merchant
import clients.training
from clients.measuring import person_metrics
from clients.merchant import load_merchant
from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.errors import PrivacyError
from fedrec.privacy.policy import load_policy, write_policy
from fedrec.runfolder import server_key_path
from fedrec.schema import Arrays
from fedrec.signing import Purpose, SigningKey
from fedrec.wire import Receipt, Refusal, RefusalCode
from fedrec.workspace import client_histories, ledger_of
from tests.tiny_ranker import histories, instruction, open_plan, private_plan, run_folder, start_arrays

PEOPLE = histories(5, 9, 3, 14, 2, 7, 6, 8)
CLIENTS = [np.array([0, 3, 4, 6]), np.array([1, 2, 5, 7])]
NAMES = ("ndcg@10", "hr@10")
METRICS = {"metrics": NAMES, "metrics_every": 2}  # after rounds 2 and 4 of 4


def _plan(**changes):
    return private_plan(metric_releases=2, metric_noise_multiplier=5.0, **changes)


@pytest.fixture
def run(tmp_path):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=_plan(), **METRICS)
    return tmp_path / "run"


def _ask(run, *, round_index: int = 2, shift: float = 0.0):
    agreed = read_agreement(run)
    start = {name: values + np.float32(shift) for name, values in start_arrays(agreed).items()}
    return instruction(agreed, start, round_index=round_index)


def _entries(run, partition: int = 0):
    return [
        (e.round_id, e.kind, e.state, e.steps)
        for e in ledger_of(run, partition, read_agreement(run).plan).entries()
        if e.round_id
    ]


def _same(one: Arrays, other: Arrays) -> bool:
    return list(one) == list(other) and all(values.tobytes() == other[name].tobytes() for name, values in one.items())


class Touched:
    """Counts how often anyone's history is ranked, and can run something or fail just before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, self.fail, self.before = 0, False, lambda: None

        def counted(*arguments, **how):
            self.times += 1
            self.before()
            if self.fail:
                raise MemoryError("a crash")
            return person_metrics(*arguments, **how)

        monkeypatch.setattr(clients.training, "person_metrics", counted)


@pytest.fixture
def touched(monkeypatch) -> Touched:
    return Touched(monkeypatch)


RESERVED = ("run-1/2/metrics", "metrics", "reserved", 1)
RELEASED = ("run-1/2/metrics", "metrics", "released", 0)


def test_release_is_charged_before_data_is_touched_and_noted_as_sent_after(run, touched):
    seen = []
    touched.before = lambda: seen.append(_entries(run))
    answer = load_merchant(run, 0).measure_round(_ask(run))
    assert seen == [[RESERVED]]
    assert _entries(run) == [RESERVED, RELEASED]
    assert answer.ledger_head == ledger_of(run, 0, _plan()).head()
    assert ledger_of(run, 0, _plan()).spendings() == (_plan().metrics_release(),)


def test_metrics_are_two_float32_numbers_in_the_agreed_order(run):
    arrays = load_merchant(run, 0).measure_round(_ask(run)).arrays
    assert list(arrays) == list(NAMES)
    assert {(values.shape, values.dtype.name) for values in arrays.values()} == {((), "float32")}


def test_without_privacy_the_release_is_the_sum_over_the_expected_people(tmp_path):
    plan, people = open_plan(metric_releases=2, expected_people=8), histories(*range(4, 34))
    agreed = run_folder(tmp_path / "run", people, [np.arange(30)], plan=plan, **METRICS)
    asked = _ask(tmp_path / "run")
    values = person_metrics(
        agreed_ranker(agreed, tmp_path / "run"),
        client_histories(tmp_path / "run", 0),
        asked.adapter,
        metrics=NAMES,
        mask_last=True,
    )
    arrays = load_merchant(tmp_path / "run", 0).measure_round(asked).arrays
    np.testing.assert_allclose([arrays[name] for name in NAMES], values.sum(axis=0) / 8, rtol=1e-6)
    assert values.sum() > 0


def test_noise_of_a_private_release_cannot_be_repeated(run, monkeypatch):
    """Two clients with the same seed and people: the noise has deviation 5·sqrt(2)/8, so they hardly ever agree."""

    def refuse(seed: int) -> None:
        raise AssertionError("seeded noise in a private run")

    monkeypatch.setattr(clients.merchant, "SeededRandom", refuse)
    monkeypatch.setattr(clients.training, "person_metrics", lambda *_, **__: np.zeros((4, 2)))
    releases = [load_merchant(run, partition).measure_round(_ask(run)).arrays for partition in (0, 1)]
    numbers = [float(values) for arrays in releases for values in arrays.values()]
    assert len(set(numbers)) == 4
    assert max(map(abs, numbers)) < 6 * 5 * math.sqrt(2) / 8


def test_repeated_instruction_gets_the_same_bytes_and_costs_nothing(run, touched):
    first = load_merchant(run, 0).measure_round(_ask(run))
    for _ in range(2):  # also from a merchant that was started anew
        again = load_merchant(run, 0).measure_round(_ask(run))
        assert _same(first.arrays, again.arrays)
        assert first.ledger_head == again.ledger_head
    assert touched.times == 1
    assert _entries(run) == [RESERVED, RELEASED]


def test_training_and_measuring_do_not_displace_each_others_replies(run, touched):
    """One client has both; each is repeated with its own bytes."""
    merchant = load_merchant(run, 0)
    trained, measured = merchant.train_round(_ask(run)), merchant.measure_round(_ask(run, shift=0.01))
    assert _same(trained.arrays, merchant.train_round(_ask(run)).arrays)
    assert _same(measured.arrays, merchant.measure_round(_ask(run, shift=0.01)).arrays)
    assert touched.times == 1
    assert [entry[0] for entry in _entries(run)] == ["run-1/2"] * 2 + ["run-1/2/metrics"] * 2


def test_same_release_for_another_adapter_is_refused(run, touched):
    merchant = load_merchant(run, 0)
    merchant.measure_round(_ask(run))
    with pytest.raises(Refusal, match="E_REPLAY: this round was answered for another adapter"):
        merchant.measure_round(_ask(run, shift=0.01))
    assert touched.times == 1
    assert _entries(run) == [RESERVED, RELEASED]


def test_crash_after_the_charge_is_made_good_on_the_booked_charge(run, touched):
    touched.fail = True
    with pytest.raises(MemoryError):
        load_merchant(run, 0).measure_round(_ask(run))
    assert _entries(run) == [RESERVED]
    touched.fail = False
    load_merchant(run, 0).measure_round(_ask(run))
    assert touched.times == 2
    assert _entries(run) == [RESERVED, RELEASED]


def _refusal(run, asked) -> Refusal:
    with pytest.raises(Refusal) as refused:
        load_merchant(run, 0).measure_round(asked)
    return refused.value


@pytest.mark.parametrize("round_index", [1, 3])
def test_round_without_a_release_is_refused_and_costs_nothing(run, touched, round_index):
    refused = _refusal(run, _ask(run, round_index=round_index))
    assert (refused.code, str(refused)) == (RefusalCode.PLAN, "E_PLAN: no metrics were agreed on for after this round")
    assert (touched.times, _entries(run)) == (0, [])


@pytest.mark.parametrize("changes", [{"round_index": 6}, {"run_id": "run-2"}])
def test_round_outside_the_plan_is_refused_and_costs_nothing(run, touched, changes):
    refused = _refusal(run, replace(_ask(run), **changes))
    assert str(refused) == "E_PLAN: this round is not part of the agreed plan"
    assert (touched.times, _entries(run)) == (0, [])


def test_client_that_agreed_to_no_metrics_refuses_to_measure(tmp_path, touched):
    run_folder(tmp_path / "run", PEOPLE, CLIENTS, plan=private_plan())
    refused = _refusal(tmp_path / "run", _ask(tmp_path / "run"))
    assert refused.code is RefusalCode.PLAN
    assert (touched.times, _entries(tmp_path / "run")) == (0, [])


@pytest.mark.parametrize("allowed", [("hr@10",), ()])
def test_metrics_that_the_clients_own_policy_does_not_allow_stay_home(run, touched, allowed):
    """The agreement says yes, the owner no."""
    policy = load_policy(run / "policy.toml")
    write_policy(policy.model_copy(update={"allowed_metrics": allowed}), run / "policy.toml")
    refused = _refusal(run, _ask(run))
    assert refused.code is RefusalCode.PLAN
    assert "policy allowed_metrics: " in str(refused)
    assert (touched.times, _entries(run)) == (0, [])


def test_policy_with_one_of_two_metrics_still_trains(run):
    policy = load_policy(run / "policy.toml")
    write_policy(policy.model_copy(update={"allowed_metrics": ("hr@10",)}), run / "policy.toml")
    load_merchant(run, 0).train_round(_ask(run))


def test_training_and_releases_together_use_the_budget_up_and_no_more(run):
    """Four rounds and two releases spend what the plan promises; the plan's training alone would leave room."""
    merchant, plan = load_merchant(run, 0), _plan()
    for round_index in range(1, 5):
        merchant.train_round(_ask(run, round_index=round_index))
        if round_index % 2 == 0:
            merchant.measure_round(_ask(run, round_index=round_index))
    spent = ledger_of(run, 0, plan).spent()
    assert 7 < spent <= 8
    assert spent == plan.epsilon_after(4, metric_releases=2)
    assert plan.epsilon_after(4) < spent
    assert plan.noise_multiplier > private_plan().noise_multiplier


def test_ledger_that_refuses_means_nothing_is_measured(run, touched):
    """Both releases of the plan were charged to this run under other names."""
    ledger, plan = ledger_of(run, 0, _plan()), _plan()
    for name in ("a", "b"):
        ledger.charge(f"run-1/{name}/metrics", plan.metrics_release(), plan=plan, kind=clients.merchant.Kind.METRICS)
    with pytest.raises(PrivacyError, match="would bring metrics of this run to 3 steps, expected <= 2"):
        load_merchant(run, 0).measure_round(_ask(run))
    assert touched.times == 0


def test_receipt_that_the_pinned_server_did_not_sign_is_refused_before_data_is_touched(run, touched, tmp_path):
    head = ledger_of(run, 0, _plan()).head()
    stranger = SigningKey.create(tmp_path / "stranger.key")
    for key, error in ((SigningKey.load(server_key_path(run)), None), (stranger, PrivacyError)):
        receipt = Receipt(head, key.sign(bytes.fromhex(head), purpose=Purpose.LEDGER_HEAD))
        asked = replace(_ask(run), receipt=receipt)
        if error is None:
            load_merchant(run, 0).measure_round(asked)
        else:
            with pytest.raises(error, match="expected the server's signature of it"):
                load_merchant(run, 0).measure_round(asked)
    assert touched.times == 1
