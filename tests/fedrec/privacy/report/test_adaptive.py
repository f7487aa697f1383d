"""Where a later run's numbers may rest on an earlier run's results, only the Renyi filter says what was spent."""

import pytest

from fedrec.privacy.accounting import composed_epsilon, round_up
from fedrec.privacy.filter import filter_epsilon, renyi_order
from fedrec.privacy.report import html, markdown
from fedrec.privacy.report.findings import findings_of, most_spent
from fedrec.privacy.report.tiles import tiles
from fedrec.privacy.report.words import IF_FIXED, number
from fedrec.privacy.stated import statement_under
from fedrec.privacy.steps import Steps
from tests.fedrec.privacy.report.made import facts_of, group_of, sign

DELTA = 1e-5
pytestmark = pytest.mark.usefixtures("coarse_accounting")


@pytest.fixture
def adaptive(policy):
    free = {"max_rounds_total": 1000, "max_steps_total": 1000}
    return policy.model_copy(update={"parameters": "adaptive", "max_delta": 2 * DELTA} | free)


@pytest.fixture
def two_runs(plan, adaptive):
    groups = (group_of(plan, charges=12, run="run-0"), group_of(plan, charges=2))
    return facts_of(plan, adaptive, ("client-00000", groups), ("client-00001", (group_of(plan, charges=2),)))


def spent_on(plan, steps):
    return (Steps(plan.noise_multiplier, plan.sampling_rate, steps),)


def test_two_runs_are_stated_by_the_filter_at_half_of_delta_and_never_by_the_distributions(two_runs, plan):
    found = findings_of(two_runs)
    order = renyi_order(8.0, DELTA)
    by_filter = filter_epsilon(spent_on(plan, 14), DELTA, order=order)
    fixed = round_up(composed_epsilon(spent_on(plan, 14), DELTA))
    assert found.guarantee.epsilon == round_up(by_filter) > fixed
    assert (found.guarantee.delta, found.guarantee.filter_order) == (2 * DELTA, order)
    assert found.guarantee.accountant == f"the Renyi filter of order {order}, at half of that delta"
    assert found.bounds.epsilon_if_fixed == fixed
    assert 0.0 <= 8.0 - by_filter - found.headroom.epsilon_left < 1e-4
    assert found.clients[0].epsilon == found.composition.epsilon_by_events == found.guarantee.epsilon
    assert list(found.epsilon_by_round.values())[-1] == found.guarantee.epsilon
    three = filter_epsilon(spent_on(plan, 42), DELTA, order=order)
    assert found.epsilon_for_person_at["3"] == round_up(three)


def test_the_words_say_at_most_and_by_the_filter_and_what_fixed_parameters_would_have_cost(two_runs, key):
    signed = sign(two_runs, key)
    found = signed.report.findings
    first, second, *_ = found.verdict.sentences
    assert f"has spent at most epsilon {number(found.guarantee.epsilon)} at delta 2e-05" in first
    assert first.endswith(f"by {found.guarantee.accountant}.")
    assert f"Epsilon would be {number(found.bounds.epsilon_if_fixed)} {IF_FIXED}." in second
    assert f"spent: at most epsilon {number(found.guarantee.epsilon)}" in tiles(signed.report)[2].detail
    assert "a customer of three clients has at most ε " in tiles(signed.report)[3].detail
    for text in (html.render_html(signed), markdown.render_markdown(signed).partition(markdown.BEGIN)[0]):
        assert "never less than what was spent" not in text
        assert f"Each row is at most so much, by {found.guarantee.accountant}." in text
        assert text.count(IF_FIXED) > 8


@pytest.mark.parametrize(("limit", "status"), [(8.0, "within"), (5.8, "over")])
def test_a_ledger_beyond_its_filter_is_over_though_the_distributions_are_within(
    two_runs, plan, adaptive, limit, status
):
    tight = adaptive.model_copy(update={"max_epsilon": limit})
    by_filter = filter_epsilon(spent_on(plan, 14), DELTA, order=renyi_order(limit, DELTA))
    assert (by_filter <= limit) == (status == "within")
    assert composed_epsilon(spent_on(plan, 14), DELTA) <= limit - 0.1
    facts = facts_of(plan, tight, *((one.name, one.groups) for one in two_runs.ledgers))
    found = findings_of(facts)
    assert (found.verdict.outcome, found.clients[0].status) == (status, status)


def test_one_run_is_stated_by_the_distributions_at_half_of_delta(plan, adaptive):
    found = findings_of(facts_of(plan, adaptive, ("client-00000", (group_of(plan, charges=20),))))
    assert found.guarantee.epsilon == round_up(composed_epsilon(spent_on(plan, 20), DELTA))
    assert found.guarantee.accountant.endswith("PLD, at half of that delta")
    assert (found.guarantee.filter_order, found.bounds.epsilon_if_fixed) == (None, None)
    assert found.bounds.rdp_epsilon > found.guarantee.epsilon


def test_the_client_that_has_spent_most_is_so_by_what_is_stated(plan, adaptive):
    """Fewer steps in two runs, which the filter counts, may come to more than many steps of one."""
    one = group_of(plan, charges=14)
    two = (group_of(plan, charges=6, run="run-0"), group_of(plan, charges=7))
    ledgers = facts_of(plan, adaptive, ("client-00000", (one,)), ("client-00001", two)).ledgers
    assert most_spent(ledgers, adaptive).name == "client-00001"
    assert most_spent(ledgers, adaptive.model_copy(update={"parameters": "fixed"})).name == "client-00000"


def test_a_run_settled_to_nothing_counts_as_a_run(plan, adaptive):
    settled = group_of(plan, charges=1, run="run-0", settled=1, released=0, steps=0)
    found = findings_of(facts_of(plan, adaptive, ("client-00000", (settled, group_of(plan, charges=2)))))
    assert found.guarantee.filter_order is not None


def test_fixed_parameters_are_stated_by_the_distributions_over_any_number_of_runs(policy):
    stated = statement_under(policy, runs=5)
    assert (stated.delta, stated.order) == (DELTA, None)
    assert stated.accountant.endswith("PLD")
