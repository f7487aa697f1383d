"""``fedrec privacy plan``: what a promise costs, before anything is run."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.config import Config, parse_config
from fedrec.errors import ConfigError

PLAN_EXAMPLES = """
\b
Examples:
  fedrec privacy plan --epsilon 3 --delta 1e-6 --people 5000 --rounds 40
      the noise that keeps this promise, and what it spends by round
  fedrec privacy plan --people 5000 --compare-sampling-rates --plot plan.svg
      which sampling rate costs the least noise; a picture
  fedrec privacy plan --people 5000 --batch-cap 1500 --max-people 5500
      bounded memory: never more than 1500 people in a step
  fedrec privacy plan --people 5000 --metric-releases 10 --metric-noise-multiplier 20
      leave room for ten noised evaluations
"""
FLAGS = {
    "privacy.epsilon": "--epsilon",
    "privacy.delta": "--delta",
    "privacy.expected_people": "--people",
    "privacy.sampling_rate": "--sampling-rate",
    "privacy.clip_norm": "--clip-norm",
    "privacy.clipping": "--clipping",
    "privacy.metric_noise_multiplier": "--metric-noise-multiplier",
    "federation.rounds": "--rounds",
    "federation.local_steps": "--local-steps",
}


class Clipping(StrEnum):
    """How one person's gradient is shortened."""

    FLAT = "flat"
    AUTO_S = "auto-s"


@one_line_errors
def plan_command(
    people: Annotated[int, typer.Option(help="people expected at a client: a public number")],
    epsilon: Annotated[float | None, typer.Option(help="budget of one person at one client [8]")] = None,
    delta: Annotated[float | None, typer.Option(help="failure probability of the guarantee [1e-5]")] = None,
    rounds: Annotated[int | None, typer.Option(help="rounds of the federation [30]")] = None,
    local_steps: Annotated[int | None, typer.Option(help="private steps in a round [1]")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="chance that a person is in a step [0.25]")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="largest norm of one person's gradient [1]")] = None,
    clipping: Annotated[Clipping | None, typer.Option(help="how gradients are shortened [auto-s]")] = None,
    batch_cap: Annotated[int | None, typer.Option(help="people in a step, at most; goes with --max-people")] = None,
    max_people: Annotated[int | None, typer.Option(help="public bound on the people at any client")] = None,
    metric_releases: Annotated[int, typer.Option(help="noised evaluations to leave room for")] = 0,
    metric_noise_multiplier: Annotated[
        float | None, typer.Option(help="noise of each, in units that a person can move it [5]")
    ] = None,
    compare_sampling_rates: Annotated[
        bool, typer.Option("--compare-sampling-rates", help="also the noise at other rates, for the same promise")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="draw it into this .svg or .png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document, nothing else")] = False,
) -> None:
    """Plan a promise: the noise it needs, what it spends round by round, and what other choices would cost."""
    flags = {
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.expected_people": people,
        "privacy.sampling_rate": sampling_rate,
        "privacy.clip_norm": clip_norm,
        "privacy.clipping": clipping and clipping.value,
        "privacy.metric_noise_multiplier": metric_noise_multiplier,
        "federation.rounds": rounds,
        "federation.local_steps": local_steps,
    }
    settings = resolve_plan_settings(flags)
    check_caps(batch_cap, max_people)
    check_metric_releases(metric_releases, metric_noise_multiplier)
    found = _forecast(
        settings,
        people=people,
        caps=(batch_cap, max_people),
        metric_releases=metric_releases,
        compare=compare_sampling_rates,
        plot=plot,
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        from fedrec.report.plan_terminal import print_forecast

        print_forecast(found)
        if plot is not None:
            typer.echo(f"\nDrawn: {plot}")


def resolve_plan_settings(flags: dict[str, Any]) -> Config:
    """Join the defaults of the configuration with the flags that were given.

    Args:
        flags: value or None by dotted name, names as in ``FLAGS``.

    Raises:
        ConfigError: a value out of range; names the flag.
    """
    values: dict[str, dict[str, Any]] = {"privacy": {}, "federation": {}}
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            values[section][key] = value
    try:
        return parse_config(values, source="plan")
    except ConfigError as error:
        text = str(error).removeprefix("plan: ")
        name = text.partition("=")[0]
        raise ConfigError(text.replace(name, FLAGS.get(name, name), 1)) from None


def check_caps(batch_cap: int | None, max_people: int | None) -> None:
    """Both or neither, at least 1.

    Raises:
        ConfigError: one without its partner, or out of range; names the flag.
    """
    for flag, value in (("--batch-cap", batch_cap), ("--max-people", max_people)):
        if value is not None and value < 1:
            raise ConfigError(f"{flag}={value}: expected a whole number >= 1")
    if (batch_cap is None) != (max_people is None):
        raise ConfigError("--batch-cap and --max-people: expected both or neither")


def check_metric_releases(releases: int, noise_multiplier: float | None) -> None:
    """A count, and noise only for releases that there are.

    Raises:
        ConfigError: a negative count, or noise without releases; names the flag.
    """
    if releases < 0:
        raise ConfigError(f"--metric-releases={releases}: expected a whole number >= 0")
    if noise_multiplier is not None and releases == 0:
        raise ConfigError("--metric-noise-multiplier: expected --metric-releases with it")


def _forecast(
    settings: Config,
    *,
    people: int,
    caps: tuple[int | None, int | None],
    metric_releases: int,
    compare: bool,
    plot: Path | None,
) -> dict[str, Any]:
    """Calibrate, forecast and draw; imported here because ``--help`` needs none of it."""
    from fedrec.privacy.forecast import forecast
    from fedrec.privacy.plan import PrivacyPlan

    privacy, federation = settings.privacy, settings.federation
    if plot is not None:
        from fedrec.report.plan_chart import check_plot_path, draw_plan

        check_plot_path(plot)
    plan = PrivacyPlan.calibrate(
        privacy.epsilon,
        privacy.delta,
        sampling_rate=privacy.sampling_rate,
        rounds=federation.rounds,
        local_steps=federation.local_steps,
        clip_norm=privacy.clip_norm,
        clipping=privacy.clipping,
        expected_people=people,
        batch_cap=caps[0],
        max_people=caps[1],
        metric_releases=metric_releases,
        metric_noise_multiplier=privacy.metric_noise_multiplier if metric_releases else None,
    )
    found = forecast(plan, compare_sampling_rates=compare)
    if plot is not None:
        draw_plan(found, plot)
    return found
