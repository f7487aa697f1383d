import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import REPLACE_ONE, composed_epsilon, round_up
from fedrec.privacy.report.document import AuditFacts
from fedrec.privacy.report.findings import findings_of
from fedrec.privacy.report.forecast import forecast
from fedrec.privacy.report.words import audit_finding
from fedrec.privacy.steps import Steps
from tests.fedrec.privacy.report.made import facts_of, group_of

DELTA = 1e-5


@pytest.fixture(scope="module")
def found(facts):
    return findings_of(facts)


def steps_of(plan, steps):
    return (Steps(plan.noise_multiplier, plan.sampling_rate, steps),)


def audit_of(plan, **changes):
    values = {
        "plan": plan.digest(),
        "base": "a" * 64,
        "code": "b" * 64,
        "canaries": 500,
        "strict_epsilon": 2.5,
        "gdp_epsilon": 6.5,
        "gdp_mu": 1.4,
        "claimed_epsilon": 8.0,
        "delta": DELTA,
        "passed": True,
        "failed_checks": (),
        "checks": 9,
    }
    return AuditFacts(**(values | changes))


def test_the_guarantee_is_that_of_the_client_that_has_spent_most_rounded_up(found, plan):
    assert found.guarantee.epsilon == round_up(composed_epsilon(steps_of(plan, 20), DELTA))
    assert found.guarantee.steps == 20
    assert found.guarantee.noise_multiplier == plan.noise_multiplier


def test_runs_compose_by_events_and_not_by_adding_epsilons(found):
    composition = found.composition
    assert [(row.run, row.steps) for row in composition.rows] == [("run-1", 12), ("run-0", 8)]
    assert composition.epsilon_by_events == found.guarantee.epsilon
    assert composition.epsilon_added_up == pytest.approx(sum(row.epsilon for row in composition.rows), abs=1e-3)
    assert composition.epsilon_added_up > composition.epsilon_by_events


def test_other_relations_assumptions_and_accountants_lie_above(found, plan):
    bounds, epsilon = found.bounds, found.guarantee.epsilon
    assert bounds.epsilon_replace_one == round_up(composed_epsilon(steps_of(plan, 20), DELTA, relation=REPLACE_ONE))
    assert bounds.epsilon_replace_one > epsilon
    assert bounds.epsilon_zero_out > 0
    everyone = composed_epsilon((Steps(plan.noise_multiplier, 1.0, 20),), DELTA)
    assert bounds.epsilon_without_amplification == pytest.approx(everyone, rel=1e-4)
    assert bounds.epsilon_without_amplification > 2 * epsilon
    assert bounds.rdp_epsilon > epsilon
    assert bounds.opacus_rdp_epsilon > epsilon
    assert bounds.filter_epsilon is None


def test_a_person_at_k_clients_spends_at_each(found, plan):
    assert list(found.epsilon_for_person_at) == ["1", "2", "3", "5", "10"]
    assert found.epsilon_for_person_at["1"] == found.guarantee.epsilon
    assert found.epsilon_for_person_at["3"] == round_up(composed_epsilon(steps_of(plan, 60), DELTA))


def test_every_client_has_its_own_row(found, plan):
    first, second = found.clients
    assert (first.rounds, first.status) == (20, "within")
    assert (second.rounds, second.epsilon) == (5, round_up(composed_epsilon(steps_of(plan, 5), DELTA)))
    assert second.epsilon + second.epsilon_left == pytest.approx(8.0, abs=1e-3)


def test_rounds_left_fit_and_one_more_does_not(plan, policy):
    roomy = policy.model_copy(update={"max_rounds_total": 10_000, "max_steps_total": 10_000})
    groups = (group_of(plan, charges=20),)
    left = forecast(groups, roomy, None)
    assert left.stops_because == "the policy's max_epsilon"
    assert composed_epsilon(steps_of(plan, 20 + left.rounds_left), DELTA) <= 8.0
    assert composed_epsilon(steps_of(plan, 21 + left.rounds_left), DELTA) > 8.0


@pytest.mark.parametrize(
    ("changes", "rounds", "reason"),
    [
        ({"max_rounds_total": 30}, 3, "the policy's max_rounds_total"),
        ({"max_rounds_total": 90, "max_steps_total": 31}, 4, "the policy's max_steps_total"),
        ({"max_rounds_total": 90, "max_steps_total": 90}, 10, "the plan's own steps"),
    ],
)
def test_the_tightest_limit_is_named(plan, policy, changes, rounds, reason):
    groups = (group_of(plan, charges=7, run="run-0"), group_of(plan, charges=20))
    left = forecast(groups, policy.model_copy(update={"max_epsilon": 20.0} | changes), plan)
    assert (left.rounds_left, left.stops_because) == (rounds, reason)


def test_an_empty_ledger_alone_tells_no_price_of_a_round(policy):
    left = forecast((), policy, None)
    assert (left.rounds_left, left.stops_because) == (None, "nothing yet tells what a round costs")


def test_headroom_is_rounded_down(plan, policy):
    left = forecast((group_of(plan, charges=20),), policy, plan).epsilon_left
    exact = 8.0 - composed_epsilon(steps_of(plan, 20), DELTA)
    assert exact - 1e-4 < left <= exact


@pytest.mark.parametrize(("charges", "outcome"), [(0, "nothing spent"), (20, "within"), (30, "used up")])
def test_the_verdict_says_how_the_run_stands(plan, policy, charges, outcome):
    groups = (group_of(plan, charges=charges),) if charges else ()
    assert findings_of(facts_of(plan, policy, ("client-00000", groups))).verdict.outcome == outcome


def test_a_policy_tightened_afterwards_makes_the_verdict_over(plan, policy):
    tight = policy.model_copy(update={"max_epsilon": 5.0})
    found = findings_of(facts_of(plan, tight, ("client-00000", (group_of(plan, charges=20),))))
    assert found.verdict.outcome == "over"
    assert found.headroom.epsilon_left == 0.0
    assert found.clients[0].status == "over"


def test_parameters_chosen_on_the_way_are_held_to_the_filter(plan, policy):
    adaptive = policy.model_copy(update={"parameters": "adaptive", "max_delta": 2 * DELTA})
    found = findings_of(facts_of(plan, adaptive, ("client-00000", (group_of(plan, charges=20),))))
    assert found.bounds.filter_epsilon > found.guarantee.epsilon


@pytest.mark.slow  # the library needs seconds for each capped distribution
def test_a_capped_batch_has_no_opacus_cross_check(plan, policy):
    capped = group_of(plan, charges=2, batch_cap=4, max_people=12)
    found = findings_of(facts_of(plan, policy, ("client-00000", (capped,))))
    assert found.bounds.opacus_rdp_epsilon is None
    assert found.bounds.rdp_epsilon >= found.guarantee.epsilon


def test_metric_releases_are_part_of_what_was_spent(plan, policy):
    metric = group_of(plan, charges=3, kind="metrics", noise_multiplier=20.0, sampling_rate=1.0)
    found = findings_of(facts_of(plan, policy, ("client-00000", (group_of(plan, charges=20), metric))))
    both = (*steps_of(plan, 20), Steps(20.0, 1.0, 3))
    assert found.guarantee.epsilon == round_up(composed_epsilon(both, DELTA))
    assert found.guarantee.steps == 20
    assert found.clients[0].rounds == 20


def test_a_run_without_noise_has_no_number_that_could_be_taken_for_a_guarantee(bare_facts):
    found = findings_of(bare_facts)
    assert found.verdict.outcome == "not private"
    assert found.verdict.headline.startswith("NOT PRIVATE")
    assert (found.guarantee, found.headroom, found.bounds, found.attacker) == (None, None, None, None)
    assert found.epsilon_for_person_at == {}
    assert found.clients[0].epsilon is None


def test_delta_is_held_against_the_number_of_people_where_that_is_known(plan, policy, facts):
    rule = findings_of(facts).delta_rule
    assert (rule.people, rule.is_below) == (60, True)
    alone = facts_of(plan, policy, ("ledger.sqlite", (group_of(plan, charges=3),)), source="ledger")
    rule = findings_of(alone).delta_rule
    assert (rule.people, rule.is_below) == (None, None)
    assert "not checked" in rule.sentence


@pytest.fixture(scope="module")
def audited(plan, policy):
    """What a report of one client says about an audit."""
    facts = facts_of(plan, policy, ("client-00000", (group_of(plan, charges=3),)))
    return lambda audit, **changes: audit_finding(facts.model_copy(update={"audit": audit} | changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"plan": "0" * 64}, "is of another plan"),
        ({"base": "0" * 64}, "is of another base"),
        ({"code": "0" * 64}, "is of code 000000000000, which the policy does not allow"),
        ({"code": None}, "does not name the base and the code that it attacked"),
    ],
)
def test_an_audit_of_something_else_counts_as_none(plan, audited, changes, why):
    assert audited(None).status == "not audited"
    assert audited(audit_of(plan)).status == "passed"
    found = audited(audit_of(plan).model_copy(update=changes))
    assert found.status == "not audited"
    assert found.sentence == f"Not audited: the audit beside this report {why}, so it says nothing here. Audit again."


def test_the_audit_of_a_run_is_of_its_own_base_whatever_its_policy_allows(plan, audited):
    assert audited(audit_of(plan), digests={"plan": plan.digest(), "base": "d" * 64}).status == "not audited"


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"failed_checks": ("noise scale",)}, "noise scale"),
        ({"strict_epsilon": 9.0}, "a lower bound exceeds the claim"),
        ({"gdp_epsilon": 8.0001}, "a lower bound exceeds the claim"),
        ({"strict_epsilon": 9.0, "claimed_epsilon": 10.0}, "the claim is not the plan's"),
        ({"checks": 0}, "no check was made"),
        ({"passed": False}, "its own verdict"),
    ],
)
def test_an_audit_that_says_passed_is_held_to_what_it_found(plan, audited, changes, failed):
    found = audited(audit_of(plan, **changes))
    assert found.status == "failed"
    assert found.sentence.endswith(f"FAILED: {failed}.")


def test_a_policy_that_is_not_the_newest_on_record_is_named_in_the_verdict(facts, policy):
    assert "newest on record" not in str(findings_of(facts).verdict)
    first, second = facts.ledgers
    older = second.model_copy(update={"policies": (policy.digest(), "9" * 64)})
    verdict = findings_of(facts.model_copy(update={"ledgers": (first, older)})).verdict
    assert verdict.headline.endswith("But the policy stated here is not the newest on record.")
    assert f"is not the newest on record in 1 of 2 ledgers ({second.name}: 999999999999)" in verdict.sentences[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "a private report: expected a policy and its delta"),
        ({"delta": 1e-4}, "delta=0.0001: expected the policy's max_delta=1e-05"),
        ({"timeline_of": "client-00001"}, "timeline of client-00001: expected that of client-00000"),
        ({"digests": {"plan": "0" * 64}}, "the plan: expected the one that its digest names"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts, changes, message):
    with pytest.raises(PrivacyError, match=message):
        findings_of(facts.model_copy(update=changes))


def test_a_policy_that_is_not_the_one_named_is_refused(facts):
    digests = facts.digests | {"policy": "0" * 64}
    with pytest.raises(PrivacyError, match="the policy: expected the one that its digest names"):
        findings_of(facts.model_copy(update={"digests": digests}))


def test_a_private_report_of_a_charge_without_noise_is_refused(plan, policy):
    silent = group_of(plan, charges=3, noise_multiplier=0.0)
    with pytest.raises(PrivacyError, match="expected noise in every charge"):
        findings_of(facts_of(plan, policy, ("client-00000", (silent,))))
