"""``fedrec clicks``: a head that says how likely an impression is clicked, learned by many clients."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.asking import AsJson
from fedrec.cli.errors import one_line_errors
from fedrec.cli.simulate import Trust
from fedrec.config_clicks import ClicksConfig
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from fedrec.data.click_table import ClickTable
    from simulations.clicks import Trained

EXAMPLES = """Examples:

\b
  fedrec clicks simulate shown.csv --number price --number score --category device,brand --out runs/clicks
      eight clients learn from their own people's impressions; a fifth of the people are kept to measure on
  fedrec clicks simulate shown.parquet --number hour --category device --out runs/clicks --epsilon 3 --json
      a smaller budget; figures for a program
  fedrec clicks simulate shown.csv --number price --category device --out runs/bare --no-dp
      the same steps without noise, stamped NOT PRIVATE

The file has a row an impression: user_id, clicked (0 or 1), and a column a field. See docs/clicks.md for the figures.
"""
DEFAULTS = ClicksConfig()
HELD_OUT = 0.2  # of the people, to measure on
HEAD, SUMMARY = "clicks.safetensors", "summary.json"

clicks_app = typer.Typer(help="How likely an impression is clicked.", no_args_is_help=True)


@clicks_app.command("simulate", epilog=EXAMPLES)
@one_line_errors
def simulate_clicks_command(
    impressions: Annotated[Path, typer.Argument(help="CSV or Parquet, a row an impression", metavar="IMPRESSIONS")],
    out: Annotated[Path, typer.Option(help="folder to make")],
    number: Annotated[list[str] | None, typer.Option(help="columns that hold numbers: A,B; repeatable")] = None,
    category: Annotated[list[str] | None, typer.Option(help="columns that hold words: A,B; repeatable")] = None,
    clients: Annotated[int, typer.Option(min=1, help="merchants to deal the people out to")] = 8,
    epsilon: Annotated[float, typer.Option(help="budget of one person at one client")] = DEFAULTS.epsilon,
    delta: Annotated[float, typer.Option(help="failure probability of the guarantee")] = DEFAULTS.delta,
    no_dp: Annotated[bool, typer.Option("--no-dp", help="no privacy: stamps the head NOT PRIVATE")] = False,
    trust: Annotated[Trust, typer.Option(help="local, or distributed: whom the guarantee relies on")] = Trust.LOCAL,
    rounds: Annotated[int, typer.Option(help="rounds of the federation")] = DEFAULTS.rounds,
    seed: Annotated[int, typer.Option(min=0, help="who is public, kept to measure, and where; never noise")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let the clients of a simulated federation learn to predict clicks, and measure the head on other people."""
    config = ClicksConfig.of_flags(epsilon=epsilon, delta=delta, trust=trust.value, rounds=rounds)
    make_app_importable()
    from fedrec.data.click_table import read_click_table
    from fedrec.quiet import silence
    from fedrec.runfolder import write_json

    silence()
    fields = {"numbers": _names(number), "categories": _names(category)}
    if not any(fields.values()):
        raise ConfigError("--number, --category: expected a column to predict from, at least one")
    table = read_click_table(impressions, **fields)
    from simulations.clicks import kept_apart, part, train_clicks

    kept, others = kept_apart(table, share=HELD_OUT, seed=seed)
    parted = part(others, config, **fields, clients=clients, seed=seed)
    trained = train_clicks(parted, config, private=not no_dp, folder=out, seed=seed)
    statement = trained.plan.statement()
    trained.head.save(out / HEAD, about={"privacy": statement})
    summary = {"head": str(out / HEAD), "clients": clients, "rounds": rounds, "privacy": statement}
    summary |= _measures(trained, kept)
    write_json(out / SUMMARY, summary)
    typer.echo(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else _told(summary))


def _names(values: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for value in values or [] for name in value.split(",") if name.strip())


def _measures(trained: "Trained", kept: "ClickTable") -> dict[str, Any]:
    """On people whom nothing has learned from."""
    import numpy as np

    from fedrec.evaluation.calibration import area_under_curve, error_by_chance, log_loss, reliability

    held_out = kept.read(trained.head.spec)
    said, clicked = trained.head.probabilities(held_out.slots), held_out.clicked
    found = reliability(said, clicked)
    return {
        "impressions_measured": len(clicked),
        "auc": area_under_curve(said, clicked),
        "log_loss": log_loss(said, clicked),
        "calibration_error": found.error,
        "calibration_error_by_chance": error_by_chance(said, rng=np.random.default_rng(0)),
        "reliability": [
            {"impressions": int(count), "said": float(mean), "clicked": float(rate)}
            for count, mean, rate in zip(found.count, found.said, found.came_true, strict=True)
        ],
    }


def _told(summary: dict[str, Any]) -> str:
    """The same for a person to read."""
    lines = [
        f"{summary['head']}: AUC {summary['auc']:.3f}, log loss {summary['log_loss']:.4f}, on "
        f"{summary['impressions_measured']} impressions of other people",
        f"calibration error {summary['calibration_error']:.3f}; an exact head would have about "
        f"{summary['calibration_error_by_chance']:.3f} on so many",
        "",
        "  said   clicked  impressions",
        *(f"  {row['said']:.3f}  {row['clicked']:.3f}    {row['impressions']}" for row in summary["reliability"]),
        "",
        summary["privacy"],
    ]
    return "\n".join(lines)
