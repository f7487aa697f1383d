"""How a server and its federation are doing: from its private port, SuperLink, the registry and the run folder."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from fedrec.runfolder import read_events
from server.enrolment import enrolled
from server.gateway_settings import PRIVATE_HOST
from server.settings import ServerSettings

_ANSWER_S = 3.0
_OURS = "fedrec_gateway_"


@dataclass(frozen=True)
class Traffic:
    """What went through the gateway since it started.

    Attributes:
        requests: answered.
        refused: requests and connections refused, by reason.
        bytes_in: of bodies from clients.
        bytes_out: of bodies to clients.
    """

    requests: int
    refused: dict[str, int]
    bytes_in: int
    bytes_out: int


def traffic(settings: ServerSettings) -> Traffic | None:
    """Read the gateway's counters; None when no gateway answers."""
    url = f"http://{PRIVATE_HOST}:{settings.private_port}/metrics"
    try:
        page = httpx.get(url, timeout=_ANSWER_S, trust_env=False).raise_for_status().text
        families = [one for one in text_string_to_metric_families(page) if one.name.startswith(_OURS)]
    except (httpx.HTTPError, ValueError):
        return None
    if not families:  # another program has the port
        return None
    requests, refused, moved = 0, Counter[str](), Counter[str]()
    for family in families:
        for sample in family.samples:
            if sample.name == "fedrec_gateway_requests_total":
                requests += int(sample.value)
            elif sample.name == "fedrec_gateway_refused_total":
                refused[sample.labels["reason"]] += int(sample.value)
            elif sample.name == "fedrec_gateway_bytes_total":
                moved[sample.labels["direction"]] += int(sample.value)
    return Traffic(requests, dict(refused), moved["in"], moved["out"])


def federation_facts(path: Path) -> dict[str, Any]:
    """Where a federation folder stands, as plain values.

    Raises:
        RunError: it is not a prepared run folder, or damaged.
    """
    from fedrec.agreement import read_agreement  # torch comes with it: not for who asks about the server alone

    plan = read_agreement(path).plan
    rounds = read_events(path, growing=True)
    reasons = Counter[str]()
    for line in rounds:
        reasons.update(line["reasons"])
    last = rounds[-1] if rounds else None
    return {
        "folder": str(path),
        "rounds": len(rounds),
        "planned_rounds": plan.rounds,
        "void_rounds": sum(line["void"] for line in rounds),
        "admitted": sum(line["admitted"] for line in rounds),
        "quarantined": dict(sorted(reasons.items())),
        "bytes_up": sum(line["bytes_up"] for line in rounds),
        "epsilon_spent": last["epsilon_spent"] if last else (0.0 if plan.private else None),
        "guarantee": plan.statement(),
        "last_round": last,
    }


def status_facts(settings: ServerSettings, federation: Path | None) -> dict[str, Any]:
    """Everything ``fedrec status`` shows, as plain values.

    Raises:
        RunError: the list of clients or the federation folder cannot be read.
    """
    moved = traffic(settings)
    return {
        "address": f"{settings.host}:{settings.port}",
        "gateway": "down" if moved is None else "up",
        "superlink": "up" if settings.loopback.is_up() else "down",
        "traffic": None if moved is None else vars(moved),
        "clients": [one.to_dict() for one in enrolled(settings, now=datetime.now(UTC))],
        "federation": federation_facts(federation) if federation is not None else None,
    }
