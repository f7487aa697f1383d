import numpy as np
import pytest

from fedrec.data.histories import Histories
from fedrec.model.transitions import Transitions, count_transitions

PEOPLE = Histories.from_lists([[0, 1, 2], [0, 2], [3]])


def _dense(transitions: Transitions) -> np.ndarray:
    return np.stack([transitions.after(np.array([item]), decay=1.0) for item in range(transitions.items)])


def _counted(histories: Histories, **how) -> np.ndarray:
    return _dense(count_transitions(histories, **({"items": 4, "gap_weights": [1.0, 0.5], "shrinkage": 0.0} | how)))


def test_transitions_by_hand():
    """Item 0: once before 1 (weight 1), once two before 2 (1/2), once before 2 (1): 1 and 3/2 of 5/2."""
    expected = np.array([[0, 0.4, 0.6, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert _counted(PEOPLE) == pytest.approx(expected)


def test_shrinkage_by_hand():
    """A half more in each row's total: 1/3 and 1.5/3; 1/1.5."""
    counted = _counted(PEOPLE, shrinkage=0.5)
    assert counted[0] == pytest.approx([0, 1 / 3, 1 / 2, 0])
    assert counted[1] == pytest.approx([0, 0, 2 / 3, 0])


def test_nothing_follows_from_one_person_to_the_next():
    """Longer gaps than any history would reach into the next person's events."""
    counted = _counted(PEOPLE, gap_weights=[1.0] * 9)
    assert not counted[2].any()
    assert not counted[3].any()
    assert counted[:, 3].sum() == 0


def test_every_number_equals_the_plain_loop():
    rng = np.random.default_rng(0)
    people = Histories.from_lists([rng.integers(0, 6, n).tolist() for n in (0, 1, 2, 5, 9, 14)])
    gap_weights, counts = [1.0, 0.5, 0.25], np.zeros((6, 6))
    for person in range(len(people)):
        sequence = people.of(person)
        for gap, weight in enumerate(gap_weights, start=1):
            for first, second in zip(sequence, sequence[gap:], strict=False):
                counts[first, second] += weight
    expected = counts / (counts.sum(axis=1, keepdims=True) + 0.2)
    assert _counted(people, items=6, gap_weights=gap_weights, shrinkage=0.2) == pytest.approx(expected, abs=1e-6)


def test_rows_are_probabilities_stored_sparsely_and_in_order():
    table = count_transitions(PEOPLE, items=4, gap_weights=[1.0, 0.5], shrinkage=0.1)
    assert table.offsets.tolist() == [0, 2, 3, 3, 3]
    assert table.columns.tolist() == [1, 2, 2]
    assert table.values.dtype == np.float32
    assert ((table.values > 0) & (table.values < 1)).all()
    assert (_dense(table).sum(axis=1) < 1).all()


def test_recent_items_are_mixed_by_age():
    """Decay 1/2: the last item's row counts 2/3, the one before it 1/3."""
    table = count_transitions(PEOPLE, items=4, gap_weights=[1.0, 0.5], shrinkage=0.0)
    assert table.after(np.array([0, 1]), decay=0.5) == pytest.approx([0, 0.4 / 3, 0.6 / 3 + 2 / 3, 0])
    assert table.after(np.array([1, 0]), decay=0.5) == pytest.approx([0, 0.8 / 3, 1.2 / 3 + 1 / 3, 0])


def test_nothing_seen_gives_zeros():
    table = count_transitions(Histories.from_lists([]), items=4, gap_weights=[1.0, 0.5], shrinkage=0.0)
    assert table.items == 4
    assert not table.after(np.array([0, 3]), decay=0.5).any()
    assert table.after(np.array([], dtype=np.int64), decay=0.5).tolist() == [0, 0, 0, 0]
