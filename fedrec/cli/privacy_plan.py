"""``fedrec privacy plan``: what a promise costs, before anything is run."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.cli.simulate import Trust
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
  fedrec privacy plan --people 75 --clients 50 --trust distributed
      what counting pairs and training the adapter can each expect, and who gets how much
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
    "partition.clients": "--clients",
    "privacy.trust": "--trust",
}


class Clipping(StrEnum):
    """How one person's gradient is shortened."""

    FLAT = "flat"
    AUTO_S = "auto-s"


class Extras(NamedTuple):
    """What is asked for beside the settings of a run."""

    caps: tuple[int | None, int | None]
    metric_releases: int
    compare: bool
    clients: int | None
    base: Path | None
    plot: Path | None


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
    clients: Annotated[int | None, typer.Option(help="clients that are summed: also split the budget")] = None,
    trust: Annotated[
        Trust | None, typer.Option(help="whom the guarantee relies on [local]; goes with --clients")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="base to split by [figures of the bundled set]")] = None,
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
        "partition.clients": clients,
        "privacy.trust": trust and trust.value,
    }
    extras = Extras((batch_cap, max_people), metric_releases, compare_sampling_rates, clients, base, plot)
    check_extras(extras, trust=trust, metric_noise_multiplier=metric_noise_multiplier)
    _show(_forecast(resolve_plan_settings(flags), extras), plot=plot, as_json=as_json)


def resolve_plan_settings(flags: dict[str, Any]) -> Config:
    """Join the defaults of the configuration with the flags that were given.

    Args:
        flags: value or None by dotted name, names as in ``FLAGS``.

    Raises:
        ConfigError: a value out of range; names the flag.
    """
    values: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            values.setdefault(section, {})[key] = value
    try:
        return parse_config(values, source="plan")
    except ConfigError as error:
        text = str(error).removeprefix("plan: ")
        name = text.partition("=")[0]
        raise ConfigError(text.replace(name, FLAGS.get(name, name), 1)) from None


def check_extras(extras: Extras, *, trust: Trust | None, metric_noise_multiplier: float | None) -> None:
    """Caps go together, noise only for releases that there are, and a split only where it is known who is summed.

    Raises:
        ConfigError: one without its partner, or out of range; names the flag.
    """
    for flag, value in zip(("--batch-cap", "--max-people"), extras.caps, strict=True):
        if value is not None and value < 1:
            raise ConfigError(f"{flag}={value}: expected a whole number >= 1")
    if extras.caps.count(None) == 1:
        raise ConfigError("--batch-cap and --max-people: expected both or neither")
    if extras.metric_releases < 0:
        raise ConfigError(f"--metric-releases={extras.metric_releases}: expected a whole number >= 0")
    if metric_noise_multiplier is not None and extras.metric_releases == 0:
        raise ConfigError("--metric-noise-multiplier: expected --metric-releases with it")
    for flag, given in (("--trust", trust), ("--base", extras.base)):
        if given is not None and extras.clients is None:
            raise ConfigError(f"{flag}: expected --clients with it, how many are summed")


def _forecast(settings: Config, extras: Extras) -> dict[str, Any]:
    """Calibrate, split, forecast and draw; imported here because ``--help`` needs none of it."""
    from fedrec.privacy.forecast import forecast
    from fedrec.privacy.plan import PrivacyPlan
    from fedrec.splitting import split_of, with_release

    privacy, federation = settings.privacy, settings.federation
    if extras.plot is not None:
        from fedrec.report.plan_chart import check_plot_path, draw_plan

        check_plot_path(extras.plot)
    plan = PrivacyPlan.calibrate(
        privacy.epsilon,
        privacy.delta,
        sampling_rate=privacy.sampling_rate,
        rounds=federation.rounds,
        local_steps=federation.local_steps,
        clip_norm=privacy.clip_norm,
        clipping=privacy.clipping,
        expected_people=privacy.expected_people or 1,
        batch_cap=extras.caps[0],
        max_people=extras.caps[1],
        metric_releases=extras.metric_releases,
        metric_noise_multiplier=privacy.metric_noise_multiplier if extras.metric_releases else None,
        trust=privacy.trust,
        noise_sharers=settings.clients_per_round if privacy.trust == Trust.DISTRIBUTED else 1,
    )
    split = None
    if extras.clients is not None:
        split = split_of(settings, plan, base=extras.base, clients=extras.clients)
        plan = with_release(plan, split)
    found = forecast(plan, compare_sampling_rates=extras.compare, split=split)
    if extras.plot is not None:
        draw_plan(found, extras.plot)
    return found


def _show(found: dict[str, Any], *, plot: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from fedrec.report.plan_terminal import print_forecast

    print_forecast(found)
    if plot is not None:
        typer.echo(f"\nDrawn: {plot}")
