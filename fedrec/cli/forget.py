"""``fedrec forget``: a person's right to be forgotten, in the merchant's own store."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.cli.store import AsJson, StoreFile, User, id_of, open_store
from fedrec.errors import ConfigError

EXAMPLES = """Examples:

\b
  fedrec forget shop.sqlite --user - --dry-run < id.txt
      how many events would go; changes nothing
  fedrec forget shop.sqlite --user - --yes < id.txt
      delete them; the id stands in no shell history
"""
LIMITS = "not undone: updates sent before, backups, files you imported from, the published ranker; see SECURITY.md"


@one_line_errors
def forget_command(
    store: StoreFile,
    user: User,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, change nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a person's events for good and take no more of them in. The next training is without them."""
    if user == "-" and not (yes or dry_run):
        raise ConfigError("--user -: nobody can be asked while the id comes from standard input; give --yes")
    user_id = id_of(user)
    with open_store(store) as opened:
        events = len(opened.history(user_id)[0])
        if dry_run:
            _tell(store, events, at=None, text=f"{store}: {events} events would be deleted", as_json=as_json)
            return
        if not yes:
            typer.confirm(f"Delete {events} events of this person for good?", abort=True, err=True)
        gone = opened.forget(user_id)
    text = f"{store}: {gone.events} events deleted, and a mark left that tells nobody whose\n{LIMITS}"
    _tell(store, gone.events, at=gone.at, text=text, as_json=as_json)


def _tell(store: Path, events: int, *, at: int | None, text: str, as_json: bool) -> None:
    """``at`` is when, in seconds since 1970; None where nothing was changed."""
    facts = {"store": str(store), "forgotten": at is not None, "events": events, "at": at}
    typer.echo(json.dumps(facts, indent=2) if as_json else text)
