import numpy as np
import pytest

from fedrec.config import DataConfig
from fedrec.data.histories import Histories
from fedrec.errors import DataError
from fedrec.evaluation.masking import Masking, masking_of, masking_of_targets, refuse_repeats

PAST = np.array([4, 2, 7])


def test_hidden_items_by_hand():
    assert Masking.NONE.hidden(PAST).tolist() == []
    assert Masking.LAST.hidden(PAST).tolist() == [7]
    assert Masking.HISTORY.hidden(PAST).tolist() == [4, 2, 7]


@pytest.mark.parametrize("masking", Masking)
def test_without_a_past_nothing_is_hidden(masking):
    assert masking.hidden(PAST[:0]).tolist() == []


@pytest.mark.parametrize(
    ("settings", "rounds", "targets"),
    [
        ({}, Masking.LAST, Masking.LAST),
        ({"merge_repeats": False}, Masking.NONE, Masking.NONE),
        ({"split": "next-basket"}, Masking.LAST, Masking.NONE),
        ({"split": "next-basket", "merge_repeats": False}, Masking.NONE, Masking.NONE),
        ({"mask_history": True}, Masking.HISTORY, Masking.HISTORY),
        ({"mask_history": True, "merge_repeats": False}, Masking.HISTORY, Masking.HISTORY),
        ({"mask_history": True, "split": "next-basket"}, Masking.HISTORY, Masking.HISTORY),
    ],
)
def test_settings_mean_one_masking_for_rounds_and_one_for_targets(settings, rounds, targets):
    data = DataConfig(**settings)
    assert (masking_of(data), masking_of_targets(data)) == (rounds, targets)


def test_history_is_not_masked_where_something_is_taken_twice():
    refuse_repeats(Histories.from_lists([[1, 2], [2, 1], []]))
    with pytest.raises(
        DataError,
        match=r"data\.mask_history: 2 of 7 events take an item that the person took before, .* to false",
    ):
        refuse_repeats(Histories.from_lists([[1, 2, 1, 1], [2, 1], [3]]))
