"""``fedrec tokens``: who may ask a service what."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable

TOKENS_EXAMPLES = """Examples:

\b
  fedrec tokens new shopfront --file tokens.txt --scope recommend,search,explain,events
      prints the token once; the file keeps its hash. A running service reads the file anew on SIGHUP
"""

tokens_app = typer.Typer(help="Who may ask a service what.", no_args_is_help=True, rich_markup_mode=None)


@tokens_app.command("new", epilog=TOKENS_EXAMPLES)
@one_line_errors
def new_command(
    name: Annotated[str, typer.Argument(help="whose it is")],
    file: Annotated[Path, typer.Option(help="gets the token's hash; made when there is none")],
    scope: Annotated[
        list[str], typer.Option(help="recommend, search, explain, events, forget, metrics, debug; commas or repeated")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Make a token, add its hash to a file, and print the token: nobody can show it again."""
    make_app_importable()
    from clients.serving.http.tokens import new_token

    scopes = [part for value in scope for part in value.split(",") if part]
    if not scopes:
        raise ConfigError("--scope: expected at least one")
    token = new_token(file, name, scopes)
    typer.echo(json.dumps({"name": name, "scopes": sorted(set(scopes)), "token": token}) if as_json else token)
