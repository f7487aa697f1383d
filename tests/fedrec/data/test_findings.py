import polars as pl
import pytest

from fedrec.data.catalogue import Catalogue
from fedrec.data.findings import (
    Thresholds,
    items_without_catalogue,
    missing_titles,
    near_duplicates,
    sorted_by_item,
    suspicious_people,
    suspicious_prices,
    time_disorder,
)

CLOCK = 1_300_000_000
LIMITS = Thresholds()


def events(rows):
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def ordinary(people=20, length=6, *, gap=3600):
    """People who visit every hour and take items in no order."""
    picks = [3, 0, 5, 1, 4, 2]
    return [(f"u{p}", f"i{picks[(n + p) % 6]}", CLOCK + p * 7 + n * gap) for p in range(people) for n in range(length)]


def test_ordinary_people_are_not_suspected():
    finding = suspicious_people(events(ordinary()), LIMITS)
    assert (finding.severity, finding.count) == ("ok", 0)


@pytest.mark.parametrize(
    ("robot", "reason"),
    [
        ([("bot", "i1", CLOCK + n * 60) for n in range(1_001)], "busy day, heavy"),
        ([("bot", "i1", CLOCK + n * 100_000) for n in range(1_001)], "heavy"),
        ([("bot", "i1", CLOCK + n) for n in range(30)], "burst"),
    ],
)
def test_a_robot_is_found_and_named_with_the_reason(robot, reason):
    finding = suspicious_people(events([*ordinary(), *robot]), LIMITS)
    assert finding.examples == [{"user_id": "bot", "events": len(robot), "reason": reason}]
    assert finding.severity == "look"
    assert finding.quantity == "1 person"


def test_a_large_basket_at_one_moment_is_no_burst():
    basket = [("shop", f"i{n}", CLOCK) for n in range(900)]
    assert suspicious_people(events([*ordinary(), *basket]), LIMITS).count == 0


def test_bursts_and_days_mean_nothing_for_positions():
    assert suspicious_people(events([("u", "i1", n) for n in range(900)]), LIMITS).count == 0


def test_a_slipped_decimal_point_and_a_free_item_stand_out():
    frame = pl.DataFrame({"item_id": ["a"] * 6 + ["b"] * 6, "price": [2.0] * 5 + [20.0] + [3.0, 0, 3, 3, 3, None]})
    finding = suspicious_prices(frame, LIMITS)
    assert finding.count == 2
    assert finding.examples == [{"item_id": "a", "price": 20.0, "item_median": 2.0, "times_off": 10.0}]
    assert "1 are zero" in finding.summary


def test_an_item_priced_out_of_all_proportion_stands_out():
    frame = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "price": [2.0, 3.0, 2.5, 9999.0]})
    finding = suspicious_prices(frame, LIMITS)
    assert "1 items cost 100 times more or less" in finding.summary
    assert finding.severity == "look"


def test_no_prices_is_good_to_know():
    finding = suspicious_prices(events(ordinary()), LIMITS)
    assert (finding.severity, finding.summary) == ("note", "The events carry no prices.")


def test_rows_that_go_back_in_time_are_counted_per_person():
    frame = events([("u", "a", 5), ("v", "a", 1), ("u", "b", 3), ("v", "b", 2), ("u", "c", 4), ("u", "d", 4)])
    finding = time_disorder(frame, LIMITS)
    assert (finding.count, finding.severity) == (1, "note")
    assert finding.examples == [{"user_id": "u", "item_id": "b", "timestamp": 3, "seconds_back": -2}]
    assert time_disorder(frame.sort("user_id", "timestamp"), LIMITS).severity == "ok"


def test_milliseconds_are_a_problem():
    finding = time_disorder(events([("u", "a", CLOCK * 1000)]), LIMITS)
    assert finding.severity == "problem"
    assert "are they milliseconds? Divide them by 1,000" in finding.summary


@pytest.mark.parametrize("name", ["{:03d}", "{}"])
def test_histories_sorted_by_item_id_are_a_problem_whether_ids_are_words_or_numbers(name):
    prefix = "" if name == "{}" else "i"
    rows = [(f"u{p}", prefix + name.format(n * 3), n) for p in range(20) for n in range(8)]
    finding = sorted_by_item(events(rows), LIMITS)
    assert (finding.severity, finding.count) == ("problem", 20)
    assert sorted_by_item(events(ordinary()), LIMITS).severity == "ok"


def test_the_sixth_of_people_in_item_order_is_worth_a_look():
    rows = ordinary() + [(f"s{p}", f"i{n}", CLOCK + n) for p in range(4) for n in range(6)]
    finding = sorted_by_item(events(rows), LIMITS)
    assert (finding.severity, finding.count) == ("look", 4)


def test_baskets_listed_by_item_id_are_worth_a_look():
    rows = [
        (f"u{p}", f"i{(n + p) % 4 + 4 * (t % 2)}", CLOCK + t) for p in range(20) for t in (3, 1, 2) for n in range(4)
    ]
    shuffled = events(rows)
    in_order = shuffled.sort("user_id", "timestamp", "item_id")
    assert sorted_by_item(in_order, LIMITS).severity == "look"
    assert "100% rise with the id" in sorted_by_item(in_order, LIMITS).summary


def test_few_people_prove_nothing():
    assert sorted_by_item(events([("u", f"i{n}", n) for n in range(9)]), LIMITS).severity == "ok"


def catalogue(*titles):
    return Catalogue(tuple(f"i{n}" for n in range(len(titles))), titles, pl.DataFrame())


def test_titles_that_are_blank_or_hold_html_are_found():
    finding = missing_titles(catalogue("Mug", "", "??", "<b>Pot</b>", "3 < 4 > 2", "Ξύλο"), LIMITS)
    assert [example["item_id"] for example in finding.examples] == ["i1", "i2", "i3"]
    assert finding.summary == "2 of 6 items have no title; 1 titles hold HTML."


def test_near_duplicates_show_both_titles():
    finding = near_duplicates(catalogue("Red mug", "Tea", "mug RED"), LIMITS)
    assert finding.examples == [
        {"item_id": "i2", "title": "mug RED", "like": "i0", "its title": "Red mug", "cosine": 1.0}
    ]
    limits = Thresholds(title_items=1)
    assert (
        "More than 1 titles: only the same words were looked for"
        in near_duplicates(catalogue("a", "b"), limits).summary
    )


def test_without_a_catalogue_the_titles_are_a_problem_and_the_rest_says_so():
    assert missing_titles(None, LIMITS).severity == "problem"
    assert near_duplicates(None, LIMITS).summary == "No titles are known."
    finding = items_without_catalogue({}, catalogue=None, events=events(ordinary()), limits=LIMITS)
    assert finding.summary == "No catalogue was given."


def test_unknown_and_untouched_items_are_told_apart():
    known = catalogue("A", "B", "C")
    frame = events([("u", "i0", 1)])
    finding = items_without_catalogue({"x": 3}, catalogue=known, events=frame, limits=LIMITS)
    assert finding.examples == [{"item_id": "x", "rows": 3}]
    assert finding.severity == "look"
    assert "1 items in 3 event rows have no catalogue row" in finding.summary
    assert "2 catalogue items have no event" in finding.summary
    assert items_without_catalogue({}, catalogue=known, events=frame, limits=LIMITS).severity == "note"
