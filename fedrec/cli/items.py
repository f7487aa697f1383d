"""``fedrec items``: the catalogue's text as vectors."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.data import AsJson, ItemMap, parse_mapping
from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError

if TYPE_CHECKING:
    from fedrec.data.catalogue import Catalogue

items_app = typer.Typer(help="The catalogue's text as vectors.", no_args_is_help=True)


@items_app.callback()
def _group() -> None:
    """Keep ``encode`` a subcommand although it is the only one."""


@items_app.command()
@one_line_errors
def encode(
    out: Annotated[Path, typer.Option(help="safetensors file to write")],
    encoder: Annotated[str, typer.Option(help="hashing, a Hugging Face folder, or a name on the hub")] = "hashing",
    catalogue: Annotated[Path | None, typer.Option(help="catalogue file; the bundled set when absent")] = None,
    item_map: ItemMap = None,
    local_files_only: Annotated[bool, typer.Option(help="never download encoder weights")] = True,
    as_json: AsJson = False,
) -> None:
    """Encode a catalogue's text once and write the vectors (fp16) with what made them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fedrec.model.encoder import resolve_encoder
    from fedrec.model.items import read_item_metadata, write_item_vectors

    items = _catalogue(catalogue, parse_mapping(item_map, flag="--map-catalogue"))
    resolved = resolve_encoder(encoder, local_files_only=local_files_only)
    look = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=Console(stderr=True)) as bar:
        task = bar.add_task("encoding", total=len(items))
        vectors = resolved.encode(items.texts(), progress=lambda done, _: bar.update(task, completed=done))
    write_item_vectors(vectors, out, catalogue=items, encoder=resolved)
    size = {"path": str(out), "bytes": out.stat().st_size, "dimension": resolved.dimension}
    written = size | read_item_metadata(out)
    typer.echo(json.dumps(written) if as_json else "\n".join(f"{name:<17} {value}" for name, value in written.items()))


def _catalogue(path: Path | None, columns: dict[str, str]) -> "Catalogue":
    from fedrec.data.bundled import load_bundled
    from fedrec.data.catalogue import read_catalogue

    if path is not None:
        return read_catalogue(path, columns=columns)
    if columns:
        raise ConfigError("--map-catalogue needs --catalogue: the bundled set's columns are known")
    _, catalogue, _ = load_bundled()
    return catalogue
