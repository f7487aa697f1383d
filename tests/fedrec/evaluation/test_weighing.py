import numpy as np
import pytest
import torch

from fedrec.data.histories import Histories
from fedrec.evaluation import weighing
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.weighing import PartWeights, apply_part_weights, fit_part_weights
from fedrec.model.pairs import PairPart
from tests.tiny_pairs import some_pairs
from tests.tiny_ranker import ITEMS, histories, learned

JUDGES = histories(9, 20, 7, 13, 2, 11, seed=5)


def part() -> PairPart:
    return some_pairs(weight=1.0).part()


def fitted(panel: Histories = JUDGES, *, masking: Masking = Masking.LAST, **pairs: float) -> PartWeights:
    return fit_part_weights(learned(), panel, part(), masking=masking, seed=0, **pairs)


def loss(weights: PartWeights, panel: Histories, *, masking: Masking = Masking.LAST) -> float:
    """Mean cross-entropy of every event, one history at a time."""
    losses, pairs = [], part()
    for person in range(len(panel)):
        sequence = panel.of(person)
        for place in range(1, len(sequence)):
            ranker, past = learned(), sequence[:place]
            ranker.eval()
            items = torch.from_numpy(past[-ranker.spec.history :].astype(np.int64))[None]
            with torch.no_grad():
                found = ranker.parts(items, torch.tensor([[items.shape[1] - 1]]))
            total = weights.pairs * torch.from_numpy(pairs.scores(past))
            for name, values in found.items():
                total = total + getattr(weights, name) * values[0, 0].detach()
            hidden = [item for item in masking.hidden(past).tolist() if item != sequence[place]]
            total[hidden] = float("-inf")
            losses.append(float(torch.logsumexp(total, 0) - total[sequence[place]]))
    return float(np.mean(losses))


@pytest.mark.parametrize("masking", list(Masking))
def test_no_other_weights_predict_the_panel_better(masking):
    best = fitted(masking=masking)
    least = loss(best, JUDGES, masking=masking)
    for name, floor in zip(weighing.PARTS, weighing.LEAST, strict=True):
        for step in (-0.05, 0.05):
            moved = PartWeights(**vars(best) | {name: max(floor, getattr(best, name) + step)})
            assert loss(moved, JUDGES, masking=masking) >= least - 1e-6


def test_a_part_that_misleads_gets_next_to_nothing_and_one_that_helps_does_not():
    walks = [[(start + step) % ITEMS for step in range(10)] for start in range(0, ITEMS, 2)]
    assert fitted(Histories.from_lists(walks)).sequence == pytest.approx(0.1)
    told = some_pairs(weight=1.0)
    followers = [[int(a), int(b)] for a, b in zip(told.first, told.then, strict=True)]
    assert fitted(Histories.from_lists(followers)).pairs > 0.1


def test_weights_are_folded_into_the_ranker():
    ranker, plain = learned(), learned()
    apply_part_weights(ranker, PartWeights(sequence=0.5, text=2.0, bias=3.0, pairs=9.0))
    items, at = torch.tensor([[3, 1, 4]]), torch.tensor([[2]])
    with torch.no_grad():
        expected = plain.parts(items, at)
        assert torch.allclose(
            ranker(items, at), 0.5 * expected["sequence"] + 2.0 * expected["text"] + 3.0 * expected["bias"], atol=1e-5
        )


def test_memory_is_bounded_by_drawing_events(monkeypatch):
    whole = fitted()
    monkeypatch.setattr(weighing, "MOST_CELLS", 4 * ITEMS * 5)
    drawn = fitted()
    assert drawn != whole
    assert drawn == fitted(), "the draw follows the seed"


def test_a_given_weight_of_pairs_stands_and_the_others_are_found_beside_it():
    free, given = fitted(), fitted(pairs_weight=0.25)
    assert given.pairs == 0.25 != free.pairs
    least = loss(given, JUDGES)
    for name in weighing.PARTS[:-1]:
        for step in (-0.05, 0.05):
            moved = PartWeights(**vars(given) | {name: max(0.1, getattr(given, name) + step)})
            assert loss(moved, JUDGES) >= least - 1e-6


def test_what_is_not_offered_takes_no_part():
    assert fitted(masking=Masking.HISTORY) != fitted(masking=Masking.NONE)


def test_only_late_events_are_predicted(monkeypatch):
    everything = fitted()
    monkeypatch.setattr(weighing, "LATEST_EVENTS", 4)
    assert fitted() != everything
    late = Histories.from_lists([JUDGES.of(person)[-3:].tolist() for person in range(len(JUDGES))])
    drawn, targets = weighing._late_events(JUDGES, most=100, seed=0)
    assert len(drawn) == len(targets) == sum(min(3, length - 1) for length in JUDGES.lengths)
    assert set(targets) <= set(late.items)
