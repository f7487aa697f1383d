"""The audited clients are the real ones: whatever changes in the merchant's code shows."""

import numpy as np
import pytest
import torch

import clients.audited
import clients.merchant
import clients.opening
import clients.training
from clients.audited import audited_clients
from fedrec.data.histories import Histories
from fedrec.errors import PrivacyError
from fedrec.privacy.audit.tap import Tap
from fedrec.privacy.mechanism import Mechanism
from fedrec.schema import flatten, parameters_of
from fedrec.wire import Refusal
from tests.tiny_ranker import KINDS, TARGETS, adapted, agreement, histories, open_plan, private_plan

PEOPLE = histories(5, 9, 3, 14)


@pytest.fixture
def engine():
    with audited_clients(agreement(private_plan()), adapted()) as opened:
        yield opened


def test_two_clients_with_one_seed_draw_different_noise(engine):
    """Same agreement and seed, same partition, same people, same instruction, every seeded generator alike."""
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        answers.append(flatten(engine.client(Histories.from_lists([[0]]), Tap()).answer(1), engine.schema))
    first, other = answers
    assert (first != other).all()
    length = np.linalg.norm(first) * np.linalg.norm(other)
    assert abs(first @ other) / length < 6 / np.sqrt(len(first))


def test_two_clients_with_one_seed_and_no_privacy_do_repeat():
    """The test above can fail: a run that is stamped NOT PRIVATE takes its coins from the seed."""
    with audited_clients(agreement(open_plan(sampling_rate=0.5)), adapted()) as engine:
        taps = [Tap(), Tap()]
        answers = [engine.client(PEOPLE, tap).answer(1) for tap in taps]
    assert taps[0].steps[0].chosen.tolist() == taps[1].steps[0].chosen.tolist()
    assert all(np.array_equal(values, answers[1][name]) for name, values in answers[0].items())


def test_ledger_books_each_round_and_refuses_one_beyond_the_plan(engine):
    client = engine.client(PEOPLE, Tap())
    assert client.charged_steps() == 0
    for round_index in range(1, 5):
        client.answer(round_index)
        assert client.charged_steps() == round_index
    with pytest.raises(Refusal, match="not part of the agreed plan"):
        client.answer(5)


def test_repeated_round_is_answered_from_the_cache_and_not_seen_twice(engine):
    tap = Tap()
    client = engine.client(PEOPLE, tap)
    first, again = client.answer(1), client.answer(1)
    assert all(np.array_equal(values, again[name]) for name, values in first.items())
    assert len(tap.steps) == client.charged_steps() == 1


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (clients.merchant, "private_direction"),
        (clients.training, "step_losses"),
        (clients.training, "window_of_step"),
        (clients.training, "person_losses"),
        (clients.training, "unflatten"),
        (clients.training.PersonGradients, "compute"),
        (Mechanism, "sample"),
        (Mechanism, "release"),
        (clients.merchant.SeededRandom, "bernoulli"),
    ],
)
def test_every_function_of_the_real_path_is_on_the_audited_one(place, name, monkeypatch):
    calls, honest = [], getattr(place, name)

    def noted(*arguments, **how):
        calls.append(name)
        return honest(*arguments, **how)

    with audited_clients(agreement(open_plan()), adapted()) as engine:
        monkeypatch.setattr(place, name, noted)
        engine.client(PEOPLE, Tap()).answer(1)
    assert calls


def test_start_up_check_is_the_merchants_own(engine, monkeypatch):
    engine.check_gradients()

    def refuse(ranker, training):
        raise PrivacyError("as the merchant says")

    monkeypatch.setattr(clients.audited, "check_person_gradients", refuse)
    with pytest.raises(PrivacyError, match="as the merchant says"):
        engine.check_gradients()
    assert clients.audited.check_person_gradients is not clients.opening.check_person_gradients


@pytest.mark.parametrize("negatives", [None, 9])
@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_a_batch_equal_a_loop_over_people_for_each_adapter(kind, targets, gains, negatives):
    """What reached the mechanism of a real client, against plain autograd person by person."""
    ranker = adapted(kind=kind, targets=targets, norms=gains, gains=gains)
    with audited_clients(agreement(open_plan(), negatives=negatives), ranker) as engine:
        tap = Tap(keeps_rows=True)
        engine.client(PEOPLE, tap).answer(1)
        rows = tap.steps[0].rows.double().numpy()
        alone = np.array([engine.gradient_alone(PEOPLE, person) for person in range(len(PEOPLE))])
    assert rows.shape == alone.shape == (4, parameters_of(engine.schema))
    length = np.linalg.norm(alone, axis=1)
    assert length.min() > 1e-3
    assert (np.linalg.norm(rows - alone, axis=1) <= 1e-4 * length).all()


def test_frozen_digest_sees_one_bit_of_the_base_and_nothing_of_the_adapter():
    ranker = adapted()
    with audited_clients(agreement(private_plan()), ranker) as engine:
        before = engine.frozen_digest()
        engine.client(PEOPLE, Tap()).answer(1)
        assert engine.frozen_digest() == before
        with torch.no_grad():
            ranker.bias[3] += 1e-7
        assert engine.frozen_digest() != before


@pytest.mark.parametrize("count", [200])
def test_removing_or_adding_any_person_moves_the_sum_by_at_most_the_clip_norm(count):
    """Exhaustively, through charge, training and reply, without noise and with everyone in."""
    lengths = np.random.default_rng(1).integers(1, 31, count)
    people, everyone = histories(*lengths), np.arange(count)
    plan = open_plan(clip_norm=0.05)
    with audited_clients(agreement(plan), adapted()) as engine:

        def total(who: Histories) -> np.ndarray:
            return flatten(engine.client(who, Tap()).answer(1), engine.schema) * plan.normaliser

        whole = total(people)
        moved = [np.linalg.norm(whole - total(people.subset(np.delete(everyone, i)))) / 0.05 for i in everyone]
    assert max(moved) <= 1 + 1e-3
    assert min(np.array(moved)[lengths > 1]) > 0.5  # the bound is used
    assert max(np.array(moved)[lengths == 1], default=0.0) < 1e-3
