"""The verdict never says more than the figures do, and no epsilon is printed smaller than it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec.report import words
from fedrec.report.inputs import Comparison, check_inputs
from tests.fedrec.report.conftest import with_news

COUNTED = {"clients": 50, "numbers": 39000, "candidates": 39000, "pairs": 4335, "noise_std": 0.61}


def verdict_of(run):
    summary, _, context = check_inputs(*run)
    return words.verdict(summary, context)


def compared(difference, error):
    return Comparison(difference=difference, standard_error=error, people=100)


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (0.0021, 0.001, "better"),
        (0.0020, 0.001, "unclear"),
        (0.0, 0.001, "unclear"),
        (-0.0020, 0.001, "unclear"),
        (-0.0021, 0.001, "worse"),
        (0.5, None, "unclear"),
        (0.0, 0.0, "unclear"),
    ],
)
def test_better_and_worse_need_more_than_two_standard_errors(difference, error, expected):
    assert words.outcome(compared(difference, error)) == expected


@pytest.mark.parametrize(
    ("difference", "headline"),
    [(0.0045, "Federation helped"), (-0.0045, "Federation hurt"), (0.0001, "No measurable difference")],
)
def test_the_headline_follows_the_outcome(run, difference, headline):
    run[2]["federated_vs_local_only"]["difference"] = difference
    assert verdict_of(run).headline.startswith(headline)


def test_the_first_sentence_gives_both_figures_and_two_standard_errors(run):
    assert verdict_of(run).sentences[0] == (
        "NDCG@10 is 0.1487 federated and 0.1442 alone, +3.1%; "
        "the paired difference over 3,728 people is +0.0045 ± 0.0018 (two standard errors)."
    )


@pytest.mark.parametrize(
    ("difference", "ending"),
    [(0.0035, "learned something"), (-0.0035, "did harm"), (0.0, "within the noise of the measurement")],
)
def test_the_second_sentence_judges_what_the_federation_itself_learned(run, difference, ending):
    run[2]["shared_vs_base"]["difference"] = difference
    assert ending in verdict_of(run).sentences[1]


def test_publishing_the_base_unchanged_is_said(run):
    run[2]["published_round"] = 0
    assert "No round improved on the public base" in verdict_of(run).sentences[1]


@pytest.mark.parametrize(
    ("weight", "use"), [(1.5, "enter the score with weight 1.5."), (0.0, "do not help on the panel: left out.")]
)
def test_what_was_counted_is_said_and_what_became_of_it(run, weight, use):
    assert not any("counted" in sentence for sentence in verdict_of(run).sentences)
    run[2]["counted"] = COUNTED | {"weight": weight}
    said = f"50 clients counted pairs once; 4,335 of 39,000 public pairs stand out from noise of 0.61 and {use}"
    assert said in verdict_of(run).sentences


def test_a_base_with_counts_beside_it_is_not_the_base_unchanged(run):
    run[2]["published_round"] = 0
    run[2]["counted"] = COUNTED | {"weight": 1.5}
    assert verdict_of(run).sentences[1].startswith("With every merchant's local part off, the federated ranker")


def test_the_cost_of_noise_is_said_only_when_it_was_measured(run):
    assert not any("Without the noise" in sentence for sentence in verdict_of(run).sentences)
    run[0]["metrics"]["federated_no_noise"] = dict(run[0]["metrics"]["base"], **{"ndcg@10": 0.1523})
    assert any("it would have been 0.1523: privacy changed it by -0.0036." in s for s in verdict_of(run).sentences)


def test_a_zero_baseline_gives_no_percentage(run):
    run[0]["metrics"]["local_only"]["ndcg@10"] = 0.0
    assert "%" not in verdict_of(run).sentences[0]


def test_a_run_without_noise_is_stamped_in_the_verdict_the_guarantee_and_its_rows(open_run):
    summary, _, context = check_inputs(*open_run)
    assert words.STAMP in words.verdict(summary, context).sentences[-1]
    assert words.guarantee(summary) == words.STAMP
    labels = {row.key: row.label for row in words.table(summary)["deployable"]}
    assert all(words.STAMP in labels[key] for key in ("shared", "federated"))
    assert words.STAMP not in labels["base"]


def test_the_guarantee_is_said_whole(run):
    assert words.guarantee(check_inputs(*run)[0]) == (
        "epsilon 8.00 at delta 1e-5 for person at a merchant, neighbours: add or remove one person, "
        "by dp-accounting 0.6.0 PLD"
    )


@given(st.floats(min_value=1e-6, max_value=1e6), st.integers(0, 4))
def test_a_printed_epsilon_is_never_below_the_true_one(epsilon, digits):
    printed = float(words.ceiling(epsilon, digits))
    assert epsilon <= printed <= epsilon + 10.0**-digits + 1e-9


def test_exact_values_are_not_rounded_away():
    assert words.ceiling(8.0) == "8.00"
    assert words.ceiling(7.9994) == "8.00"
    assert words.ceiling(7.9901) == "8.00"
    assert words.ceiling(7.99) == "7.99"


def test_the_best_of_each_column_is_marked_within_its_group_and_what_prints_alike_is_marked_alike(run):
    run[0]["metrics"]["local_only"]["hr@10"] = run[0]["metrics"]["federated"]["hr@10"] + 1e-6
    groups = words.table(check_inputs(*run)[0])
    assert [row.key for row in groups["deployable"] if row.best[0]] == ["federated"]
    assert [row.key for row in groups["deployable"] if row.best[1]] == ["local_only", "federated"]
    assert [row.key for row in groups["references"] if row.best[0]] == ["markov_knn"]


def test_every_row_has_a_label_and_every_row_is_printed_once(run):
    groups = words.table(check_inputs(*run)[0])
    assert sorted(row.key for rows in groups.values() for row in rows) == sorted(run[0]["metrics"])


def test_captions_say_what_the_pictures_show():
    assert words.quality_caption([(1, 0.13), (2, 0.14), (3, 0.135)], 2) == (
        "NDCG@10 on the public panel: 0.1300 after round 1, 0.1350 after round 3; highest 0.1400 after round 2. "
        "The server published round 2."
    )
    assert words.quality_caption([(1, 0.13)], 0).endswith("published the public base, before any round.")
    assert words.quality_caption([(1, 0.13)], None).endswith("after round 1.")
    assert "7.01 after round 3, of a budget of 8.00" in words.epsilon_caption([(3, 7.001)], 8.0)
    assert words.merchants_caption([(0.1, 0.2), (0.2, 0.1), (0.1, 0.1)]) == (
        "Of 3 merchants with people to measure, 1 rank better federated than alone, 1 worse, 1 the same."
    )


def test_the_budget_is_the_one_that_was_asked_for(run):
    summary, _, context = check_inputs(*run)
    assert words.budget(summary.privacy, context) == 8.0
    run[2]["config"] = {}
    summary, _, context = check_inputs(*run)
    assert words.budget(summary.privacy, context) == 7.9994


def test_a_column_in_which_all_print_alike_has_no_best(run):
    summary, rounds, context = run
    for values in summary["metrics"].values():
        values["worst_decile_ndcg@10"] = 0.0
    checked, _, _ = check_inputs(summary, rounds, context)
    last = [row.best[-1] for rows in words.table(checked).values() for row in rows]
    first = [row.best[0] for rows in words.table(checked).values() for row in rows]
    assert not any(last)
    assert sum(first) == 2  # one in each group


def test_the_verdict_says_how_many_merchants_lose(run):
    assert verdict_of(run).sentences[2] == (
        "36 of 50 merchants gain over being alone, 14 lose; the worst tenth loses 0.0105."
    )
    run[0]["fairness"]["over_local_only"]["worst_decile"] = 0.002
    assert verdict_of(run).sentences[2].endswith("the worst tenth gains +0.0020.")
    run[0]["fairness"]["over_local_only"]["worst_decile"] = 0.0
    assert verdict_of(run).sentences[2].endswith("the worst tenth stays where it was.")


def test_new_products_and_new_merchants_are_spoken_of_only_where_there_are_any(run):
    assert words.new_products(check_inputs(*run)[0]) == words.new_merchants(check_inputs(*run)[0]) == ""
    with_news(run[0])
    summary, _, _ = check_inputs(*run)
    assert words.new_products(summary) == (
        "138 people were asked for a product that is in nobody's training history: it is among the first ten for "
        "0.0700 of them federated, 0.0400 by the public base, 0.0300 by product text, untrained."
    )
    assert words.new_merchants(summary) == (
        "10 merchants with 743 people took no part. With the federated ranker and their own local part they reach "
        "NDCG@10 0.1459, alone 0.1431: +0.0028 ± 0.0024, so what was learned carries over."
    )


@pytest.mark.parametrize(("difference", "ending"), [(-0.0028, "does them harm."), (0.0001, "of the measurement.")])
def test_what_does_not_carry_over_is_said_too(run, difference, ending):
    with_news(run[0])["held_out"]["federated_vs_local_only"]["difference"] = difference
    assert words.new_merchants(check_inputs(*run)[0]).endswith(ending)


def test_how_the_budget_was_split_is_said_where_it_was(run):
    assert not any("Of the budget" in sentence for sentence in verdict_of(run).sentences)
    run[2]["split"] = {"pairs": "nothing: can't pay", "adapter": "100%, with which 87% survives"}
    said = "Of the budget, pairs get nothing: can't pay; the adapter gets 100%, with which 87% survives."
    assert said in verdict_of(run).sentences
