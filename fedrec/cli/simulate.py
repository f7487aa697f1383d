"""``fedrec simulate``: a whole federation on this machine."""

import json
import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fedrec.cli.data import parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.config import Config, parse_config, read_toml
from fedrec.errors import ConfigError, RunError
from fedrec.newest import RUNS
from fedrec.paths import make_app_importable

EXAMPLES = """
\b
Examples:
  fedrec simulate
      fifty merchants, epsilon 8, Online Retail
  fedrec simulate --epsilon 3 --compare --out runs/eps3
      with the references that protect nobody
  fedrec simulate --out runs/eps3 --resume
      go on after a crash, each round once
  fedrec simulate --clients 1000 --people-per-client 1
      people's devices instead of merchants
  fedrec simulate --engine ray --ray-address 10.0.0.1:6379 --out /shared/runs/mine
      on the machines of a Ray cluster that share a folder; see docs/flower.md
  fedrec simulate --data events.parquet --catalogue items.parquet
      your own events and items; see also: fedrec data check
"""


class Engine(StrEnum):
    """Where the clients run."""

    LOCAL = "local"
    RAY = "ray"


class AdapterKind(StrEnum):
    """What learns."""

    LORA = "lora"
    FFA_LORA = "ffa-lora"
    BOTTLENECK = "bottleneck"


class Trust(StrEnum):
    """Whom the guarantee relies on."""

    LOCAL = "local"
    DISTRIBUTED = "distributed"
    CENTRAL = "central"


class SplitName(StrEnum):
    """How test targets are held out."""

    LEAVE_LAST_OUT = "leave-last-out"
    NEXT_BASKET = "next-basket"


@one_line_errors
def simulate_command(
    clients: Annotated[int | None, typer.Option(help="merchants or devices [50]")] = None,
    rounds: Annotated[int | None, typer.Option(help="rounds of the federation")] = None,
    data: Annotated[Path | None, typer.Option(help="events: CSV or Parquet; the bundled set when absent")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="items: CSV or Parquet; goes with --data")] = None,
    event_map: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN of the events; repeatable")] = None,
    item_map: Annotated[
        list[str] | None, typer.Option("--map-catalogue", help="FIELD=COLUMN of the catalogue; repeatable")
    ] = None,
    split: Annotated[SplitName | None, typer.Option(help="how test targets are held out [leave-last-out]")] = None,
    encoder: Annotated[str | None, typer.Option(help="auto, hashing, or a Hugging Face PATH or NAME [auto]")] = None,
    partition: Annotated[str | None, typer.Option(help="even, dirichlet or by-column:COLUMN [even]")] = None,
    panel_fraction: Annotated[
        float | None, typer.Option(help="share of people who stand for public data [0.1]")
    ] = None,
    people_per_client: Annotated[int | None, typer.Option(help="people at each client, at most [all]")] = None,
    base: Annotated[Path | None, typer.Option(help="base made by fedrec pretrain [from the panel]")] = None,
    adapter: Annotated[AdapterKind | None, typer.Option(help="what learns")] = None,
    rank: Annotated[int | None, typer.Option(help="rank of the adapter")] = None,
    epsilon: Annotated[float | None, typer.Option(help="budget of one person at one client [8]")] = None,
    delta: Annotated[float | None, typer.Option(help="failure probability of the guarantee [1e-5]")] = None,
    no_dp: Annotated[bool, typer.Option("--no-dp", help="no privacy: stamps the run NOT PRIVATE")] = False,
    trust: Annotated[Trust | None, typer.Option(help="whom the guarantee relies on [local: nobody else]")] = None,
    engine: Annotated[Engine | None, typer.Option(help="this process, or Flower's Ray runtime [local]")] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes that train clients [0: the cores, in a large run]")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster, for --engine ray [RAY_ADDRESS]")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="also without noise, and on pooled data")] = False,
    seed: Annotated[int | None, typer.Option(help="partition, base and windows; never noise [0]")] = None,
    out: Annotated[Path | None, typer.Option(help="run folder [runs/DATE-TIME]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --out, with its own settings")
    ] = False,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="stop before the first round; then: flwr run, or --resume")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json on stdout, nothing else")] = False,
) -> None:
    """Train one private ranker across many pretended clients, and report what it bought and what it cost."""
    flags = {
        "partition.clients": clients,
        "partition.scheme": partition,
        "partition.panel_fraction": panel_fraction,
        "partition.people_per_client": people_per_client,
        "federation.rounds": rounds,
        "federation.engine": engine,
        "federation.workers": workers,
        "data.events": data and data.resolve(),
        "data.catalogue": catalogue and catalogue.resolve(),
        "data.event_columns": parse_mapping(event_map, flag="--map") or None,
        "data.catalogue_columns": parse_mapping(item_map, flag="--map-catalogue") or None,
        "data.split": split,
        "items.encoder": encoder,
        "pretraining.base": base and base.resolve(),
        "adapter.kind": adapter,
        "adapter.rank": rank,
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.enabled": False if no_dp else None,
        "privacy.trust": trust,
        "compare": True if compare else None,
        "seed": seed,
    }
    settings = resolve_settings(flags, config=config, out=out, resume=resume)
    cluster = cluster_of(settings, ray_address)
    folder = out or RUNS / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    _run(settings, folder, resume=resume, prepare_only=prepare_only, as_json=as_json, ray_address=cluster)


def resolve_settings(flags: dict[str, Any], *, config: Path | None, out: Path | None, resume: bool) -> Config:
    """Join defaults, the config file and the flags that were given; a resumed run starts from its own settings.

    Raises:
        ConfigError: a value out of range, or --resume without --out.
        RunError: --resume of a folder that holds no run.
    """
    if resume and out is None:
        raise ConfigError("--resume: needs --out, the folder of the run to go on with")
    source = config
    if resume and out is not None and config is None:
        source = out / "config.toml"
        if not source.exists():
            raise RunError(f"{out}: no run to resume: expected a folder with config.toml; leave out --resume")
    values = read_toml(source) if source is not None else {}
    parse_config(values, source=str(source))  # alone, so that a mistake in the file is not blamed on a flag
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.rpartition(".")
            target = values.setdefault(section, {}) if section else values
            target[key] = value.value if isinstance(value, StrEnum) else value
    return parse_config(values, source="flags")


def cluster_of(settings: Config, given: str | None) -> str | None:
    """The Ray cluster to use: ``--ray-address``, else ``RAY_ADDRESS``. It says where, not what: no run folder keeps it.

    Raises:
        ConfigError: ``--ray-address`` with another engine than ray.
    """
    if settings.federation.engine == "ray":
        return given or os.environ.get("RAY_ADDRESS") or None
    if given is not None:
        raise ConfigError(f"--ray-address {given}: this run's engine is {settings.federation.engine}; add --engine ray")
    return None


def _run(
    settings: Config, folder: Path, *, resume: bool, prepare_only: bool, as_json: bool, ray_address: str | None
) -> None:
    """Simulate and show the outcome."""
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from fedrec.report.progress import Progress
    from simulations.experiment import simulate

    with Progress() as progress:
        summary = simulate(
            settings,
            out=folder,
            resume=resume,
            prepare_only=prepare_only,
            progress=progress,
            ray_address=ray_address,
        )
    if summary is None:
        typer.echo(f"prepared {folder}; go on with: fedrec simulate --out {folder} --resume", err=True)
    elif as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        from fedrec.report.terminal import print_summary

        print_summary(summary, folder=folder)
