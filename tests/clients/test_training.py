"""What one person can move, measured through the code that a real client runs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import clients.training
from clients.training import LocalTraining, RankerLearner, private_direction, public_negatives, step_losses
from fedrec.data.histories import Histories
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, schema_of, trainable_parameters
from fedrec.model.ranker import Ranker
from fedrec.model.windows import window_of_step
from fedrec.privacy.mechanism import Mechanism
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from fedrec.schema import Arrays, flatten, parameters_of
from tests.tiny_ranker import HISTORY, ITEMS, KINDS, TARGETS, adapted, histories, open_plan, private_plan

PEOPLE = histories(9, 30, 2, 14, 1, 7, 3, 20, 5)  # the fifth has nothing to predict
EVERYONE = np.arange(len(PEOPLE))
FIRST_MIDDLE_LAST = (0, 3, 8)
CLIP = 0.05
FULL = LocalTraining(mask_last=True, negatives=None, seed=0)
SAMPLED = replace(FULL, negatives=9)
TRAINING = pytest.mark.parametrize("training", [FULL, SAMPLED], ids=["full", "negatives"])


def _direction(
    ranker: Ranker,
    people: Histories,
    *,
    plan: PrivacyPlan | None = None,
    training: LocalTraining = FULL,
    taken: int = 0,
    steps: int = 1,
    rate: float = 1.0,
    start: Arrays | None = None,
) -> np.ndarray:
    """Direction times normaliser, (P,): the sum of what people contributed."""
    plan = plan or open_plan(clip_norm=CLIP, rounds=9)
    random = SecureRandom() if plan.private else SeededRandom(0)
    arrays = private_direction(
        RankerLearner(ranker, people, training),
        adapter_arrays(ranker) if start is None else start,
        mechanism=plan.mechanism(random, steps_taken=taken),
        steps=steps,
        learning_rate=rate,
    )
    return flatten(arrays, schema_of(ranker)) * plan.normaliser


def _moved_by(person: int, **how) -> float:
    """How far the released sum moves when a person leaves, in units of the clip norm; a fresh ranker each time."""
    with_everyone, without = (
        _direction(adapted(), people, **how) for people in (PEOPLE, PEOPLE.subset(np.delete(EVERYONE, person)))
    )
    return float(np.linalg.norm(with_everyone - without)) / CLIP


@TRAINING
@pytest.mark.parametrize("clipping", ["flat", "auto-s"])
@pytest.mark.parametrize("person", FIRST_MIDDLE_LAST)
def test_one_person_moves_the_release_by_at_most_the_clip_norm(person, clipping, training):
    plan = open_plan(clip_norm=CLIP, clipping=clipping, expected_people=7, rounds=9)
    for taken in (0, 1, 2):
        moved = _moved_by(person, plan=plan, training=training, taken=taken)
        assert moved <= 1 + 1e-6
        assert moved > 0.5  # the bound is used, so the test says something


@TRAINING
@pytest.mark.parametrize("person", FIRST_MIDDLE_LAST[:2])
def test_windows_from_a_shared_stream_would_break_the_bound(person, training, monkeypatch):
    """What this code must not do: whoever leaves shifts the windows of everyone after them."""

    class Stream:
        rng = np.random.default_rng(0)

    def random_window(sequence: np.ndarray, *, step: int, history: int) -> np.ndarray:
        return window_of_step(sequence, step=int(Stream.rng.integers(0, 1000)), history=history)

    monkeypatch.setattr(clients.training, "window_of_step", random_window)
    sums = []
    for people in (PEOPLE, PEOPLE.subset(np.delete(EVERYONE, person))):
        Stream.rng = np.random.default_rng(0)
        sums.append(_direction(adapted(), people, training=training))
    assert np.linalg.norm(sums[0] - sums[1]) > 1.2 * CLIP


def test_negatives_from_the_batch_would_break_the_bound(monkeypatch):
    calls = []

    def drawn_for_the_batch(items: int, training: LocalTraining, *, step: int) -> torch.Tensor:
        calls.append(step)
        return torch.from_numpy(np.random.default_rng(len(calls)).choice(items, 9, replace=False))

    monkeypatch.setattr(clients.training, "public_negatives", drawn_for_the_batch)
    assert _moved_by(0, training=SAMPLED) > 1.2


@pytest.mark.parametrize("person", FIRST_MIDDLE_LAST)
def test_sampling_others_does_not_depend_on_their_gradients(person):
    """Whoever leaves takes their own contribution along, to the last bit that float32 keeps."""
    alone = _direction(adapted(), PEOPLE.subset(np.array([person])))
    rest = _direction(adapted(), PEOPLE.subset(np.delete(EVERYONE, person)))
    assert _direction(adapted(), PEOPLE) == pytest.approx(alone + rest, abs=1e-5 * CLIP)


def _by_hand(ranker: Ranker, *, step: int, training: LocalTraining, clip: float) -> np.ndarray:
    """Minus the sum of clipped gradients, one person at a time by plain autograd."""
    total = np.zeros(parameters_of(schema_of(ranker)))
    parameters = list(trainable_parameters(ranker).values())
    for person in EVERYONE[PEOPLE.lengths > 1]:
        loss = step_losses(ranker, PEOPLE, np.array([person]), step=step, training=training).sum()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).double().numpy()
        total -= gradient * min(1.0, clip / np.linalg.norm(gradient))
    return total


@TRAINING
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_a_step_equals_plain_autograd_person_by_person(kind, training, clip):
    expected = _by_hand(adapted(kind=kind), step=3, training=training, clip=clip)
    plan = open_plan(clip_norm=clip, rounds=9)
    ours = _direction(adapted(kind=kind), PEOPLE, plan=plan, training=training, taken=3)
    assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)


def test_second_local_step_starts_where_the_first_one_led():
    plan = open_plan(clip_norm=CLIP, expected_people=8, local_steps=2)
    ranker, rate = adapted(), 5.0
    start = adapter_arrays(ranker)
    first = _by_hand(ranker, step=0, training=FULL, clip=CLIP) / 8
    both = _direction(ranker, PEOPLE, plan=plan, steps=2, rate=rate) / 8
    moved, place = {}, 0
    for spec in schema_of(ranker):
        size = int(np.prod(spec.shape))
        moved[spec.name] = start[spec.name] + rate * first[place : place + size].reshape(spec.shape)
        place += size
    load_adapter_arrays(ranker, moved)
    second = _by_hand(ranker, step=1, training=FULL, clip=CLIP) / 8
    assert both == pytest.approx(first + second, abs=1e-6)


def test_start_is_used_and_not_what_the_ranker_held_before():
    """One resident model serves many clients: nothing of the last one may stay."""
    start = adapter_arrays(adapted())
    fresh, used = adapted(), adapted()
    with torch.no_grad():
        for parameter in trainable_parameters(used).values():
            parameter.add_(3.0)
    assert np.array_equal(_direction(fresh, PEOPLE, start=start), _direction(used, PEOPLE, start=start))


def test_split_into_chunks_does_not_change_the_step(monkeypatch):
    whole = _direction(adapted(), PEOPLE)
    monkeypatch.setattr(clients.training, "PEOPLE_AT_A_TIME", 3)
    assert _direction(adapted(), PEOPLE) == pytest.approx(whole, abs=1e-5 * CLIP)


@pytest.mark.parametrize(("people_that_fit", "largest"), [(0, 1), (1, 1), (3, 3), (10**9, 7)])
def test_a_large_adapter_is_trained_on_fewer_people_at_a_time(people_that_fit, largest, monkeypatch):
    """The gradients of so many people fit; one person's always must."""
    ranker, people = adapted(), histories(*[4] * 7)
    parameters = sum(array.size for array in adapter_arrays(ranker).values())
    monkeypatch.setattr(clients.training, "NUMBERS_AT_A_TIME", people_that_fit * parameters)
    chunks = RankerLearner(ranker, people, FULL).gradients(np.arange(7), adapter_arrays(ranker), step=0)
    sizes = [len(chunk) for chunk in chunks]
    assert sum(sizes) == 7
    assert max(sizes) == largest


@pytest.mark.parametrize("people", [[], [[3], [], [7]]])
def test_nobody_to_learn_from_gives_zeros_without_noise(people):
    assert not _direction(adapted(), Histories.from_lists(people)).any()


def test_empty_batch_is_pure_noise_of_the_planned_size():
    """Standard deviation sigma·C over P numbers; two thirds or three halves of it would be seen."""
    ranker, plan = adapted(targets="all-linear"), private_plan()
    noise = _direction(ranker, Histories.from_lists([]), plan=plan)
    assert len(noise) > 800
    assert noise.std() == pytest.approx(plan.noise_multiplier * plan.clip_norm, rel=0.15)
    assert abs(noise.mean()) < 0.2 * noise.std()


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_private_round_leaves_the_frozen_base_bit_identical(kind, targets):
    ranker = adapted(kind=kind, targets=targets)
    frozen = {name: p.detach().clone() for name, p in ranker.named_parameters() if not p.requires_grad}
    before = adapter_arrays(ranker)
    _direction(ranker, PEOPLE, plan=private_plan(local_steps=2), steps=2)
    after = dict(ranker.named_parameters())
    assert frozen
    assert all(torch.equal(values, after[name]) for name, values in frozen.items())
    assert all(p.grad is None for p in ranker.parameters())
    assert not all(np.array_equal(before[name], values) for name, values in adapter_arrays(ranker).items())


def test_step_shows_the_window_of_that_step():
    """A person of 30 events shows five windows of six, then the first again."""
    ranker = adapted()
    long = PEOPLE.subset(np.array([1]))

    def loss(step: int) -> float:
        return float(step_losses(ranker, long, np.array([0]), step=step, training=FULL).detach())

    losses = [loss(step) for step in range(5)]
    assert len({round(value, 4) for value in losses}) == 5
    assert loss(5) == losses[0]
    last = Histories.from_lists([long.of(0)[-HISTORY - 1 :].tolist()])
    assert losses[0] == float(step_losses(ranker, last, np.array([0]), step=0, training=FULL).detach())


def test_negatives_are_public_distinct_and_new_in_each_step():
    drawn = [public_negatives(ITEMS, SAMPLED, step=step) for step in range(40)]
    again = [public_negatives(ITEMS, SAMPLED, step=step) for step in range(40)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert all(len(set(one.tolist())) == 9 for one in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], public_negatives(ITEMS, replace(SAMPLED, seed=1), step=0))
    assert {int(item) for one in drawn for item in one} == set(range(ITEMS))


@pytest.mark.parametrize("negatives", [None, ITEMS, ITEMS + 1])
def test_small_catalogue_is_scored_whole(negatives):
    assert public_negatives(ITEMS, replace(FULL, negatives=negatives), step=0) is None


def test_round_that_fails_half_way_leaves_no_hooks_on_the_ranker_that_others_share(monkeypatch):
    ranker, hooked = adapted(), []

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in ranker.modules())

    def fail(self: Mechanism, chunks: Iterator[torch.Tensor], parameters: int) -> np.ndarray:
        next(chunks), next(chunks)
        hooked.append(hooks())
        raise MemoryError("half-way")

    monkeypatch.setattr(Mechanism, "release", fail)
    with pytest.raises(MemoryError) as caught:
        _direction(ranker, PEOPLE)
    assert hooked[0] > 0
    assert hooks() == 0
    assert caught.tb  # which holds on to every frame, and so to gradients that nobody closed
