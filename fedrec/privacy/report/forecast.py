"""How many more rounds fit under a policy, and what stops them."""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache

from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.filter import filter_epsilon, renyi_order
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.privacy.report.document import Group, Headroom
from fedrec.privacy.steps import Steps, merged


def forecast(groups: Sequence[Group], policy: Policy, plan: PrivacyPlan | None) -> Headroom:
    """What a ledger may still spend, if rounds go on as the newest one did.

    Args:
        groups: charges of one ledger, the newest group last.
        plan: of the run in question; None for a ledger alone.

    Returns:
        Epsilon left (rounded down), and rounds left by the tightest of the policy's totals, the plan's
        steps and epsilon; None rounds when nothing tells what a round costs. Daily caps slow, and stop nothing.
    """
    taken = tuple(Steps(g.noise_multiplier, g.sampling_rate, g.steps, g.batch_cap, g.max_people) for g in groups)
    spent = composed_epsilon(taken, policy.max_delta)
    left = _round_down(max(policy.max_epsilon - spent, 0.0))
    one_round = _next_round(groups, plan)
    if one_round is None:
        rounds, reason = None, "nothing yet tells what a round costs"
    else:
        caps = _caps(groups, policy, plan, one_round)
        reason = min(caps, key=lambda name: caps[name])
        rounds = _rounds_by_epsilon(merged(taken), one_round, policy, caps[reason])
        reason = reason if rounds == caps[reason] else "the policy's max_epsilon"
    return Headroom(epsilon_limit=policy.max_epsilon, epsilon_left=left, rounds_left=rounds, stops_because=reason)


def _next_round(groups: Sequence[Group], plan: PrivacyPlan | None) -> Steps | None:
    """What one more round would spend."""
    if plan is not None:
        return plan.training(plan.local_steps)
    newest = next((group for group in reversed(groups) if group.kind == "training" and group.steps > 0), None)
    if newest is None:
        return None
    each = -(-newest.steps // newest.charges)
    return Steps(newest.noise_multiplier, newest.sampling_rate, each, newest.batch_cap, newest.max_people)


def _caps(groups: Sequence[Group], policy: Policy, plan: PrivacyPlan | None, one_round: Steps) -> dict[str, int]:
    """Rounds left by each limit that counts; the name says which."""
    training = [group for group in groups if group.kind == "training"]
    steps = sum(group.steps for group in training)
    caps = {
        "the policy's max_rounds_total": max(policy.max_rounds_total - sum(group.charges for group in training), 0),
        "the policy's max_steps_total": max(policy.max_steps_total - steps, 0) // one_round.steps,
    }
    if plan is not None:
        digest = plan.digest()
        own = sum(group.steps for group in training if group.plan == digest)
        caps = {"the plan's own steps": max(plan.steps - own, 0) // one_round.steps} | caps
    return caps


@lru_cache(maxsize=8192)
def _rounds_by_epsilon(taken: tuple[Steps, ...], one_round: Steps, policy: Policy, most: int) -> int:
    """The largest number of further rounds, up to ``most``, whose epsilon stays within the policy."""

    def fits(rounds: int) -> bool:
        after = (*taken, one_round._replace(steps=rounds * one_round.steps))
        if composed_epsilon(after, policy.max_delta) > policy.max_epsilon:
            return False
        if policy.parameters == "fixed" or len(merged(after)) == 1:
            return True
        order = renyi_order(policy.max_epsilon, policy.max_delta)
        return filter_epsilon(after, policy.max_delta, order=order) <= policy.max_epsilon

    if most == 0 or fits(most):
        return most
    low, high = 0, 1
    while high < most and fits(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _round_down(value: float, digits: int = 4) -> float:
    """Headroom for display: never more than it is."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))
