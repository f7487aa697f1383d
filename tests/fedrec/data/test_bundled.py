"""Figures: 541,909 raw lines; 4,334 people and 3,659 products as published trials on this set count them."""

import pytest

from fedrec.data.bundled import BUNDLED_EVENTS, load_bundled
from fedrec.data.histories import build_histories
from fedrec.data.splits import next_basket, time_cut


@pytest.fixture(scope="module")
def bundled():
    return load_bundled()


def test_every_dropped_line_is_counted_under_one_rule(bundled):
    events, _, counts = bundled
    assert [(count.rule, count.dropped, count.kept) for count in counts] == [
        ("cancelled", 9_288, 532_621),
        ("missing_customer", 134_697, 397_924),
        ("not_a_product", 1_554, 396_370),
        ("non_positive_quantity", 0, 396_370),  # after the rules above: such lines had no customer or were cancelled
        ("non_positive_price", 33, 396_337),
        ("exact_duplicate", 5_187, 391_150),
    ]
    assert sum(count.dropped for count in counts) + events.height == 541_909


def test_people_and_items_are_those_of_the_published_trials(bundled):
    events, catalogue, _ = bundled
    assert events["user_id"].n_unique() == 4_334
    assert len(catalogue) == events["item_id"].n_unique() == 3_659
    assert events.columns == ["user_id", "item_id", "timestamp", "event", "quantity", "price", "Country"]


def test_lines_keep_the_order_of_the_file(bundled):
    events, _, _ = bundled
    assert events.row(0)[:3] == ("17850", "85123A", 1291191960)  # 2010-12-01 08:26, the first line of the file
    assert events["timestamp"].is_sorted()


def test_every_item_has_a_clean_title(bundled):
    _, catalogue, _ = bundled
    assert catalogue.titles[catalogue.index["85123A"]] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert all(title == title.strip() and len(title) >= 3 for title in catalogue.titles)
    assert list(catalogue.item_ids) == sorted(catalogue.item_ids)


def test_the_catalogue_never_changes_unnoticed(bundled):
    # Shipped item vectors are stored for exactly this catalogue.
    _, catalogue, _ = bundled
    assert catalogue.digest() == "cac599a59e35ebc32bb3f10e4131f343ba865f519fc5b968dc65b263329a917b"


def test_people_with_four_events_are_as_many_as_in_the_trial(bundled):
    events, catalogue, _ = bundled
    histories, people = build_histories(events, catalogue, min_events=4, merge_repeats=True, max_history=200)
    assert len(histories) == people.height == 4_142
    assert people["Country"].null_count() == 0


def test_the_next_basket_of_november_has_the_people_of_the_trial(bundled):
    events, catalogue, _ = bundled
    histories, _ = build_histories(events, catalogue, min_events=1, merge_repeats=False, max_history=None)
    targets = next_basket(histories, cut=time_cut(histories, date="2011-11-11")).targets
    assert int((targets.lengths > 0).sum()) == 1_334
    assert targets.lengths[targets.lengths > 0].mean() == pytest.approx(23, abs=0.5)


def test_the_attribution_travels_with_the_data():
    text = (BUNDLED_EVENTS.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in ("Chen", "10.24432/C5BW33", "CC BY 4.0", "creativecommons.org/licenses/by/4.0"):
        assert needed in text
