"""Facts of reports made by hand, and reports signed from them."""

from fedrec.privacy.report.document import FORMAT, Facts, Group, LedgerFacts, Point, PrivacyReport, Signed
from fedrec.privacy.report.findings import findings_of


def group_of(plan, *, charges, run="run-1", kind="training", **changes):
    values = {
        "run": run,
        "plan": plan.digest(),
        "kind": kind,
        "noise_multiplier": plan.noise_multiplier,
        "sampling_rate": plan.sampling_rate,
        "batch_cap": None,
        "max_people": None,
        "clip_norm": plan.clip_norm,
        "accountant": plan.accountant,
        "charges": charges,
        "released": charges,
        "settled": 0,
        "charged_steps": charges * plan.local_steps,
        "steps": charges * plan.local_steps,
    }
    return Group(**(values | changes))


def facts_of(plan, policy, *ledgers, source="run", **changes):
    """Facts about ledgers, given as (name, groups), the one that has spent most first."""
    parts = tuple(
        LedgerFacts(
            name=name,
            head=f"{at:064x}",
            entries=1 + 2 * sum(g.charges for g in groups),
            policies=(policy.digest(),) if policy else (),
            groups=tuple(groups),
        )
        for at, (name, groups) in enumerate(ledgers)
    )
    values = {
        "source": source,
        "name": "run-1",
        "made_at": "2026-01-02T03:04:05Z",
        "private": policy is not None,
        "delta": policy.max_delta if policy else None,
        "plan": plan.to_dict() if source == "run" else None,
        "policy": policy,
        "ledgers": parts,
        "timeline_of": parts[0].name,
        "timeline": _timeline(parts[0].groups) if policy else (),
        "audit": None,
        "digests": {"plan": plan.digest(), "code that wrote this report": "e" * 64}
        | ({"policy": policy.digest()} if policy else {}),
        "versions": {"fedrec": "0.1.0"},
    }
    return Facts(**(values | changes))


def _timeline(groups):
    """A point after the first group's charges, and one at the end."""
    points, steps = [], [0] * len(groups)
    for place, group in enumerate(groups):
        steps[place] = group.steps
        points.append(Point(charges=sum(g.charges for g in groups[: place + 1]), steps=tuple(steps)))
    return tuple(points)


def sign(facts, key, findings=None):
    report = PrivacyReport(format=FORMAT, facts=facts, findings=findings or findings_of(facts))
    return Signed.sign(report, key)
