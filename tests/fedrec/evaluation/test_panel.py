import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.panel import LATEST_EVENTS, TEMPERATURES, fit_weight, panel_measures, panel_people
from fedrec.model.adapters import adapter_arrays
from fedrec.model.pairs import PairPart
from fedrec.model.ranker import Ranker
from fedrec.model.transitions import count_transitions
from tests.tiny_ranker import HISTORY, ITEMS, adapted, histories, untrained, vectors

JUDGES = histories(3, 9, 1, 20, 7, 2, 13)
_SHUFFLED = np.random.default_rng(0)
DIFFERENT = Histories.from_lists([_SHUFFLED.permutation(ITEMS)[:length].tolist() for length in JUDGES.lengths])


def _by_hand(ranker: Ranker, panel: Histories, *, masking: Masking, latest: int = LATEST_EVENTS) -> dict[str, float]:
    """One event at a time: each once, after the events that its window holds before it."""
    losses, gains = [], []
    for person in range(len(panel)):
        sequence = panel.of(person)[-latest:].astype(np.int64)
        own_losses, own_gains = [], []
        for target in range(1, len(sequence)):
            windows_later = (len(sequence) - 1 - target) // HISTORY
            first = max(0, len(sequence) - windows_later * HISTORY - HISTORY - 1)
            before = torch.from_numpy(sequence[first:target])[None]
            with torch.no_grad():
                logits = ranker(before, torch.tensor([[before.shape[1] - 1]]))[0, 0].double().numpy()
            score = logits[sequence[target]]
            # What was taken before the judged events begin is hidden as well: a person's whole past counts.
            logits = np.delete(logits, masking.hidden(panel.of(person)[: target - len(sequence)]))
            rank = 1 + int((logits > score).sum())
            own_losses.append([math.log(np.exp(logits / by).sum()) - score / by for by in TEMPERATURES])
            own_gains.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
        if own_losses:
            losses.append(np.mean(own_losses, axis=0))
            gains.append(np.mean(own_gains))
    return {"panel_loss": float(np.mean(losses, axis=0).min()), "panel_ndcg@10": float(np.mean(gains))}


@pytest.mark.parametrize("masking", Masking)
def test_measures_by_hand_every_late_event_once(masking):
    ranker = adapted()
    measured = panel_measures(ranker, DIFFERENT, masking=masking)
    assert measured == pytest.approx(_by_hand(ranker, DIFFERENT, masking=masking), abs=1e-5)
    assert 0 < measured["panel_ndcg@10"] < 1


def test_items_taken_before_the_judged_events_are_masked_with_the_history(monkeypatch):
    monkeypatch.setattr("fedrec.evaluation.panel.LATEST_EVENTS", 5)
    ranker, measured = adapted(), {}
    for masking in Masking:
        measured[masking] = panel_measures(ranker, DIFFERENT, masking=masking)
        assert measured[masking] == pytest.approx(_by_hand(ranker, DIFFERENT, masking=masking, latest=5), abs=1e-5)
    losses = [measured[masking]["panel_loss"] for masking in (Masking.NONE, Masking.LAST, Masking.HISTORY)]
    assert losses == sorted(losses, reverse=True)


def test_events_long_ago_do_not_count():
    ranker, recent = adapted(), histories(LATEST_EVENTS)
    older = Histories.from_lists([[5, 9, *recent.of(0).tolist()]])
    assert panel_measures(ranker, older, masking=Masking.NONE) == panel_measures(ranker, recent, masking=Masking.NONE)


def test_a_person_counts_once_however_long_their_history():
    ranker = adapted()
    parts = [panel_measures(ranker, JUDGES.subset(np.array([i])), masking=Masking.LAST)["panel_loss"] for i in (3, 5)]
    both = panel_measures(ranker, JUDGES.subset(np.array([3, 5])), masking=Masking.LAST)["panel_loss"]
    assert both == pytest.approx(np.mean(parts), rel=1e-6)


def test_measuring_is_repeatable_and_leaves_the_ranker_ready_to_train():
    ranker = adapted()
    before = adapter_arrays(ranker)
    assert panel_measures(ranker, JUDGES, masking=Masking.LAST) == panel_measures(ranker, JUDGES, masking=Masking.LAST)
    assert ranker.training
    assert all(np.array_equal(values, before[name]) for name, values in adapter_arrays(ranker).items())
    assert all(p.grad is None for p in ranker.parameters())


def test_panel_covers_the_whole_catalogue():
    """An item that nobody of the panel took can still push theirs down."""
    ranker = adapted()
    seen = set(JUDGES.items.tolist())
    unseen = next(item for item in range(ITEMS) if item not in seen)
    before = panel_measures(ranker, JUDGES, masking=Masking.LAST)
    with torch.no_grad():
        ranker.bias[unseen] += 50
    after = panel_measures(ranker, JUDGES, masking=Masking.LAST)
    assert after["panel_loss"] > before["panel_loss"] + 10
    assert after["panel_ndcg@10"] < before["panel_ndcg@10"]


def part_of(people: Histories, *, weight: float) -> PairPart:
    table = count_transitions(people, items=ITEMS, gap_weights=[1.0], shrinkage=0.2)
    return PairPart(table, weight=weight, sharpness=30.0, recent=2, decay=0.5)


def test_parts_are_judged_with_the_ranker():
    """Every window is scored by the plain model and the part of its one history."""
    ranker, part = adapted(), part_of(histories(30, 30, seed=8), weight=1.5)

    class Both(torch.nn.Module):
        spec = ranker.spec

        def forward(self, items, positions):
            return ranker(items, positions) + torch.from_numpy(part.scores(items[0].numpy()))

    measured = panel_measures(ranker, JUDGES, masking=Masking.LAST, parts=[part])
    ranker.eval()
    assert measured == pytest.approx(_by_hand(Both(), JUDGES, masking=Masking.LAST), abs=1e-5)


def test_weight_is_the_one_that_predicts_the_panel_best():
    walkers = Histories.from_lists([[(start + step) % ITEMS for step in range(12)] for start in range(0, ITEMS, 3)])
    backwards = Histories.from_lists([walkers.of(person)[::-1].tolist() for person in range(len(walkers))])
    weights = (0.0, 0.5, 1.0, 2.0, 3.0)

    def fitted(panel, part, **others):
        return fit_weight(untrained(), panel, part, weights=weights, masking=Masking.LAST, **others)

    assert fitted(walkers, part_of(walkers, weight=0.0)) == 3.0
    assert fitted(walkers, part_of(backwards, weight=3.0)) == 0.0, "a part that misleads is turned off"


def test_weight_is_the_smallest_that_cannot_be_told_from_the_best():
    """Within one standard error of the paired difference, reckoned here from every judge's own figure."""
    weights, chosen = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), []
    rng = np.random.default_rng(1)
    steps = [np.where(rng.random(14) < 0.2, 1, rng.integers(1, ITEMS, 14)) for _ in range(60)]
    walkers = Histories.from_lists([(np.cumsum(row) % ITEMS).tolist() for row in steps])
    for size in (5, 12, 40):
        part, panel = part_of(walkers.subset(np.arange(15)), weight=1.0), walkers.subset(np.arange(20, 20 + size))
        figures = np.array(
            [
                panel_people(untrained(), panel, masking=Masking.LAST, parts=[replace(part, weight=weight)])[1]
                for weight in weights
            ]
        )
        best = figures.mean(axis=1).argmax()
        lost = figures[best] - figures
        allowed = lost.std(axis=1, ddof=1) / np.sqrt(size)
        expected = weights[int(np.flatnonzero(lost.mean(axis=1) <= allowed)[0])]
        found = fit_weight(untrained(), panel, part, weights=weights, masking=Masking.LAST)
        assert found == expected
        chosen.append((found, weights[best]))
    assert any(0 < found < best for found, best in chosen), chosen


def test_weight_is_fitted_beside_the_parts_that_are_there():
    """What another part says already need not be said again."""
    rng = np.random.default_rng(0)
    steps = [np.where(rng.random(14) < 0.4, 1, rng.integers(1, ITEMS, 14)) for _ in range(60)]
    walkers = Histories.from_lists([(np.cumsum(row) % ITEMS).tolist() for row in steps])
    part, panel = part_of(walkers.subset(np.arange(40)), weight=1.0), walkers.subset(np.arange(40, 60))

    def fitted(*others):
        weights = tuple(map(float, range(9)))
        return fit_weight(untrained(), panel, part, weights=weights, masking=Masking.LAST, others=others)

    alone = fitted()
    assert alone > 0.0
    assert fitted(replace(part, weight=1e3)) < alone


def test_loss_does_not_depend_on_how_sure_the_ranker_is_within_reason():
    """Scores a quarter larger are divided by the next temperature; many times larger are too sure."""
    rng, alike = np.random.default_rng(0), vectors() @ vectors().T - 2 * np.eye(ITEMS)
    rows = []
    for _ in range(30):
        row = [int(rng.integers(ITEMS))]
        while len(row) < 12:  # half the time what reads most like the last item
            row.append(int(alike[row[-1]].argmax() if rng.random() < 0.5 else rng.integers(ITEMS)))
        rows.append(row)
    panel, ranker, losses = Histories.from_lists(rows), untrained(), []
    for scale in (2.0, 2.5, 2.5 * 1.25):
        with torch.no_grad():
            ranker.text_gain.weight.fill_(scale)
        losses.append(panel_measures(ranker, panel, masking=Masking.NONE))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)
    with torch.no_grad():
        ranker.text_gain.weight.fill_(20.0)
    assert panel_measures(ranker, panel, masking=Masking.NONE)["panel_loss"] > losses[0]["panel_loss"] + 0.1
