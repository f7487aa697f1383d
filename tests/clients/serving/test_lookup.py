"""Item ids as people type them."""

import polars as pl
import pytest

from clients.serving.lookup import positions_of, split_ids
from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError

CATALOGUE = Catalogue(
    ("85123A", "22423", "x,y", "71053"), ("WHITE HEART", "REGENCY CAKESTAND", "both", ""), pl.DataFrame()
)


def test_ids_are_found_in_the_order_given():
    assert positions_of(CATALOGUE, ["22423", "85123A", "22423"], flag="--history").tolist() == [1, 0, 1]
    assert positions_of(CATALOGUE, [], flag="--history").tolist() == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("85123B", r"--history: item '85123B' is not in the catalogue; did you mean 85123A \(WHITE HEART\)\?"),
        ("85123a", r"did you mean 85123A \(WHITE HEART\)\?"),
        ("regency cake stand", r"did you mean 22423 \(REGENCY CAKESTAND\)\?"),
        ("qqqqqqqq", r"--history: item 'qqqqqqqq' is not in the catalogue$"),
        ("Z" * 500, r"item 'Z{80}' is not in the catalogue$"),
    ],
)
def test_an_unknown_id_is_named_with_what_comes_nearest(wanted, expected):
    with pytest.raises(ConfigError, match=expected):
        positions_of(CATALOGUE, ["22423", wanted], flag="--history")


def test_commas_separate_ids_unless_they_are_part_of_one():
    assert split_ids(CATALOGUE, ["85123A, 22423,", "x,y", "71053"]) == ["85123A", "22423", "x,y", "71053"]
    assert split_ids(CATALOGUE, []) == []
