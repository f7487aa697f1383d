"""A privacy plan in words: what is promised to whom, by what reckoning, and who must be trusted for it."""

from typing import TYPE_CHECKING

from fedrec.privacy.accounting import round_up
from fedrec.privacy.trust import trust_sentence

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan

NOT_PRIVATE = "NOT PRIVATE: no noise was added, so this run protects nobody."


def statement_of(plan: "PrivacyPlan") -> str:
    """The whole guarantee, and whom it relies on; or the sentence that says there is none."""
    if plan.epsilon is None or plan.delta is None:
        return NOT_PRIVATE
    below = "below" if plan.delta_is_below_one_over_n else "NOT below"
    epsilon = f"{round_up(plan.epsilon):.10g}"
    return (
        f"Each {plan.unit} has (epsilon = {epsilon}, delta = {plan.delta:g})-differential privacy "
        f"over all {plan.steps} training steps{_also(plan)}, "
        f"where neighbouring data sets differ in one person ({plan.relation}), "
        f"accounted by {plan.accountant}; delta is {below} one over the {plan.expected_people} people "
        f"expected at a client. {trust_sentence(plan.trust, plan.noise_sharers)}"
    )


def _also(plan: "PrivacyPlan") -> str:
    """What the statement has to add about releases and a cap; nothing in a plain plan."""
    metrics = f" and {plan.metric_releases} releases of noised metrics" if plan.metric_releases else ""
    counts = " and one release of noised counts" if plan.statistics_noise_multiplier is not None else ""
    cap = (
        f", at most {plan.batch_cap} people in a step of a client with at most {plan.max_people}"
        if plan.batch_cap is not None
        else ""
    )
    return metrics + counts + cap
