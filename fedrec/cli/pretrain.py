"""``fedrec pretrain``: the public base of a federation, from people whose data is public or was given with consent."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.cli.simulate import resolve_settings
from fedrec.config import Config
from fedrec.errors import DataError, RunError

if TYPE_CHECKING:
    from fedrec.data.catalogue import Catalogue
    from fedrec.data.histories import Histories


@one_line_errors
def pretrain_command(
    out: Annotated[Path, typer.Option(help="folder for the base; must not exist")],
    data: Annotated[
        Path | None, typer.Option(help="public events: CSV or Parquet; the bundled set when absent")
    ] = None,
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
    about = _pretrain(settings, out)
    typer.echo(
        json.dumps(about, indent=2) if as_json else f"{out}: base {about['digest'][:12]}, {about['items']} items"
    )


def _pretrain(settings: Config, out: Path) -> dict[str, Any]:
    """Make the base of everybody in the data, and say what it is."""
    import numpy as np

    from fedrec.model.base import base_digest

    _refuse_used(out)
    histories, catalogue = _public_people(settings)
    shuffled = np.random.default_rng(settings.seed).permutation(len(histories))
    judged = round(settings.pretraining.judge_share * len(shuffled))
    fit, judge = histories.subset(shuffled[judged:]), histories.subset(shuffled[:judged])
    _make_whole(settings, out, catalogue, fit=fit, judge=judge)
    return {"base": str(out), "digest": base_digest(out), "people": len(fit), "items": len(catalogue)}


def _refuse_used(out: Path) -> None:
    """Find out before the work, not after it, that its result has no place."""
    if out.exists():
        raise RunError(f"{out}: exists; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}; choose another --out") from None


def _public_people(settings: Config) -> tuple["Histories", "Catalogue"]:
    """Everybody who has enough events, and the items."""
    from fedrec.data import load
    from fedrec.data.histories import build_histories

    events, catalogue, _ = load(settings.data)
    histories, _ = build_histories(
        events,
        catalogue,
        min_events=settings.data.min_events,
        merge_repeats=settings.data.merge_repeats,
        max_history=settings.data.max_history,
    )
    if len(histories) < 2:
        source = settings.data.events or "bundled"
        raise DataError(f"{source}: {len(histories)} person has enough events; a base needs at least two")
    return histories, catalogue


def _make_whole(settings: Config, out: Path, catalogue: "Catalogue", *, fit: "Histories", judge: "Histories") -> None:
    """Write the base beside ``out`` and rename it, so that there is a whole base or none."""
    from fedrec.model.making import make_base
    from fedrec.report.progress import Progress

    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place, Progress() as progress:
        draft = Path(place) / out.name
        make_base(settings, catalogue, draft, fit=fit, judge=judge, progress=progress)
        draft.rename(out)
