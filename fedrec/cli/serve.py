"""``fedrec serve`` and ``fedrec tokens``: the ranker over HTTP, and who may ask it."""

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.asking import Adapter
from fedrec.cli.errors import one_line_errors
from fedrec.config_serving import HttpConfig
from fedrec.errors import ConfigError
from fedrec.paths import make_app_importable
from fedrec.quiet import silence

if TYPE_CHECKING:
    import ssl

    from clients.serving.served import Served

SERVE_EXAMPLES = """Examples:

\b
  fedrec serve runs/mine --store shop.sqlite
      for this machine alone, at http://127.0.0.1:8080; the store is made when there is none
  fedrec serve current --store shop.sqlite
      current is a text file that names a run folder; write another name into it, and that run is served from then on
  fedrec serve runs/mine --store shop.sqlite --host 0.0.0.0 --tokens tokens.txt
      for others too, behind a proxy with TLS
  fedrec serve runs/mine --store shop.sqlite --host 0.0.0.0 --tokens tokens.txt --certificate tls.crt --key tls.key
      for others too, over TLS
"""
TOKENS_EXAMPLES = """Examples:

\b
  fedrec tokens new shopfront --file tokens.txt --scope recommend,search,explain,events
      prints the token once; the file keeps its hash. A running service reads the file anew on SIGHUP
"""
DEFAULTS = HttpConfig()

tokens_app = typer.Typer(help="Who may ask a service what.", no_args_is_help=True, rich_markup_mode=None)


@one_line_errors
def serve_command(
    run: Annotated[Path, typer.Argument(help="run folder, or a text file that names one", metavar="RUN")],
    store: Annotated[Path, typer.Option(help="the shop's events, such as shop.sqlite; made when there is none")],
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8080,
    tokens: Annotated[Path | None, typer.Option(help="who may ask what; needed beyond this machine")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS: certificate in PEM; read once, so start anew with a renewed one")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="TLS: the certificate's private key, in PEM, 0600")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="that reads queries: hashing, a Hugging Face folder or name [the run's own]")
    ] = None,
    adapter: Adapter = None,
    catalogue: Annotated[Path | None, typer.Option(help="file of the run's items, where it has moved")] = None,
    workers: Annotated[int, typer.Option(min=1, help="requests computed at the same time")] = DEFAULTS.workers,
    requests_per_s: Annotated[float, typer.Option(help="of one token")] = DEFAULTS.requests_per_s,
    queries_per_day: Annotated[int, typer.Option(min=1, help="of one token")] = DEFAULTS.queries_per_day,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Recommend, search, explain and take events over HTTP, until SIGTERM."""
    silence()
    make_app_importable()
    from clients.serving.http.service import serve
    from clients.serving.served import load_served
    from clients.serving.store import EventStore
    from fedrec.config_serving import http_config

    tls = _tls(certificate, key)
    config = http_config(workers=workers, requests_per_s=requests_per_s, queries_per_day=queries_per_day)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def load(folder: Path) -> "Served":
        cache = Path.home() / ".cache" / "fedrec"
        return load_served(folder, encoder=encoder, cache=cache, catalogue=catalogue, adapter=adapter)

    def ready(open_port: int) -> None:
        scheme = "https" if tls else "http"
        facts = {"address": f"{scheme}://{f'[{host}]' if ':' in host else host}:{open_port}", "store": str(store)}
        typer.echo(json.dumps(facts) if as_json else f"serving at {facts['address']}, events in {store}")
        sys.stdout.flush()

    with EventStore.open(store) if store.exists() else EventStore.create(store) as opened:
        serve(run, opened, load, host=host, port=port, tokens=tokens, config=config, tls=tls, ready=ready)


def _tls(certificate: Path | None, key: Path | None) -> "ssl.SSLContext | None":
    from fedrec.tls import server_context

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key: expected both, or neither")
    return server_context(certificate, key)


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
