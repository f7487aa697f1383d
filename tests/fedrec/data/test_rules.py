import polars as pl

from fedrec.data.rules import Rule, RuleCount, apply_rules, drop_duplicates, first_true

ODD = Rule("odd", "odd numbers", pl.col("n") % 2 == 1, "n", "an even number")
LARGE = Rule("large", "above five", pl.col("n") > 5, "n", "at most five")
ABSENT = Rule("absent", "of another table", pl.col("other") > 5, "other", "anything")


def test_a_row_counts_under_the_first_rule_it_breaks():
    kept, counts = apply_rules(pl.DataFrame({"n": [1, 2, 7, 8, 4]}), [ODD, ABSENT, LARGE])
    assert kept["n"].to_list() == [2, 4]
    assert counts == [RuleCount("odd", "odd numbers", 2, 3), RuleCount("large", "above five", 1, 2)]


def test_of_equal_rows_the_first_stays_in_its_place():
    kept, count = drop_duplicates(pl.DataFrame({"a": [1, 2, 1, 3], "b": [1, 2, 1, 1]}), description="again")
    assert kept.rows() == [(1, 1), (2, 2), (3, 1)]
    assert count == RuleCount("exact_duplicate", "again", 1, 3)


def test_the_first_true_is_a_row_number_or_nothing():
    assert first_true(pl.Series([False, True, True])) == 1
    assert first_true(pl.Series([False, False])) is None
