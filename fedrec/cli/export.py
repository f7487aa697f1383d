"""``fedrec export``: a published model for programs that know nothing of fedrec."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.asking import AsJson, Items, Run, opened
from fedrec.cli.errors import one_line_errors

if TYPE_CHECKING:
    from clients.serving.exporting import Int8Quality
    from clients.serving.model import ServedModel

EXAMPLES = """Examples:

\b
  fedrec export runs/mine --out mine-onnx
      ranker.onnx, pairs.safetensors, items.json and manifest.json; docs/export.md says how to score with them
  fedrec export runs/mine --out mine-int8 --int8
      item vectors and weights in a quarter of the room, and what that changes on the run's public panel

Needs pip install 'fedrec[onnx]'. Nobody's history is in it.
"""


@one_line_errors
def export_command(
    run: Run,
    out: Annotated[Path, typer.Option(help="folder to make")],
    int8: Annotated[bool, typer.Option("--int8", help="item vectors and weights as int8, one scale a row")] = False,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's ranker with its adapter as an ONNX program, and what else a score is made of, as plain files."""
    model, _ = opened(run, None, catalogue=catalogue)
    from clients.serving.exporting import export_model

    manifest = export_model(model, out, int8=int8, quality=_quality(run, model) if int8 else None)
    if as_json:
        typer.echo(json.dumps(manifest, indent=2, ensure_ascii=False))
    else:
        typer.echo(f"{out}: version {manifest['version']}, {manifest['items']} items, {manifest['numbers']}")
        typer.echo(manifest["privacy"])
        if int8:
            typer.echo(_told(manifest["int8_ndcg@10"]))


def _quality(run: Path, model: "ServedModel") -> "Int8Quality | None":
    """What int8 changes on the panel of the run; None where it has none, or nobody with anything to predict."""
    from clients.serving.exporting import int8_quality
    from fedrec.data.histories import Histories
    from fedrec.evaluation.masking import masking_of
    from fedrec.model.base import PANEL
    from fedrec.run_config import load_run_config

    path = run / "base" / PANEL
    panel = Histories.load(path) if path.exists() else Histories.from_lists([])
    if not (panel.lengths > 1).any():
        return None
    return int8_quality(model, panel, masking=masking_of(load_run_config(run / "config.toml").data))


def _told(quality: dict[str, Any] | None) -> str:
    if quality is None:
        return "int8: the run has no public panel, so what it changes was not measured"
    error = quality["standard_error"]
    about = "" if error is None else f" ± {error:.4f}"
    return (
        f"int8: NDCG@10 {quality['int8']:.4f} on the {quality['people']} people of the public panel, "
        f"{quality['float32']:.4f} with float32 ({quality['change']:+.4f}{about}, one standard error)"
    )
