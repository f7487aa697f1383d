"""``fedrec pretrain``: the public base of a federation, from people whose data is public or was given with consent."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.cli.data import parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.cli.simulate import resolve_settings
from fedrec.errors import DataError, RunError


@one_line_errors
def pretrain_command(
    out: Annotated[Path, typer.Option(help="folder for the base; must not exist")],
    data: Annotated[Path | None, typer.Option(help="public events: CSV or Parquet; the bundled set when absent")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="items: CSV or Parquet; goes with --data")] = None,
    event_map: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN of the events; repeatable")] = None,
    item_map: Annotated[
        list[str] | None, typer.Option("--map-catalogue", help="FIELD=COLUMN of the catalogue; repeatable")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="auto, hashing, or a Hugging Face PATH or NAME [auto]")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the people")] = None,
    seed: Annotated[int | None, typer.Option(help="of the whole procedure [0]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Train the base on public people. No privacy is spent, so give it nobody else's data."""
    flags = {
        "data.events": data and data.resolve(),
        "data.catalogue": catalogue and catalogue.resolve(),
        "data.event_columns": parse_mapping(event_map, flag="--map") or None,
        "data.catalogue_columns": parse_mapping(item_map, flag="--map-catalogue") or None,
        "items.encoder": encoder,
        "pretraining.epochs": epochs,
        "seed": seed,
    }
    settings = resolve_settings(flags, config=config, out=None, resume=False)
    if out.exists():
        raise RunError(f"{out}: exists; choose another --out")
    import numpy as np

    from fedrec.data import load
    from fedrec.data.histories import build_histories
    from fedrec.model.base import base_digest
    from fedrec.model.making import make_base
    from fedrec.report.progress import Progress

    events, items, _ = load(settings.data)
    histories, _ = build_histories(
        events,
        items,
        min_events=settings.data.min_events,
        merge_repeats=settings.data.merge_repeats,
        max_history=settings.data.max_history,
    )
    if len(histories) < 2:
        raise DataError(f"{data or 'bundled'}: {len(histories)} people have enough events; a base needs at least two")
    shuffled = np.random.default_rng(settings.seed).permutation(len(histories))
    judged = round(settings.pretraining.judge_share * len(shuffled))
    with Progress() as progress:
        make_base(
            settings,
            items,
            out,
            fit=histories.subset(shuffled[judged:]),
            judge=histories.subset(shuffled[:judged]),
            progress=progress,
        )
    about = {"base": str(out), "digest": base_digest(out), "people": len(histories) - judged, "items": len(items)}
    typer.echo(json.dumps(about, indent=2) if as_json else f"{out}: base {about['digest'][:12]}, {len(items)} items")
