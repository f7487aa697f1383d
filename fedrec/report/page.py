"""Write ``report.html`` and ``report.json``: one self-contained page, and the same facts for tools."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedrec.evaluation.protocol import COLD
from fedrec.report import charts, words
from fedrec.report.inputs import Context, Gains, Round, Summary, check_inputs
from fedrec.runfolder import write_text

TEMPLATES = Path(__file__).resolve().parent / "templates"
HTML_NAME, JSON_NAME = "report.html", "report.json"


def build_report(summary: dict, rounds: list[dict], context: dict, *, folder: Path) -> tuple[Path, Path]:
    """Check the inputs and write both files into ``folder``, each atomically.

    Args:
        summary: the content of ``summary.json``; schema in ``report.inputs.Summary``.
        rounds: the lines of ``events.jsonl`` in order; ``report.inputs.Round``.
        context: statement, comparisons, clients, data, limits, command, config; ``report.inputs.Context``.
        folder: the run folder; must exist.

    Returns:
        The paths of ``report.html`` and ``report.json``.

    Raises:
        RunError: an input does not fit its schema, or the folder cannot be written.
    """
    checked = check_inputs(summary, rounds, context)
    page, document = render_html(*checked), render_json(*checked)
    paths = folder / HTML_NAME, folder / JSON_NAME
    for path, text in zip(paths, (page, document), strict=True):
        write_text(path, text)
    return paths


def render_json(summary: Summary, rounds: list[Round], context: Context) -> str:
    """The report for tools: verdict, stamp and every input, as one JSON document."""
    verdict = words.verdict(summary, context)
    document = {
        "stamp": words.STAMP if summary.privacy is None else None,
        "verdict": {"outcome": verdict.outcome, "headline": verdict.headline, "sentences": list(verdict.sentences)},
        "summary": summary.model_dump(mode="json"),
        "rounds": [line.model_dump(mode="json", by_alias=True) for line in rounds],
        "context": context.model_dump(mode="json"),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def render_html(summary: Summary, rounds: list[Round], context: Context) -> str:
    """The report for people. No script, no outside request; everything from the data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ceiling": words.ceiling,
        "difference": words.difference,
        "metric": words.metric,
        "scientific": words.scientific,
    }
    return environment.get_template("report.html.j2").render(
        summary=summary,
        rounds=rounds,
        context=context,
        verdict=words.verdict(summary, context),
        stamp=words.STAMP if summary.privacy is None else "",
        guarantee=words.guarantee(summary),
        table=words.table(summary),
        columns=words.COLUMNS,
        figures=_figures(summary, rounds, context),
        clients=_clients_by_gain(context),
        shares=_shares(summary),
        new_products=words.new_products(summary),
        new_merchants=words.new_merchants(summary),
        new_rows=_new_rows(summary),
        troubled=[line for line in rounds if line.void or line.quarantined],
        config_text=_config_text(context.config),
    )


def _figures(summary: Summary, rounds: list[Round], context: Context) -> dict[str, dict[str, str]]:
    """Every picture with the sentence that stands for it; a picture without data is left out."""
    figures: dict[str, dict[str, str]] = {}
    measured = [(line.round, line.panel_ndcg) for line in rounds if line.panel_ndcg is not None]
    if measured:
        figures["quality"] = {
            "svg": charts.quality_curve(rounds, published_round=context.published_round),
            "text": words.quality_caption(measured, context.published_round),
        }
    spent = [(line.round, line.epsilon_spent) for line in rounds if line.epsilon_spent is not None]
    if spent and summary.privacy is not None:
        budget = words.budget(summary.privacy, context)
        figures["epsilon"] = {
            "svg": charts.epsilon_curve(rounds, budget=budget),
            "text": words.epsilon_caption(spent, budget),
        }
    pairs = [
        (c.local_only, c.federated) for c in context.clients if c.local_only is not None and c.federated is not None
    ]
    if pairs:
        figures["merchants"] = {
            "svg": charts.merchants_plot(context.clients, name="merchants", is_wide=True),
            "narrow": charts.merchants_plot(context.clients, name="merchants-narrow", is_wide=False),
            "text": words.merchants_caption(pairs),
        }
    sizes = [client.people for client in context.clients]
    if pairs and max(sizes) >= 2 * min(sizes):  # of merchants all alike in size there is nothing to see
        figures["gains"] = {
            "svg": charts.gains_plot(context.clients, name="gains", is_wide=True),
            "narrow": charts.gains_plot(context.clients, name="gains-narrow", is_wide=False),
            "text": words.gains_caption([(g.people_min, g.people_max, g.mean) for g in summary.fairness.by_size]),
        }
    return figures


def _shares(summary: Summary) -> list[tuple[str, Gains]]:
    """Who gains, in the rows of a table: all merchants, then those of like size."""
    fairness = summary.fairness
    sizes = [(f"Over being alone, {group.people_min:,} to {group.people_max:,} people", group)
             for group in fairness.by_size]  # fmt: skip
    return [
        ("Over the public base", fairness.over_base),
        ("Over being alone", fairness.over_local_only),
        *(sizes if len(sizes) > 1 else []),
    ]


def _new_rows(summary: Summary) -> list[dict[str, Any]]:
    """How well each ranker does on products nobody had taken, and at merchants that took no part."""
    apart = summary.held_out.metrics if summary.held_out else {}
    keys = [key for key in words.DEPLOYABLE if COLD in summary.metrics[key] or key in apart]
    return [
        {"key": key, "label": words.DEPLOYABLE[key][0], "cold": summary.metrics[key].get(COLD), **apart.get(key, {})}
        for key in keys
    ]


def _clients_by_gain(context: Context) -> list[dict[str, Any]]:
    """Clients with what federation changed for them, most helped first, unmeasured last."""
    rows: list[dict[str, Any]] = []
    for client in context.clients:
        is_measured = client.local_only is not None and client.federated is not None
        gain = client.federated - client.local_only if is_measured else None  # type: ignore[operator]
        rows.append({**client.model_dump(), "gain": gain})
    return sorted(rows, key=lambda row: (row["gain"] is None, -(row["gain"] or 0.0)))


def _config_text(config: dict[str, Any], prefix: str = "") -> str:
    """``section.key = value`` lines, nested sections flattened."""
    lines = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            lines.append(_config_text(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {json.dumps(value, default=str, ensure_ascii=False)}")
    return "\n".join(lines)
