"""How many more rounds fit under a policy, and what stops them: as many as the ledger itself would grant."""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.privacy.report.document import Group, Headroom
from fedrec.privacy.stated import statement_under
from fedrec.privacy.steps import Steps, merged

_HORIZON = 100_000  # steps; a stranger's policy may allow so many that the accountant never ends
NOT_ALLOWED = "the policy, which does not allow the plan"


def runs_of(groups: Sequence[Group]) -> set[tuple[str, str]]:
    """Every plan and run that was ever charged; what shares one promise."""
    return {(group.plan, group.run) for group in groups}


def forecast(groups: Sequence[Group], policy: Policy, plan: PrivacyPlan | None, *, run: str | None = None) -> Headroom:
    """What a ledger may still spend, if rounds go on as the newest one did.

    Args:
        groups: charges of one ledger, the newest group last.
        plan: of the run in question; None for a ledger alone.
        run: its name; None for the newest run of that plan.

    Returns:
        Epsilon left (rounded down), and rounds left by the tightest of the policy's totals, the plan's
        rounds and epsilon; None rounds when nothing tells what a round costs. Daily caps slow, and stop nothing.

    Raises:
        PrivacyError: a number out of range.
    """
    taken = tuple(Steps(g.noise_multiplier, g.sampling_rate, g.steps, g.batch_cap, g.max_people) for g in groups)
    spent = statement_under(policy, runs=len(runs_of(groups))).epsilon(taken)
    left = _round_down(max(policy.max_epsilon - spent, 0.0))
    rounds, reason = _rounds(groups, policy, plan, run=run, taken=merged(taken))
    return Headroom(epsilon_limit=policy.max_epsilon, epsilon_left=left, rounds_left=rounds, stops_because=reason)


def _rounds(
    groups: Sequence[Group], policy: Policy, plan: PrivacyPlan | None, *, run: str | None, taken: tuple[Steps, ...]
) -> tuple[int | None, str]:
    """Rounds left, and what allows no more."""
    digest = plan.digest() if plan is not None else None
    alike = [
        group
        for group in groups
        if group.kind == "training" and digest in (None, group.plan) and run in (None, group.run)
    ]
    if plan is None:
        if not (alike and alike[-1].charged_steps):
            return None, "nothing yet tells what a round costs"
        one_round, runs, caps = _as_charged(alike[-1]), runs_of(groups), {}
    elif not _is_allowed(plan, policy):
        return 0, NOT_ALLOWED
    else:
        name = run or next((group.run for group in reversed(alike)), "")
        one_round, runs = plan.training(plan.local_steps), runs_of(groups) | {(plan.digest(), name)}
        caps = {"the plan's own steps": _of_the_plan([group for group in alike if group.run == name], plan)}
    caps |= _caps(groups, policy, one_round)
    reason = min(caps, key=lambda name: caps[name])
    rounds = _rounds_by_epsilon(taken, one_round, policy, caps[reason], runs=len(runs))
    return rounds, reason if rounds == caps[reason] else "the policy's max_epsilon"


def _is_allowed(plan: PrivacyPlan, policy: Policy) -> bool:
    try:
        policy.check_plan(plan)
    except PrivacyError:
        return False
    return True


def _as_charged(group: Group) -> Steps:
    """What one round of a group was charged before anything was settled, on average, rounded up."""
    each = -(-group.charged_steps // max(group.charges, 1))
    return Steps(group.noise_multiplier, group.sampling_rate, each, group.batch_cap, group.max_people)


def _caps(groups: Sequence[Group], policy: Policy, one_round: Steps) -> dict[str, int]:
    """Rounds left by each of the policy's totals, which count charges in full; the name says which."""
    training = [group for group in groups if group.kind == "training"]
    steps = sum(group.charged_steps for group in training)
    return {
        "the policy's max_rounds_total": max(policy.max_rounds_total - sum(group.charges for group in training), 0),
        "the policy's max_steps_total": max(policy.max_steps_total - steps, 0) // one_round.steps,
        "how far this forecast looks": max(_HORIZON // one_round.steps, 1),
    }


def _of_the_plan(own: Sequence[Group], plan: PrivacyPlan) -> int:
    """Rounds that the plan still has for its run: a round that was charged is gone, though its steps were settled."""
    rounds = plan.rounds - sum(group.charges for group in own)
    steps = plan.steps - sum(group.steps for group in own)
    return max(min(rounds, steps // plan.local_steps), 0)


@lru_cache(maxsize=8192)
def _rounds_by_epsilon(taken: tuple[Steps, ...], one_round: Steps, policy: Policy, most: int, *, runs: int) -> int:
    """The largest number of further rounds, up to ``most``, whose epsilon stays within the policy."""
    bound, delta = statement_under(policy, runs=runs), policy.checked_delta

    def fits(rounds: int) -> bool:
        after = merged((*taken, one_round._replace(steps=rounds * one_round.steps)))
        if bound.order is not None and not bound.epsilon(after) <= policy.max_epsilon:
            return False
        return composed_epsilon(after, delta) <= policy.max_epsilon

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
