"""What ``fedrec privacy ledger`` prints for people: numbers as they are, never rounded towards less."""

import json
from pathlib import Path
from typing import Any

_SHOWN = 10


def line_of(facts: dict[str, Any]) -> str:
    """One ledger of a run."""
    return f"{Path(facts['ledger']).stem}: {facts['charged']} charges; {spent_of(facts)}"


def page_of(facts: dict[str, Any]) -> str:
    """One ledger for people: the statement, the mechanisms, the newest lines."""
    limit = "" if facts["max_epsilon"] is not None else "  (no policy given: nothing says how much is allowed)"
    signed = f"entry {facts['countersigned']}" if facts["countersigned"] else "none yet"
    lines = [
        f"spent          {spent_of(facts)}{limit}",
        f"data set       {facts['dataset']}",
        f"charges        {facts['charged']}, of which released {facts['released']}, settled {facts['settled']}",
        f"head           {facts['head']}",
        f"countersigned  {signed}",
    ]
    for spending in facts["spendings"]:
        cap = f", at most {spending['batch_cap']} of {spending['max_people']} people" if spending["batch_cap"] else ""
        noise, rate = _number(spending["noise_multiplier"]), _number(spending["sampling_rate"])
        lines.append(f"mechanism      {spending['steps']} steps, noise multiplier {noise}, sampling rate {rate}{cap}")
    newest = facts["entries"][1:][-_SHOWN:]
    if len(newest) < len(facts["entries"]) - 1:
        lines.append(f"newest {_SHOWN} of {len(facts['entries'])} entries; all with --json")
    return "\n".join([*lines, *(_row(entry) for entry in newest)])


def spent_of(facts: dict[str, Any]) -> str:
    """What one ledger has spent: the whole statement, never a bare epsilon."""
    if not facts["private"]:
        return "NOT PRIVATE: steps without noise are on record, so nothing bounds what they told"
    if facts["delta"] is None:
        return "nothing spent"
    left = f" of {_number(facts['max_epsilon'])}" if facts["max_epsilon"] is not None else ""
    at_most, fixed = "", ""
    if facts["epsilon_if_fixed"] is not None:  # a later run's numbers may rest on an earlier one's results
        at_most = "at most "
        fixed = f"; {_number(facts['epsilon_if_fixed'])} if the parameters had been fixed in advance"
    return (
        f"{at_most}epsilon {_number(facts['epsilon'])}{left} at delta {_number(facts['delta'])}, "
        f"per {facts['unit']} ({facts['relation']}), by {facts['accountant']}{fixed}"
    )


def _number(value: float) -> str:
    """All digits of it, as JSON has them; a whole number without the point."""
    return json.dumps(value).removesuffix(".0")


def _row(entry: dict[str, Any]) -> str:
    from fedrec.privacy.ledger import Kind, State

    steps = f"{entry['steps']} steps" if entry["state"] != State.RELEASED else ""
    what = f"{entry['round_id']} ({entry['kind']})" if entry["kind"] != Kind.TRAINING else entry["round_id"]
    return f"  {entry['sequence']:>6}  {entry['state']:<9} {steps:<10} {what}  {entry['reason']}".rstrip()
