import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedrec.errors import PrivacyError
from fedrec.model import losses as losses_module
from fedrec.model.losses import person_losses
from fedrec.model.windows import Windows, padded
from fedrec.privacy.selfcheck import verify_person_gradients
from tests.tiny_ranker import HISTORY, ITEMS, adapted, histories, learned, scores

PEOPLE = histories(7, 2, 4, 6, 3, 5)
SOME = torch.tensor([0, 3, 9, 10, 17, 22, 39])  # negatives
NEGATIVES = pytest.mark.parametrize("negatives", [None, SOME], ids=["full", "sampled"])
MASK = pytest.mark.parametrize("mask_last", [True, False])


@pytest.fixture
def windows() -> Windows:
    return padded([PEOPLE.of(person)[-HISTORY - 1 :] for person in range(len(PEOPLE))])


def _losses(ranker, windows: Windows, **how) -> Tensor:
    with torch.no_grad():
        return person_losses(ranker, windows, **({"mask_last": True} | how))


@MASK
def test_loss_is_the_mean_cross_entropy_over_a_persons_events(windows, mask_last):
    ranker = learned()
    losses = _losses(ranker, windows, mask_last=mask_last)
    for person in range(len(PEOPLE)):
        sequence = torch.from_numpy(PEOPLE.of(person).astype(np.int64))
        logits = scores(ranker, sequence[None, :-1])[0]
        if mask_last:
            logits[torch.arange(len(logits)), sequence[:-1]] = -math.inf
        assert losses[person] == pytest.approx(float(functional.cross_entropy(logits, sequence[1:])), abs=1e-5)


@NEGATIVES
@MASK
def test_loss_of_a_person_is_the_same_alone_and_in_a_batch(windows, negatives, mask_last):
    ranker = learned()
    together = _losses(ranker, windows, mask_last=mask_last, negatives=negatives)
    assert together.shape == (len(PEOPLE),)
    for person in range(len(PEOPLE)):
        rows = windows.rows(slice(person, person + 1))
        alone = _losses(ranker, rows, mask_last=mask_last, negatives=negatives)
        assert float(alone) == pytest.approx(float(together[person]), abs=1e-5)


@NEGATIVES
def test_loss_of_a_person_never_depends_on_anothers_items(windows, negatives):
    ranker = learned()
    others = Windows((windows.items + 1) % ITEMS, windows.positions, (windows.targets + 1) % ITEMS, windows.is_target)
    mixed = Windows(*(torch.cat([getattr(windows, name)[:1], getattr(others, name)[1:]]) for name in vars(windows)))
    before, after = (_losses(ranker, batch, negatives=negatives) for batch in (windows, mixed))
    assert float(before[0]) == pytest.approx(float(after[0]), abs=1e-6)
    assert ((before - after)[1:].abs() > 1e-3).all()


@NEGATIVES
def test_gradient_of_a_person_reaches_their_own_items_only(windows, negatives):
    """By the item table: the text part and the inputs read a person's events, the loss their targets."""
    ranker = learned()
    ranker.vectors.requires_grad_()
    loss = person_losses(ranker, windows, mask_last=True, negatives=negatives)[1]
    (slope,) = torch.autograd.grad(loss, ranker.vectors)
    touched = set(slope.abs().sum(dim=1).nonzero()[:, 0].tolist())
    own = {int(item) for item in PEOPLE.of(1)}
    public = set(range(ITEMS)) if negatives is None else set(SOME.tolist())
    assert own <= touched <= own | public


@MASK
def test_all_items_as_negatives_give_the_full_softmax(windows, mask_last):
    ranker = learned()
    full = _losses(ranker, windows, mask_last=mask_last)
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(ITEMS))
    sampled = _losses(ranker, windows, mask_last=mask_last, negatives=shuffled)
    assert torch.allclose(full, sampled, atol=1e-5)


def test_each_negative_stands_for_its_share_of_the_catalogue(windows):
    """Two halves of the catalogue, each doubled, average to all of it: exp(loss) - 1 is the others' mass over one's."""
    ranker = learned()
    one = windows.rows(torch.tensor([1]))  # a single event, so that the mean over events is the event
    halves = torch.from_numpy(np.random.default_rng(1).permutation(ITEMS)).view(2, -1)
    full = _losses(ranker, one).exp() - 1
    sampled = torch.stack([_losses(ranker, one, negatives=half).exp() - 1 for half in halves]).mean(dim=0)
    assert torch.allclose(full, sampled, rtol=1e-4)


def test_target_among_the_negatives_counts_once(windows):
    ranker = learned()
    one = windows.rows(torch.tensor([1]))
    target, last = int(one.targets[0, 0]), int(one.items[0, 0])
    free = [item for item in range(ITEMS) if item not in (target, last)][:4]
    without, masked = (_losses(ranker, one, negatives=torch.tensor([*free, item])) for item in (target, last))
    twice = torch.tensor([*free, target, target])
    log_share = math.log(5 / 6)  # six negatives instead of five stand for the catalogue
    assert torch.allclose(without, masked, atol=1e-6)
    assert (_losses(ranker, one, negatives=twice).exp() - 1).log() == pytest.approx(
        float((without.exp() - 1).log()) + log_share, abs=1e-4
    )


@NEGATIVES
def test_mask_last_leaves_the_item_just_bought_out(windows, negatives):
    ranker = learned()
    one = windows.rows(torch.tensor([1]))
    last = int(one.items[0, 0])
    if negatives is not None:
        negatives = torch.unique(torch.cat([negatives, torch.tensor([last])]))
    masked, unmasked = (_losses(ranker, one, mask_last=mask, negatives=negatives) for mask in (True, False))
    with torch.no_grad():
        ranker.bias[last] += 5.0
    assert torch.equal(_losses(ranker, one, negatives=negatives), masked)
    assert float(_losses(ranker, one, mask_last=False, negatives=negatives)) > float(unmasked) + 0.1


def test_padded_events_have_no_loss_and_no_gradient():
    ranker = adapted()
    short, long = PEOPLE.of(1), PEOPLE.of(0)
    parameters = [p for p in ranker.parameters() if p.requires_grad]
    alone = person_losses(ranker, padded([short]), mask_last=True).sum()
    beside = person_losses(ranker, padded([short, long]), mask_last=True)[0]
    gradients = [torch.autograd.grad(loss, parameters) for loss in (alone, beside)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_negatives_from_the_batch_are_refused_on_the_real_ranker():
    ranker, people = adapted(), histories(5, 5, 5, 5)
    windows = padded([people.of(person) for person in range(4)])

    def proper(rows: Tensor) -> Tensor:
        return person_losses(ranker, windows.rows(rows), mask_last=True, negatives=SOME)

    def in_batch(rows: Tensor) -> Tensor:
        batch = windows.rows(rows)
        return person_losses(ranker, batch, mask_last=True, negatives=torch.unique(batch.targets))

    verify_person_gradients(ranker, proper, people=4)
    with pytest.raises(PrivacyError, match="a person's loss changes with the batch"):
        verify_person_gradients(ranker, in_batch, people=4)


@NEGATIVES
def test_the_catalogue_is_scored_after_real_events_alone(windows, negatives, monkeypatch):
    scored = []
    honest = losses_module.log_sum_exp

    def counted(wanted: Tensor, *table: Tensor, **how) -> Tensor:
        scored.append(len(wanted))
        return honest(wanted, *table, **how)

    monkeypatch.setattr(losses_module, "log_sum_exp", counted)
    _losses(learned(), windows, negatives=negatives)
    assert scored == [int(windows.is_target.sum())]
    assert scored[0] < windows.is_target.numel()
