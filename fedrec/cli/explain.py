"""``fedrec explain``: an item's score for somebody, taken apart."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedrec.cli.asking import AsJson, History, Items, Run, opened
from fedrec.cli.errors import one_line_errors

if TYPE_CHECKING:
    from clients.serving.explaining import Explanation
    from fedrec.data.catalogue import Catalogue

EXAMPLES = """Examples:

\b
  fedrec explain runs/mine --history 85123A,22423 --item 22697
      the reason in a sentence, the parts of the score, and what each purchase does for it
  fedrec explain runs/mine --history 85123A,22423 --item 22697 --json
      the same to the last digit

A purchase's share is what the score loses without it: leave it out of --history, and see.
"""


@one_line_errors
def explain_command(
    run: Run,
    item: Annotated[str, typer.Option(help="id of the item whose score is asked about")],
    history: History = None,
    catalogue: Items = None,
    as_json: AsJson = False,
) -> None:
    """Say why an item has the score it has: by its parts, and by what each past purchase does for it."""
    model, past = opened(run, history, catalogue=catalogue)
    from clients.serving.explaining import explain
    from clients.serving.lookup import positions_of

    asked = positions_of(model.catalogue, [item], flag="--item")
    found = explain(model, past, asked.tolist())[0]
    facts = {"run": str(run), "version": model.version} | _facts(found, model.catalogue)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print(facts, Console(highlight=False))


def _facts(found: "Explanation", catalogue: "Catalogue") -> dict[str, Any]:
    return {
        "item_id": catalogue.item_ids[found.item],
        "title": catalogue.titles[found.item],
        "score": found.total,
        "sentence": found.sentence,
        "parts": found.parts,
        "causes": [
            {
                "item_id": catalogue.item_ids[cause.item],
                "title": catalogue.titles[cause.item],
                "positions": list(cause.positions),
                "drop": cause.drop,
                "by_part": cause.by_part,
            }
            for cause in found.causes
        ],
    }


def _print(facts: dict[str, Any], out: Console) -> None:
    from clients.serving.scoring import MEANINGS

    out.print(f"[bold]{escape(facts['title'])}[/] ({escape(facts['item_id'])}), score {facts['score']:.2f}")
    out.print(escape(facts["sentence"]))
    parts = Table(box=None, pad_edge=False, header_style="bold")
    parts.add_column("part of the score")
    parts.add_column("", justify="right")
    parts.add_column("", style="dim", overflow="fold")
    for name, value in facts["parts"].items():
        parts.add_row(name, f"{value:.2f}", MEANINGS[name])
    out.print()
    out.print(parts)
    if facts["causes"]:
        causes = Table(box=None, pad_edge=False, header_style="bold")
        causes.add_column("without this purchase", overflow="fold")
        causes.add_column("the score would be", justify="right")
        for cause in facts["causes"]:
            without = facts["score"] - cause["drop"]
            causes.add_row(f"{escape(cause['title'])} ({escape(cause['item_id'])})", f"{without:.2f}")
        out.print()
        out.print(causes)
