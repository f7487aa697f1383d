"""What a run folder says of itself: ``summary.json`` and the facts behind the report."""

import json
import platform
import resource
import shlex
import statistics
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fedrec import __version__
from fedrec.agreement import Agreement
from fedrec.config import Config
from fedrec.evaluation.fairness import gains, gains_by_size
from fedrec.evaluation.protocol import COLD, Evaluation, paired_difference
from fedrec.model.pairs import PublicPairs
from fedrec.privacy.accounting import round_up
from fedrec.privacy.trust import CENTRAL, DISTRIBUTED, LOCAL
from fedrec.report.inputs import METRICS
from fedrec.runfolder import SPLIT, STATISTICS
from fedrec.workspace import ledger_of, was_asked
from server.strategy import ServerState
from simulations.compare import Results
from simulations.prepare import People

LIBRARIES = ("torch", "flwr", "opacus", "transformers", "peft", "dp-accounting", "numpy", "polars")
PERSON_AT = (1, 2, 3, 5, 10)
LIMITS = (
    "A simulation runs every client in one process: it shows what a federation would do and protects nobody by itself.",
    "The guarantee covers {released}, not what a merchant shows to its own customers.",
    "Epsilon is per client: someone who is a customer of several merchants is protected less, as the table says.",
    "The panel is treated as public data: its people have no guarantee.",
    "Timing, network metadata and the security of each client's machine are not covered.",
    "Noise is continuous and floating-point; attacks on its last bits are made hard, not impossible.",
)
_SUMS = "the sums that are published, not the update of a single client"
_RELEASED = {LOCAL: "the updates that leave a client", DISTRIBUTED: _SUMS, CENTRAL: _SUMS}


def summarise(
    config: Config, run: Path, agreement: Agreement, state: ServerState, results: Results, *, pretrain_s: float
) -> dict:
    """Return the content of ``summary.json``; the schema is ``fedrec.report.inputs.Summary``."""
    records = state.records
    round_s = [record.seconds for record in records]
    admitted = sum(record.admitted for record in records)
    evaluation_s = results.seconds
    return {
        "clients": config.partition.clients,
        "rounds": state.round_index,
        "engine": config.federation.engine,
        "adapter": {
            "kind": agreement.ranker_adapter.kind,
            "rank": agreement.ranker_adapter.rank,
            "trainable_parameters": results.trainable_parameters,
        },
        "privacy": _privacy(config, run, agreement, state),
        "metrics": _table(results.rows),
        "cold_people": results.rows["federated"].cold_people,
        "fairness": _fairness(results.rows),
        "held_out": _held_out(results.held_out),
        "timing": {
            "total_s": round(pretrain_s + sum(round_s) + evaluation_s, 3),
            "pretrain_s": pretrain_s,
            "round_median_s": statistics.median(round_s),
            "updates_per_s": round(admitted / max(sum(round_s), 1e-9), 3),
        },
        "peak_rss_mb": round(_peak_rss_mb(), 1),
        "bytes_up_per_client_round": round(sum(record.bytes_up for record in records) / max(admitted, 1), 1),
        "seed": config.seed,
        "versions": {"fedrec": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    }


def report_context(
    config: Config, run: Path, people: People, agreement: Agreement, state: ServerState, results: Results
) -> dict:
    """Return what the report shows beside the summary; the schema is ``fedrec.report.inputs.Context``."""
    plan, rows, partition = agreement.plan, results.rows, people.partition
    epsilons = _client_epsilons(run, agreement, clients=len(partition.clients))
    alone, together = (_client_column(rows[name]) for name in ("local_only", "federated"))
    return {
        "statement": plan.statement(),
        "federated_vs_local_only": _comparison(rows["local_only"], rows["federated"]),
        "shared_vs_base": _comparison(rows["base"], rows["shared"]),
        "published_round": state.best_round,
        "counted": _counted(run, state),
        "split": _split(run),
        "clients": [
            {
                "name": name,
                "people": len(partition.clients[i]),
                "epsilon": epsilons[i],
                "local_only": alone[i],
                "federated": together[i],
            }
            for i, name in enumerate(partition.names)
        ],
        "epsilon_for_person_at": {
            k: round_up(epsilon) for k in PERSON_AT if (epsilon := plan.epsilon_for_person_at(k)) is not None
        },
        "data": {
            "source": str(config.data.events or "UCI Online Retail (bundled)"),
            "people": len(people.split.train),
            "items": len(people.catalogue),
            "events": people.events,
            "panel_people": len(partition.panel),
            "client_people": len(people.private),
            "split": config.data.split,
            "rules": [
                {"rule": rule.rule, "description": rule.description, "dropped": rule.dropped, "kept": rule.kept}
                for rule in people.rules
            ],
        },
        "limits": [limit.format(released=_RELEASED[plan.trust]) for limit in LIMITS],
        "command": shlex.join(["fedrec", "simulate", "--config", "config.toml", "--out", "NEW_FOLDER"]),
        "config": config.model_dump(mode="json", exclude_none=True),
    }


def _split(run: Path) -> dict[str, str] | None:
    """What each part was given of the budget, as it was noted; None without privacy."""
    if not (run / SPLIT).exists():
        return None
    parts = json.loads((run / SPLIT).read_text(encoding="utf-8"))["parts"]
    return {part["part"]: part["verdict"] for part in parts}


def _counted(run: Path, state: ServerState) -> dict | None:
    if state.counts is None:
        return None
    pairs = PublicPairs.load(run, file=STATISTICS)
    return {
        "clients": state.counts.replies,
        "numbers": state.counts.totals.size,
        "candidates": len(PublicPairs.load(run / "base")),
        "pairs": len(pairs),
        "noise_std": state.counts.noise_std,
        "weight": pairs.spec.weight,
    }


def _privacy(config: Config, run: Path, agreement: Agreement, state: ServerState) -> dict | None:
    plan = agreement.plan
    if not plan.private:
        return None
    steps = state.round_index * plan.local_steps
    spent = [value for value in _client_epsilons(run, agreement, clients=config.partition.clients) if value is not None]
    return {
        "epsilon": plan.epsilon_after(
            steps,
            metric_releases=agreement.metric_releases_by(state.round_index),
            statistics=agreement.statistics is not None,
        ),
        "delta": plan.delta,
        "unit": plan.unit,
        "relation": plan.relation,
        "accountant": plan.accountant,
        "trust": plan.trust,
        "noise_multiplier": plan.noise_multiplier,
        "clip_norm": plan.clip_norm,
        "sampling_rate": plan.sampling_rate,
        "steps": steps,
        "per_client_epsilon": {"min": min(spent), "median": statistics.median(spent), "max": max(spent)},
    }


def _client_epsilons(run: Path, agreement: Agreement, *, clients: int) -> list[float | None]:
    """Read what each client's own ledger says, 0 for who was never asked; None for each without privacy."""
    if not agreement.plan.private:
        return [None] * clients
    return [
        ledger_of(run, partition, agreement.plan).spent() if was_asked(run, partition) else 0.0
        for partition in range(clients)
    ]


def _table(rows: dict[str, Evaluation]) -> dict[str, dict[str, float]]:
    means = {name: row.means() for name, row in rows.items()}
    return {name: {column: row[column] for column in (*METRICS, COLD) if column in row} for name, row in means.items()}


def _fairness(rows: dict[str, Evaluation]) -> dict:
    """What the federated ranker gives to which merchants."""
    federated = rows["federated"]
    over_alone, over_base = (
        federated.client_means("ndcg@10") - rows[name].client_means("ndcg@10") for name in ("local_only", "base")
    )
    sizes = np.array([len(client) for client in federated.clients])
    return {
        "over_local_only": gains(over_alone),
        "over_base": gains(over_base),
        "by_size": gains_by_size(over_alone, sizes),
    }


def _held_out(rows: dict[str, Evaluation]) -> dict | None:
    """What merchants that took no part have of it; None where all did."""
    if not rows:
        return None
    federated = rows["federated"]
    return {
        "merchants": len(federated.clients),
        "people": sum(len(client) for client in federated.clients),
        "metrics": _table(rows),
        "federated_vs_local_only": _comparison(rows["local_only"], federated),
        "federated_vs_base": _comparison(rows["base"], federated),
    }


def _client_column(row: Evaluation) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row.client_means("ndcg@10")]


def _comparison(first: Evaluation, second: Evaluation) -> dict:
    difference, error = paired_difference(first.per_person["ndcg@10"], second.per_person["ndcg@10"])
    return {
        "difference": difference,
        "standard_error": None if np.isnan(error) else error,
        "people": len(first.people),
    }


def _peak_rss_mb() -> float:
    """Largest resident memory of this process, or of one of its finished children."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 1024
