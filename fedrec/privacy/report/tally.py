"""Add up a ledger's lines: alike charges become one group, and where the ledger stood on the way."""

from collections.abc import Sequence

from pydantic import ValidationError

from fedrec.errors import PrivacyError
from fedrec.privacy.ledger import Entry, State
from fedrec.privacy.report.document import Group, LedgerFacts, Point

_POINTS = 12  # each costs an epsilon of its own


def ledger_facts(entries: Sequence[Entry], *, name: str) -> LedgerFacts:
    """Sum up verified entries, oldest first; groups come in the order of their first charge."""
    charges = _charges(entries)
    released = {entry.round_id for entry in entries if entry.state == State.RELEASED}
    settled = {entry.round_id for entry in entries if entry.state == State.SETTLED}
    charged = {entry.round_id: entry.steps for entry in entries if entry.state == State.RESERVED}
    members: dict[tuple[object, ...], list[Entry]] = {}
    for charge in charges:
        members.setdefault(_likeness(charge), []).append(charge)
    groups = tuple(_group(alike, released, settled, charged) for alike in members.values())
    policies = tuple(reversed(dict.fromkeys(entry.policy for entry in reversed(entries) if entry.policy)))
    return LedgerFacts(name=name, head=entries[-1].mac, entries=len(entries), policies=policies, groups=groups)


def timeline(entries: Sequence[Entry], ledger: LedgerFacts) -> tuple[Point, ...]:
    """Steps of each group after each charge, or after the first and at most 12 evenly spaced ones.

    A settled charge counts what remained of it from the start.
    """
    charges = _charges(entries)
    place: dict[tuple[object, ...], int] = {}
    for charge in charges:
        place.setdefault(_likeness(charge), len(place))
    shown = {1} | {-(-len(charges) * n // _POINTS) for n in range(1, _POINTS + 1)}
    steps, points = [0] * len(ledger.groups), []
    for count, charge in enumerate(charges, start=1):
        steps[place[_likeness(charge)]] += charge.steps
        if count in shown:
            points.append(Point(charges=count, steps=tuple(steps)))
    return tuple(points)


def _charges(entries: Sequence[Entry]) -> list[Entry]:
    """Every charge once, in order, with the steps that count."""
    settled = {entry.round_id: entry.steps for entry in entries if entry.state == State.SETTLED}
    reserved = [entry for entry in entries if entry.state == State.RESERVED]
    return [entry._replace(steps=settled.get(entry.round_id, entry.steps)) for entry in reserved]


def _likeness(entry: Entry) -> tuple[object, ...]:
    """What charges of one group share."""
    mechanism = (entry.noise_multiplier, entry.sampling_rate, entry.batch_cap, entry.max_people, entry.clip_norm)
    return (entry.run, entry.plan, entry.kind, *mechanism, entry.accountant)


def _group(alike: list[Entry], released: set[str], settled: set[str], charged: dict[str, int]) -> Group:
    one = alike[0]
    values = {
        "run": one.run,
        "plan": one.plan,
        "kind": one.kind,
        "noise_multiplier": one.noise_multiplier,
        "sampling_rate": one.sampling_rate,
        "batch_cap": one.batch_cap,
        "max_people": one.max_people,
        "clip_norm": one.clip_norm,
        "accountant": one.accountant,
        "charges": len(alike),
        "released": sum(entry.round_id in released for entry in alike),
        "settled": sum(entry.round_id in settled for entry in alike),
        "charged_steps": sum(charged[entry.round_id] for entry in alike),
        "steps": sum(entry.steps for entry in alike),
    }
    try:
        return Group.model_validate(values)
    except ValidationError as error:  # more than a report may state
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PrivacyError(f"charges of run {one.run}: {where}: {first['msg']}; no report can state it") from None
