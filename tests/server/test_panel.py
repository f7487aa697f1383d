import math

import numpy as np
import pytest
import torch

from fedrec.agreement import agreed_ranker, read_agreement
from fedrec.data.histories import Histories
from fedrec.errors import DataError, RunError
from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.ranker import Ranker
from server.panel import LATEST_EVENTS, load_judge, panel_measures
from tests.tiny_ranker import HISTORY, ITEMS, adapted, histories, nudge, run_folder

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
            own_losses.append(math.log(np.exp(logits).sum()) - score)
            own_gains.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
        if own_losses:
            losses.append(np.mean(own_losses))
            gains.append(np.mean(own_gains))
    return {"panel_loss": float(np.mean(losses)), "panel_ndcg@10": float(np.mean(gains))}


@pytest.mark.parametrize("masking", Masking)
def test_measures_by_hand_every_late_event_once(masking):
    ranker = adapted()
    measured = panel_measures(ranker, DIFFERENT, masking=masking)
    assert measured == pytest.approx(_by_hand(ranker, DIFFERENT, masking=masking), abs=1e-5)
    assert 0 < measured["panel_ndcg@10"] < 1


def test_items_taken_before_the_judged_events_are_masked_with_the_history(monkeypatch):
    monkeypatch.setattr("server.panel.LATEST_EVENTS", 5)
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


@pytest.fixture
def run(tmp_path):
    run_folder(tmp_path / "run", histories(4, 5), [np.array([0]), np.array([1])])
    return tmp_path / "run"


def test_judge_measures_the_adapter_it_is_given(run):
    JUDGES.save(run / "base" / PANEL)
    agreed = read_agreement(run)
    judge, ranker = load_judge(run, agreed, masking=Masking.LAST), agreed_ranker(agreed, run)
    for size in (0.0, 0.1, 0.3):
        nudge(ranker, size=size)
        expected = panel_measures(ranker, JUDGES, masking=Masking.LAST)
        assert judge(adapter_arrays(ranker)) == expected
        assert judge(adapter_arrays(ranker)) == expected  # and keeps nothing of the last one
    assert expected["panel_loss"] != judge(adapter_arrays(agreed_ranker(agreed, run)))["panel_loss"]


def test_run_without_a_panel_has_no_judge(run):
    assert load_judge(run, read_agreement(run), masking=Masking.LAST) is None


def test_damaged_panel_or_base_is_refused(run):
    agreed = read_agreement(run)
    (run / "base" / PANEL).write_bytes(b"not a panel")
    with pytest.raises(DataError, match=r"panel.safetensors: cannot be read as histories"):
        load_judge(run, agreed, masking=Masking.LAST)
    (run / "base" / "ranker.json").write_text("{}")
    with pytest.raises(RunError, match="not a usable base"):
        load_judge(run, agreed, masking=Masking.LAST)


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
