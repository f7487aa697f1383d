"""What follows from the facts of a report: every epsilon, the verdict and the headroom. Pure functions."""

from collections.abc import Sequence
from functools import lru_cache

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import (
    REPLACE_ONE,
    ZERO_OUT,
    composed_epsilon,
    composed_rdp_epsilon,
    round_up,
)
from fedrec.privacy.crosscheck import opacus_rdp_epsilon
from fedrec.privacy.filter import filter_epsilon, renyi_order
from fedrec.privacy.plan import RELATION, UNIT, PrivacyPlan
from fedrec.privacy.policy import Policy
from fedrec.privacy.report import attacker, mapping, trust, words
from fedrec.privacy.report.document import (
    PERSON_AT,
    Attacker,
    Bounds,
    ClientRow,
    Composition,
    CompositionRow,
    DeltaRule,
    Facts,
    Findings,
    Group,
    Guarantee,
    LedgerFacts,
)
from fedrec.privacy.report.forecast import forecast, runs_of
from fedrec.privacy.several import epsilon_at_clients
from fedrec.privacy.stated import Statement, statement_under
from fedrec.privacy.steps import Steps, merged
from fedrec.privacy.trust import LOCAL

FALSE_ALARMS = (0.001, 0.01, 0.1)


def findings_of(facts: Facts) -> Findings:
    """Compute everything that a report says beyond its facts; the same facts give the same findings.

    Raises:
        PrivacyError: the facts contradict each other, or a number is out of range.
    """
    if not facts.private:
        return _without_privacy(facts)
    policy, delta, plan = _checked(facts)
    worst = most_spent(facts.ledgers, policy)
    if worst.name != facts.timeline_of:
        raise PrivacyError(f"timeline of {facts.timeline_of}: expected that of {worst.name}, which has spent most")
    spendings = spendings_of(worst.groups)
    stated = _stated(worst, policy)
    guarantee = _guarantee(worst, plan, stated, delta)
    headroom = forecast(worst.groups, policy, plan, run=_run_of(facts))
    bounds = _bounds(spendings, policy, stated)
    rule = _delta_rule(delta, plan)
    audit = words.audit_finding(facts)
    verdict = words.verdict(
        facts, guarantee, headroom, spent=stated.epsilon(spendings), if_fixed=bounds.epsilon_if_fixed
    )
    at = {str(k): _epsilon_at(k, spendings, stated, facts) for k in PERSON_AT}
    composition = _composition(worst, stated)
    return Findings(
        verdict=verdict,
        guarantee=guarantee,
        headroom=headroom,
        bounds=bounds,
        composition=composition,
        delta_rule=rule,
        epsilon_by_round=_by_round(facts, worst, stated),
        epsilon_for_person_at=at,
        clients=tuple(_client(ledger, policy, plan, run=_run_of(facts)) for ledger in facts.ledgers),
        attacker=_attacker(spendings, stated.delta),
        audit=audit,
        trust=trust.actors(facts),
        not_covered=words.not_covered(facts),
        nist_sp_800_226=mapping.nist_answers(facts),
        registry=mapping.registry(facts, guarantee),
    )


def most_spent(ledgers: Sequence[LedgerFacts], policy: Policy) -> LedgerFacts:
    """The ledger with the largest epsilon as it is stated; the first of equals."""
    return max(ledgers, key=lambda ledger: _stated(ledger, policy).epsilon(spendings_of(ledger.groups)))


def spendings_of(groups: Sequence[Group], steps: Sequence[int] | None = None) -> tuple[Steps, ...]:
    """What was spent by groups of charges, with other ``steps`` than their own where given."""
    counts = [group.steps for group in groups] if steps is None else steps
    return tuple(
        Steps(group.noise_multiplier, group.sampling_rate, count, group.batch_cap, group.max_people)
        for group, count in zip(groups, counts, strict=True)
        if count > 0
    )


def _checked(facts: Facts) -> tuple[Policy, float, PrivacyPlan | None]:
    """The parts that a private report cannot do without; the plan's own guarantee is verified on the way."""
    if facts.policy is None or facts.delta is None:
        raise PrivacyError("a private report: expected a policy and its delta")
    if facts.delta != facts.policy.max_delta:
        raise PrivacyError(f"delta={facts.delta}: expected the policy's max_delta={facts.policy.max_delta}")
    if any(group.noise_multiplier == 0 for ledger in facts.ledgers for group in ledger.groups):
        raise PrivacyError("a private report: expected noise in every charge")
    plan = PrivacyPlan.from_dict(facts.plan) if facts.plan is not None else None
    if plan is not None and plan.digest() != facts.digests.get("plan"):
        raise PrivacyError("the plan: expected the one that its digest names")
    if plan is not None and plan.trust != facts.policy.trust:
        raise PrivacyError(f"the plan: expected trust={facts.policy.trust}, which the policy allows")
    if facts.policy.digest() != facts.digests.get("policy"):
        raise PrivacyError("the policy: expected the one that its digest names")
    return facts.policy, facts.delta, plan


def _without_privacy(facts: Facts) -> Findings:
    clients = tuple(
        ClientRow(
            name=ledger.name,
            rounds=rounds_of(ledger.groups),
            steps=sum(group.steps for group in ledger.groups),
            epsilon=None,
            epsilon_left=None,
            status="not private",
        )
        for ledger in facts.ledgers
    )
    return Findings(
        verdict=words.not_private(),
        guarantee=None,
        headroom=None,
        bounds=None,
        composition=None,
        delta_rule=None,
        epsilon_by_round={},
        epsilon_for_person_at={},
        clients=clients,
        attacker=None,
        audit=words.audit_finding(facts),
        trust=trust.actors(facts),
        not_covered=words.not_covered(facts),
        nist_sp_800_226=mapping.nist_answers(facts),
        registry=mapping.registry(facts, None),
    )


@lru_cache(maxsize=65536)
def _epsilon(spendings: tuple[Steps, ...], stated: Statement) -> float:
    return round_up(stated.epsilon(spendings))


def _stated(ledger: LedgerFacts, policy: Policy) -> Statement:
    return statement_under(policy, runs=len(runs_of(ledger.groups)))


def _run_of(facts: Facts) -> str | None:
    """The name of the reported run in its clients' ledgers."""
    return facts.name.partition("/")[0] if facts.source == "run" else None


def rounds_of(groups: Sequence[Group]) -> int:
    """Rounds of training that were charged."""
    return sum(group.charges for group in groups if group.kind == "training")


def _guarantee(worst: LedgerFacts, plan: PrivacyPlan | None, stated: Statement, delta: float) -> Guarantee:
    """Epsilon with the numbers of the mechanism, where the ledger holds one mechanism alone."""
    alike = {(g.noise_multiplier, g.sampling_rate, g.clip_norm) for g in worst.groups if g.kind == "training"}
    if plan is not None and not alike:
        alike = {(plan.noise_multiplier, plan.sampling_rate, plan.clip_norm)}
    noise, rate, clip = alike.pop() if len(alike) == 1 else (None, None, None)
    return Guarantee(
        epsilon=_epsilon(spendings_of(worst.groups), stated),
        delta=delta,
        unit=UNIT,
        relation=RELATION,
        accountant=stated.accountant,
        noise_multiplier=noise,
        sampling_rate=rate,
        steps=sum(group.steps for group in worst.groups if group.kind == "training"),
        clip_norm=clip,
        filter_order=stated.order,
    )


@lru_cache(maxsize=256)
def _bounds(spendings: tuple[Steps, ...], policy: Policy, stated: Statement) -> Bounds:
    delta = stated.delta
    spent = composed_epsilon(spendings, delta)
    unsampled = max(attacker.unsampled_epsilon(spendings, delta), spent)  # the same where nobody was sampled
    is_adaptive = policy.parameters == "adaptive"
    order = renyi_order(policy.max_epsilon, policy.checked_delta) if is_adaptive else None
    is_capped = any(s.batch_cap is not None for s in merged(spendings))
    opacus = None if is_capped else opacus_rdp_epsilon(spendings, delta)
    return Bounds(
        epsilon_replace_one=round_up(composed_epsilon(spendings, delta, relation=REPLACE_ONE)),
        epsilon_zero_out=round_up(composed_epsilon(spendings, delta, relation=ZERO_OUT)),
        epsilon_without_amplification=round_up(unsampled),
        rdp_epsilon=round_up(composed_rdp_epsilon(spendings, delta)),
        opacus_rdp_epsilon=None if opacus is None else round_up(opacus),
        filter_epsilon=None if order is None else round_up(filter_epsilon(spendings, delta, order=order)),
        epsilon_if_fixed=None if stated.order is None else round_up(spent),
    )


def _composition(worst: LedgerFacts, stated: Statement) -> Composition:
    alone = stated._replace(order=None)  # one run: its parameters were fixed before it began
    rows = tuple(
        CompositionRow(
            run=group.run,
            plan=group.plan,
            kind=group.kind,
            charges=group.charges,
            steps=group.steps,
            noise_multiplier=group.noise_multiplier,
            sampling_rate=group.sampling_rate,
            batch_cap=group.batch_cap,
            epsilon=_epsilon(spendings_of((group,)), alone),
        )
        for group in worst.groups
    )
    return Composition(
        ledger=worst.name,
        rows=rows,
        epsilon_by_events=_epsilon(spendings_of(worst.groups), stated),
        epsilon_added_up=round(sum(row.epsilon for row in rows), 4),  # each was rounded up
    )


def _delta_rule(delta: float, plan: PrivacyPlan | None) -> DeltaRule:
    people = plan.expected_people if plan is not None else None
    one_over = None if people is None else float(f"{1.0 / people:.6g}")
    is_below = None if people is None else delta < 1.0 / people
    sentence = words.delta_sentence(delta, people, one_over, is_below)
    return DeltaRule(people=people, one_over_people=one_over, is_below=is_below, sentence=sentence)


def _by_round(facts: Facts, worst: LedgerFacts, stated: Statement) -> dict[str, float]:
    """Epsilon after so many charges; a ledger's curve never falls but where a charge was settled."""
    return {str(p.charges): _epsilon(spendings_of(worst.groups, p.steps), stated) for p in facts.timeline}


def _client(ledger: LedgerFacts, policy: Policy, plan: PrivacyPlan | None, *, run: str | None) -> ClientRow:
    spendings, stated = spendings_of(ledger.groups), _stated(ledger, policy)
    headroom = forecast(ledger.groups, policy, plan, run=run)
    return ClientRow(
        name=ledger.name,
        rounds=rounds_of(ledger.groups),
        steps=sum(group.steps for group in ledger.groups),
        epsilon=_epsilon(spendings, stated),
        epsilon_left=headroom.epsilon_left,
        status=words.status(stated.epsilon(spendings), headroom),
    )


@lru_cache(maxsize=256)
def _attacker(spendings: tuple[Steps, ...], delta: float) -> Attacker:
    curve = attacker.delta_curve(spendings, delta)
    rates = {f"{rate:g}": min(round_up(attacker.true_positive_rate(curve, rate)), 1.0) for rate in FALSE_ALARMS}
    return Attacker(
        gdp_mu=round_up(attacker.gdp_mu(curve)),
        advantage=min(round_up(attacker.advantage(curve)), 1.0),
        true_positive_rate_at=rates,
    )


def _epsilon_at(clients: int, spendings: tuple[Steps, ...], stated: Statement, facts: Facts) -> float:
    """Of someone at several clients: their releases compose, or leave in one sum under one noise."""
    if trust.model_of(facts) != LOCAL:
        return round_up(epsilon_at_clients(spendings, clients, stated.delta, in_one_sum=True))
    return _epsilon(_times(spendings, clients), stated)


def _times(spendings: tuple[Steps, ...], clients: int) -> tuple[Steps, ...]:
    return tuple(spending._replace(steps=clients * spending.steps) for spending in spendings)
