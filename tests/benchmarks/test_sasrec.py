"""The reference must be a fair one: it learns what there is to learn and sees no future."""

import numpy as np
import pytest
import torch

from benchmarks.sasrec import Sasrec, SasrecSettings, best_epoch, fit_sasrec, sasrec_scorer
from fedrec.data.histories import Histories
from fedrec.data.splits import leave_last_out
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import evaluate

ITEMS = 30
SETTINGS = SasrecSettings(epochs=25, width=16, heads=2, length=6, batch=16, dropout=0.1, learning_rate=1e-2)


def walks(people: int) -> Histories:
    """Everyone goes round the catalogue seven items at a time, whence they like."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, ITEMS, people), rng.integers(3, 12, people)
    rows = zip(starts, lengths, strict=True)
    return Histories.from_lists([[(start + 7 * n) % ITEMS for n in range(length)] for start, length in rows])


def hits(settings: SasrecSettings) -> float:
    split = leave_last_out(walks(120))
    model = fit_sasrec(split.train, items=ITEMS, settings=settings, seed=0)
    scorer = sasrec_scorer(model, split.train)
    measured = evaluate(scorer, split, people=np.arange(120), items=ITEMS, masking=Masking.NONE)
    return measured.means()["mrr@10"]


@pytest.mark.parametrize("negatives", [ITEMS, 8])
def test_learns_a_rule_that_everybody_follows(negatives):
    assert hits(SasrecSettings(**(vars(SETTINGS) | {"negatives": negatives}))) > 0.9


def test_never_sees_the_future_nor_the_padding():
    torch.manual_seed(0)
    model = Sasrec(ITEMS, SETTINGS).eval()
    items = torch.randint(0, ITEMS, (1, 6))
    other = items.clone()
    other[0, 4:] = (items[0, 4:] + 1) % ITEMS
    with torch.no_grad():
        states, changed = model(items, torch.tensor([6])), model(other, torch.tensor([6]))
        alone, padded = model(items[:, :4], torch.tensor([4])), model(other, torch.tensor([4]))
    torch.testing.assert_close(states[:, :4], changed[:, :4])
    assert not torch.allclose(states[:, 4:], changed[:, 4:])
    torch.testing.assert_close(alone, padded[:, :4])


def test_depends_on_the_seed_alone():
    train = walks(30)
    settings = SasrecSettings(**(vars(SETTINGS) | {"epochs": 2, "negatives": 8}))
    scores = []
    for draws, seed in enumerate((0, 0, 1)):
        torch.manual_seed(draws)
        model = fit_sasrec(train, items=ITEMS, settings=settings, seed=seed)
        scores.append(sasrec_scorer(model, train)(np.arange(30)))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_the_best_epoch_is_found_on_training_events_alone_and_the_search_ends_when_it_gets_no_better():
    train = walks(60)
    how = {"items": ITEMS, "settings": SETTINGS, "masking": Masking.NONE, "seed": 0, "judges": 60}
    epoch, value = best_epoch(train, patience=25, **how)
    assert value > 0.9
    assert 1 < epoch <= SETTINGS.epochs
    assert best_epoch(train, patience=1, **how)[0] <= epoch
