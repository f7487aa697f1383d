"""The turn of a query and the mix: exact per person, apart from other people, and nothing at all before training."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedrec.model.query_adapter import Mix, QueryAdapter, QueryExamples, mixed_scores, person_losses, reciprocal_ranks
from fedrec.privacy.gradients import PersonGradients
from fedrec.privacy.selfcheck import verify_person_gradients

E, PEOPLE, EVENTS, CANDIDATES, ITEMS = 12, 6, 3, 9, 40
SHARPNESS = 5.0
VECTORS = functional.normalize(torch.randn(ITEMS, E, generator=torch.Generator().manual_seed(1)), dim=-1)


def adapter(*, trained: bool = False) -> QueryAdapter:
    made = QueryAdapter(E, rank=3, words=0.25, meaning=1.0, seed=0)
    if trained:
        with torch.no_grad():
            made.up.weight.normal_(generator=torch.Generator().manual_seed(2))
            made.mix.weight.copy_(torch.tensor([1.5, -2.0]))
    return made


def examples() -> QueryExamples:
    """Random queries; people have one to three events, and events fewer candidates than there is room for."""
    rng = torch.Generator().manual_seed(3)
    is_event = torch.arange(EVENTS) < torch.randint(1, EVENTS + 1, (PEOPLE, 1), generator=rng)
    is_candidate = torch.rand(PEOPLE, EVENTS, CANDIDATES, generator=rng) < 0.7
    is_candidate[..., 0] = True
    return QueryExamples(
        readings=functional.normalize(torch.randn(PEOPLE, EVENTS, 2, E, generator=rng), dim=-1),
        items=torch.randint(0, ITEMS, (PEOPLE, EVENTS, CANDIDATES), generator=rng),
        words=torch.rand(PEOPLE, EVENTS, CANDIDATES, generator=rng),
        is_candidate=is_candidate | ~is_event[..., None],
        is_event=is_event,
    )


def losses_of(model: QueryAdapter, rows: torch.Tensor) -> torch.Tensor:
    return person_losses(model, VECTORS, examples().of(rows), sharpness=SHARPNESS)


def loss_by_hand(model: QueryAdapter, person: int) -> float:
    """The definition in numpy, event by event."""
    of, learned = examples(), model.learned()
    weights = model.mix(torch.eye(2)).tolist()  # as in training: not brought back to the sum of before
    losses = []
    for event in np.flatnonzero(of.is_event[person]):
        asked = of.is_candidate[person, event].numpy()
        vectors = VECTORS[of.items[person, event]].numpy()[asked]
        cosine = np.max([vectors @ learned.apply(q) for q in of.readings[person, event].numpy()], axis=0)
        near = (cosine - cosine.min()) / np.ptp(cosine)
        logits = SHARPNESS * (weights[0] * of.words[person, event].numpy()[asked] + weights[1] * near)
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
    return float(np.mean(losses))


def test_an_untrained_adapter_changes_no_bit():
    learned = adapter().learned()
    query = np.random.default_rng(0).standard_normal(E).astype(np.float32)
    assert (learned.apply(query) == query).all()
    assert (learned.words, learned.meaning) == (0.25, 1.0)


def test_a_trained_one_turns_a_query_and_keeps_its_length():
    model = adapter(trained=True)
    query = 3 * np.random.default_rng(0).standard_normal(E).astype(np.float32)
    turned = model.learned().apply(query)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(query), rel=1e-6)
    expected = query + model.up.weight.detach().numpy() @ model.down.weight.detach().numpy() @ query
    assert turned @ expected == pytest.approx(np.linalg.norm(turned) * np.linalg.norm(expected), rel=1e-5)
    assert turned @ query < 0.9 * query @ query
    with torch.no_grad():
        assert model(torch.from_numpy(query)).numpy() == pytest.approx(turned, abs=1e-5)


def test_weights_are_never_negative_and_keep_their_sum():
    mix = Mix((0.25, 1.0))
    with torch.no_grad():
        mix.weight.copy_(torch.tensor([-50.0, 3.0]))
    words, meaning = mix.learned()
    assert 0 <= words < 1e-9
    assert words + meaning == pytest.approx(1.25)
    assert mix(torch.tensor([[1.0, 0.0]])) >= 0


@pytest.mark.parametrize("trained", [False, True])
def test_a_loss_is_that_of_the_definition(trained):
    model = adapter(trained=trained)
    found = losses_of(model, torch.arange(PEOPLE)).tolist()
    assert found == pytest.approx([loss_by_hand(model, person) for person in range(PEOPLE)], rel=1e-4)


def test_gradients_are_each_persons_own():
    model = adapter(trained=True)
    verify_person_gradients(model, lambda rows: losses_of(model, rows), people=PEOPLE)
    with PersonGradients(model) as engine:
        batch = engine.compute(lambda: losses_of(model, torch.arange(PEOPLE)), people=PEOPLE)
    for person in range(PEOPLE):
        alone = torch.autograd.grad(losses_of(model, torch.tensor([person])).sum(), list(model.parameters()))
        assert torch.cat([part.flatten() for part in alone]).tolist() == pytest.approx(batch[person].tolist(), abs=1e-5)


def test_a_query_that_no_encoder_reads_teaches_the_words_alone_and_spoils_nothing():
    of = examples()
    of.readings[2] = 0
    model = adapter()
    with PersonGradients(model) as engine:
        rows = engine.compute(lambda: person_losses(model, VECTORS, of, sharpness=SHARPNESS), people=PEOPLE)
    assert torch.isfinite(rows).all()
    turns = model.down.weight.numel() + model.up.weight.numel()
    assert not rows[2, :turns].any()
    assert rows[2, turns:].tolist() == pytest.approx([rows[2, turns].item(), 0.0])
    assert rows[2, turns] != 0


def test_a_rank_is_counted_from_the_best_and_loses_ties():
    model = adapter()
    of = QueryExamples(
        readings=torch.zeros(1, 2, 2, E),
        items=torch.zeros(1, 2, 3, dtype=torch.int64),
        words=torch.tensor([[[0.5, 0.5, 0.2], [1.0, 0.2, 0.9]]]),
        is_candidate=torch.ones(1, 2, 3, dtype=torch.bool),
        is_event=torch.ones(1, 2, dtype=torch.bool),
    )
    assert reciprocal_ranks(model, VECTORS, of).tolist() == [(1 / 2 + 1) / 2]


def test_what_is_no_candidate_is_not_counted():
    of, model = examples(), adapter(trained=True)
    before, ranks = losses_of(model, torch.arange(PEOPLE)), reciprocal_ranks(model, VECTORS, of)
    of.items[~of.is_candidate] = 7
    of.words[~of.is_candidate] = 1.0
    assert torch.equal(person_losses(model, VECTORS, of, sharpness=SHARPNESS), before)
    assert torch.equal(reciprocal_ranks(model, VECTORS, of), ranks)
    assert mixed_scores(model, VECTORS, of).shape == (PEOPLE, EVENTS, CANDIDATES)
