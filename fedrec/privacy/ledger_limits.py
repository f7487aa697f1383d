"""Whether a charge may be booked: what a request may be, and what the policy still allows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import ACCOUNTANT, Steps, composed_epsilon, round_up
from fedrec.privacy.ledger_book import DAY_S, Book, Round, Run
from fedrec.privacy.ledger_entries import Entry, Kind, State
from fedrec.privacy.plan import RELATION, PrivacyPlan
from fedrec.privacy.policy import Policy

_LONGEST_NAME = 200
_MOST_STEPS = 2**53


class Request(NamedTuple):
    """A charge that is well formed and within its plan taken alone."""

    round_id: str
    run: Run
    kind: Kind
    spending: Steps


def checked_request(round_id: str, spending: Steps, *, plan: PrivacyPlan, kind: Kind, policy: Policy | None) -> Request:
    """Refuse what is no charge of this plan, or of a plan that the policy does not allow.

    Raises:
        PrivacyError: names what came and what was expected.
    """
    if policy is not None:
        policy.check_plan(plan)
    elif plan.private:
        raise PrivacyError("a private plan without a policy: expected policy.toml beside the ledger")
    if not is_name(round_id) or not all(round_id.partition("/")):
        raise PrivacyError(f"round {round_id!r}: expected RUN/ROUND, at most {_LONGEST_NAME} printable characters")
    if not isinstance(kind, Kind):
        raise PrivacyError(f"round {round_id!r}, kind={kind!r}: expected one of {[known.value for known in Kind]}")
    steps = spending[2] if isinstance(spending, tuple) and len(spending) == len(Steps._fields) else None
    most = min(_planned(plan, kind), _MOST_STEPS if kind == Kind.TRAINING else 1)
    if type(steps) is not int or not 1 <= steps <= most:
        raise PrivacyError(f"round {round_id!r}, steps={steps!r}: expected 1 to {most} for {kind.value}")
    expected = _spending(plan, kind)._replace(steps=steps)
    if tuple(spending) != tuple(expected):
        raise PrivacyError(f"round {round_id!r}: {spending}, expected {expected}, which the plan says")
    return Request(round_id, Run(plan.digest(), round_id.partition("/")[0]), kind, expected)


def is_name(text: object, *, longest: int = _LONGEST_NAME) -> bool:
    """Whether ``text`` can go on record as it is."""
    return isinstance(text, str) and 0 < len(text) <= longest and text.isprintable()


def check_repeat(known: Round, request: Request) -> None:
    """Refuse a second charge of a round that is not the very same, or that was given up.

    Raises:
        PrivacyError: names the round.
    """
    entry = known.reserved
    if (entry.spending, entry.plan, entry.kind) != (request.spending, request.run.plan, request.kind):
        raise PrivacyError(f"round {entry.round_id!r}: charged with other steps or another plan; expected the same")
    if known.state == State.SETTLED:
        raise PrivacyError(f"round {entry.round_id!r}: settled; nothing more can be computed or sent on that charge")


def check_limits(book: Book, request: Request, *, plan: PrivacyPlan, policy: Policy | None, at: int) -> None:
    """Refuse a charge that its plan, or the policy over the whole history, does not cover.

    Raises:
        PrivacyError: names the limit, what came and what is allowed.
    """
    used, most = book.used(request.run, request.kind), _planned(plan, request.kind)
    if used + request.spending.steps > most:
        raise PrivacyError(
            f"round {request.round_id!r}: would bring {request.kind.value} of this run to "
            f"{used + request.spending.steps} steps, expected <= {most}, which the plan says"
        )
    if policy is None:
        return
    if request.kind == Kind.TRAINING:
        _check_caps(book, request.spending.steps, policy=policy, at=at)
    _check_budget(book, request, plan=plan, policy=policy)


def spent_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon of everything spent: an upper bound; infinity once something went without noise."""
    return composed_epsilon(spendings, delta) if spendings else 0.0


def _check_caps(book: Book, steps: int, *, policy: Policy, at: int) -> None:
    """Rounds and steps of training, over the ledger's life and over the last day."""
    for period, since in (("total", None), ("per_day", at - DAY_S)):
        rounds, before = book.training(since)
        for name, came in ((f"max_rounds_{period}", rounds + 1), (f"max_steps_{period}", before + steps)):
            if came > getattr(policy, name):
                raise PrivacyError(
                    f"policy {name}: the charge would bring it to {came}, allowed {getattr(policy, name)}"
                )


def _check_budget(book: Book, request: Request, *, plan: PrivacyPlan, policy: Policy) -> None:
    """The heart of it: all that was ever spent, and this, within the policy's epsilon.

    The plan carried out to its end is tried first: when that fits, so does every step on the way, and the
    accountant's answer stays the same for the whole run, so that it is computed once.
    """
    spent, at_the_end = book.spendings(request.spending), book.spendings(*_left(book, request.run, plan=plan))
    delta = policy.checked_delta
    if not _is_covered(spent, plan=plan):
        _check_epsilon("", lambda steps: spent_epsilon(steps, delta), spent, at_the_end, policy=policy)
    if policy.parameters == "adaptive" and not book.runs() <= {request.run}:
        from fedrec.privacy.filter import filter_epsilon, renyi_order

        order = renyi_order(policy.max_epsilon, delta)
        bound = partial(filter_epsilon, delta=delta, order=order)
        _check_epsilon(f"Renyi filter of order {order:g}, ", bound, spent, at_the_end, policy=policy)


def _left(book: Book, run: Run, *, plan: PrivacyPlan) -> Iterator[Steps]:
    """What the plan has not yet charged in this run."""
    for kind in Kind:
        if planned := _planned(plan, kind):
            yield _spending(plan, kind)._replace(steps=planned - book.used(run, kind))


def _planned(plan: PrivacyPlan, kind: Kind) -> int:
    """How many steps, or releases, of a kind the plan has."""
    if kind == Kind.STATISTICS:
        return int(plan.statistics_noise_multiplier is not None)
    return plan.steps if kind == Kind.TRAINING else plan.metric_releases


def _spending(plan: PrivacyPlan, kind: Kind) -> Steps:
    """What one step, or release, of a kind spends."""
    if kind == Kind.STATISTICS:
        return plan.statistics_release()
    return plan.training(1) if kind == Kind.TRAINING else plan.metrics_release()


def _is_covered(spendings: tuple[Steps, ...], *, plan: PrivacyPlan) -> bool:
    """Whether all of it is part of this one plan, whose epsilon was verified; saves the accountant's time."""
    left = {steps._replace(steps=0): 0 for steps in plan.spendings()}
    for steps in plan.spendings():
        left[steps._replace(steps=0)] += steps.steps
    return all(steps.steps <= left.get(steps._replace(steps=0), 0) for steps in spendings)


def _check_epsilon(
    method: str,
    epsilon_of: Callable[[tuple[Steps, ...]], float],
    spent: tuple[Steps, ...],
    at_the_end: tuple[Steps, ...],
    *,
    policy: Policy,
) -> None:
    """Refuse ``spent`` beyond the policy's epsilon; ``at_the_end`` is never less."""
    if epsilon_of(at_the_end) <= policy.max_epsilon:
        return
    total = epsilon_of(spent)
    if not total <= policy.max_epsilon:
        raise PrivacyError(
            f"policy max_epsilon: the charge would bring epsilon to {round_up(total)}, allowed {policy.max_epsilon} "
            f"at delta {policy.checked_delta}, {policy.unit}, {RELATION}, {method}{ACCOUNTANT}"
        )


def reservation(request: Request, *, plan: PrivacyPlan, policy: Policy | None, after: Entry) -> Entry:
    """The line of a charge, still to be placed and sealed."""
    noise, rate, steps, batch_cap, max_people = request.spending
    return after._replace(
        kind=request.kind.value,
        plan=request.run.plan,
        policy=policy.digest() if policy else "",
        round_id=request.round_id,
        state=State.RESERVED.value,
        noise_multiplier=noise + 0.0,  # no negative zero: the database does not keep it
        sampling_rate=rate,
        steps=steps,
        batch_cap=batch_cap,
        max_people=max_people,
        clip_norm=plan.clip_norm,
        delta=plan.delta,
        accountant=plan.accountant,
        reason="",
    )
