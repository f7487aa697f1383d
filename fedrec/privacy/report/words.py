"""The report's plain language. Pure functions of facts and numbers; the same words in html, json and markdown."""

import json

from fedrec.privacy.accounting import round_up
from fedrec.privacy.plan_words import NOT_PRIVATE
from fedrec.privacy.report import trust
from fedrec.privacy.report.document import AuditFacts, AuditFinding, Facts, Guarantee, Headroom, Status, Verdict
from fedrec.privacy.trust import LOCAL

STAMP = "NOT PRIVATE"
OPERATOR_ONLY = "For the operator only: who took part, and how often, is itself information about a client."
RANDOMNESS = (
    "ChaCha20 under a fresh key from the operating system at every draw; each normal is a sum of four. "
    "No seed, no state, nothing shared between clients."
)

IF_FIXED = "if the parameters had been fixed in advance"
CHOSEN_ON_THE_WAY = (
    "The ledger holds more than one run, and its policy lets a later run's numbers depend on earlier results: so the "
    "filter counts what was spent, and privacy loss distributions do not bound it."
)


def number(value: float) -> str:
    """One spelling of a number in every format: that of JSON."""
    return json.dumps(value)


def whole_epsilon(epsilon: float, guarantee: Guarantee) -> str:
    """Epsilon with everything it needs to mean something."""
    at_most = "at most " if guarantee.filter_order is not None else ""
    return (
        f"{at_most}epsilon {number(epsilon)} at delta {number(guarantee.delta)}, unit {guarantee.unit}, "
        f"neighbours: {guarantee.relation}, by {guarantee.accountant}"
    )


def status(spent: float, headroom: Headroom) -> Status:
    """How a ledger that has spent an epsilon stands under its policy."""
    if spent > headroom.epsilon_limit:
        return "over"
    if headroom.rounds_left == 0:
        return "used up"
    return "within" if spent > 0 else "nothing spent"


def verdict(
    facts: Facts, guarantee: Guarantee, headroom: Headroom, *, spent: float, if_fixed: float | None = None
) -> Verdict:
    """The first thing a reader sees.

    Args:
        spent: the epsilon before rounding.
        if_fixed: what privacy loss distributions would state, where they bound nothing; else None.
    """
    outcome = status(spent, headroom)
    headline = {
        "within": "Within the policy, with room for more rounds.",
        "used up": "Within the policy; no further round fits.",
        "over": "Over the policy: more was spent than it allows.",
        "nothing spent": "Nothing has been spent yet.",
    }[outcome]
    many = len(facts.ledgers) > 1
    who = f"The client that has spent most ({facts.timeline_of}, of {len(facts.ledgers)})" if many else "The client"
    if another := _another_policy(facts):
        headline = f"{headline} But the policy stated here is not the newest on record."
    sentences = (
        f"{who} has spent {whole_epsilon(guarantee.epsilon, guarantee)}.",
        *(() if if_fixed is None else (f"{CHOSEN_ON_THE_WAY} Epsilon would be {number(if_fixed)} {IF_FIXED}.",)),
        f"Its policy allows epsilon {number(headroom.epsilon_limit)} at the same delta; "
        f"{number(headroom.epsilon_left)} is left. {rounds_sentence(headroom)}",
        *([] if trust.model_of(facts) == LOCAL else [trust.relied_on(facts)]),
        *another,
    )
    return Verdict(outcome=outcome, headline=headline, sentences=sentences)


def _another_policy(facts: Facts) -> tuple[str, ...]:
    """What is to be said when a ledger's last charge was made under another policy than the one stated."""
    stated = facts.digests.get("policy", "")
    others = [one for one in facts.ledgers if not one.is_under(stated)]
    if not others:
        return ()
    newest = others[0].policies[-1][:12] if others[0].policies else "none"
    return (
        f"The policy stated here, {stated[:12]}, is not the newest on record in {len(others)} of {len(facts.ledgers)} "
        f"ledgers ({others[0].name}: {newest}): what is left by it need not be what the ledger's owner allows.",
    )


def not_private() -> Verdict:
    """The verdict of a run without noise."""
    return Verdict(outcome="not private", headline=f"{STAMP}: there is no guarantee.", sentences=(NOT_PRIVATE,))


def rounds_sentence(headroom: Headroom) -> str:
    """How many more rounds fit, and why no more."""
    if headroom.rounds_left is None:
        return f"Rounds left: unknown, {headroom.stops_because}."
    left = "No further round fits" if headroom.rounds_left == 0 else f"Rounds that still fit: {headroom.rounds_left}"
    return f"{left}; the limit is {headroom.stops_because}."


def verdict_line(facts: Facts, found: Verdict) -> str:
    """One line for a terminal."""
    return f"{facts.name}: {found.headline} {found.sentences[0]}"


def delta_sentence(delta: float, people: int | None, one_over: float | None, is_below: bool | None) -> str:
    """The rule for delta, with the n it was checked against."""
    rule = "Delta must be below one over the number of people: otherwise publishing one person whole would comply."
    if people is None or one_over is None:
        return f"{rule} A ledger does not say how many people there are, so this was not checked."
    holds = "holds" if is_below else "does NOT hold"
    return (
        f"{rule} Here delta is {number(delta)} and 1/n is {number(one_over)} "
        f"for the {people} people expected at a client (a public number): the rule {holds}."
    )


def audit_finding(facts: Facts) -> AuditFinding:
    """How the attack compares with the claim, or why there is nothing to compare."""
    audit = facts.audit
    if audit is None:
        return AuditFinding(status="not audited", sentence="Not audited. To attack the engine: fedrec privacy audit.")
    if another := _audited_another(facts, audit):
        sentence = f"Not audited: the audit beside this report {another}, so it says nothing here. Audit again."
        return AuditFinding(status="not audited", sentence=sentence)
    measured = (
        f"{audit.canaries} canaries through the real engine: at least epsilon {number(audit.strict_epsilon)} by the "
        f"strict one-run bound (95% confidence), about {number(audit.gdp_epsilon)} by the Gaussian estimate "
        f"(mu {number(audit.gdp_mu)}), against the claimed {number(audit.claimed_epsilon)} at delta "
        f"{number(audit.delta)}."
    )
    if failed := _audit_failures(facts, audit):
        return AuditFinding(status="failed", sentence=f"{measured} FAILED: {', '.join(failed)}.")
    return AuditFinding(status="passed", sentence=f"{measured} All {audit.checks} checks of the engine passed.")


def _audited_another(facts: Facts, audit: AuditFacts) -> str:
    """In what the audit was of something else than this report; nothing when it was of the same."""
    policy = facts.policy
    plans = {facts.digests.get("plan")} if facts.plan else {g.plan for one in facts.ledgers for g in one.groups}
    allowed = policy.allowed_bases if policy is not None else ()
    bases = {facts.digests["base"]} if "base" in facts.digests else set(allowed)
    if audit.plan not in plans:
        return "is of another plan"
    if audit.base is None or audit.code is None:
        return "does not name the base and the code that it attacked"
    if audit.base not in bases:
        return "is of another base"
    if policy is None or audit.code not in policy.allowed_code:
        return f"is of code {audit.code[:12]}, which the policy does not allow"
    return ""


def _audit_failures(facts: Facts, audit: AuditFacts) -> tuple[str, ...]:
    """Everything against the claim: named checks, a lower bound above it, or a claim that is not the plan's."""
    claimed, planned = audit.claimed_epsilon, (facts.plan or {}).get("epsilon")
    against = {
        "a lower bound exceeds the claim": max(audit.strict_epsilon, audit.gdp_epsilon) > claimed,
        "the claim is not the plan's": planned is not None and claimed != round_up(float(planned)),
        "no check was made": audit.checks == 0,
        "its own verdict": not audit.passed and not audit.failed_checks,
    }
    return (*audit.failed_checks, *(reason for reason, holds in against.items() if holds))


def not_covered(facts: Facts) -> tuple[str, ...]:
    """What a reader might take to be promised and is not."""
    is_local = trust.model_of(facts) == LOCAL
    what = "what would leave a client" if is_local else "what would be published"
    several = "each spends on its own" if is_local else "one noise covers all of their parts in a sum"
    simulation = (
        "This run is a simulation: one machine holds every client's data, so whoever runs it sees it all; "
        f"only {what} is protected.",
    )
    return (
        *(simulation if facts.source == "run" else ()),
        f"A person at several clients: {several}; the table of several clients says how it adds up.",
        "What a client shows its own customers from its own data: neither clipped nor noised, and never sent.",
        "That a client took part, when, and how long it took; network metadata and other side channels.",
        "Code that a server ships or an intruder replaces: a policy names the code that may run, and only an honest "
        "machine checks it.",
        "The security of the client's machine, its keys and its backups, and how the data was collected.",
        "People whose data the public base or the public panel was made from, and the catalogue.",
        "The choice of settings by looking at private people's results: no ledger sees it.",
        "Floating point: the noise is continuous; attacks on its last bits are made hard, not impossible.",
        "What can be inferred about someone from everyone else: differential privacy hides a person's part, not facts "
        "about people in general.",
    )
