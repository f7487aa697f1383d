"""``fedrec serve``: the ranker over HTTP, with a page to try it on."""

import json
import logging
import os
import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.asking import Adapter, SearchEngine
from fedrec.cli.errors import one_line_errors
from fedrec.config_serving import HttpConfig
from fedrec.errors import ConfigError
from fedrec.newest import newest_run
from fedrec.paths import make_app_importable
from fedrec.quiet import silence

if TYPE_CHECKING:
    import ssl

SERVE_EXAMPLES = """Examples:

\b
  fedrec serve --open
      the newest run in runs/, with events in runs/shop.sqlite, and its page in the browser
  fedrec serve runs/mine --store shop.sqlite
      for this machine alone, at http://127.0.0.1:8080; the store is made when there is none
  fedrec serve current --store shop.sqlite
      current is a text file that names a run folder; write another name into it, and that run is served from then on
  fedrec serve runs/mine --store shop.sqlite --host 0.0.0.0 --tokens tokens.txt
      for others too, behind a proxy with TLS
  fedrec serve runs/mine --store shop.sqlite --host 0.0.0.0 --tokens tokens.txt --certificate tls.crt --key tls.key
      for others too, over TLS
"""
DEFAULTS = HttpConfig()
STORE = "shop.sqlite"


@one_line_errors
def serve_command(
    run: Annotated[
        Path | None,
        typer.Argument(help="run folder, or a text file that names one [the newest in runs/]", metavar="[RUN]"),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="the shop's events; made when there is none [shop.sqlite beside RUN]")
    ] = None,
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
    search_engine: SearchEngine = None,
    workers: Annotated[int, typer.Option(min=1, help="requests computed at the same time")] = DEFAULTS.workers,
    requests_per_s: Annotated[float, typer.Option(help="of one token")] = DEFAULTS.requests_per_s,
    queries_per_day: Annotated[int, typer.Option(min=1, help="of one token")] = DEFAULTS.queries_per_day,
    show: Annotated[bool, typer.Option("--open", help="show the page in a browser; only without --tokens")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")] = False,
) -> None:
    """Recommend, search, explain and take events over HTTP, with a page to try it on, until SIGTERM."""
    silence()
    make_app_importable()
    from clients.serving.http.service import run_named, serve
    from clients.serving.served import load_served
    from clients.serving.store import EventStore

    tls = _tls(certificate, key)
    if show and tokens is not None:
        raise ConfigError("--open: with --tokens no page is shown; leave one of them out")
    run = run or newest_run()
    run_named(run)  # before a store is made beside what is none
    store = store or Path(os.path.abspath(run)).parent / STORE
    config = HttpConfig.of_flags(workers=workers, requests_per_s=requests_per_s, queries_per_day=queries_per_day)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    cache = Path.home() / ".cache" / "fedrec"
    load = partial(
        load_served, encoder=encoder, cache=cache, catalogue=catalogue, adapter=adapter, engine=search_engine
    )
    origin = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}"
    facts = {"run": str(run), "store": str(store)}
    ready = partial(_tell, origin, facts, has_page=tokens is None, show=show, as_json=as_json)
    with EventStore.open(store) if store.exists() else EventStore.create(store) as opened:
        serve(run, opened, load, host=host, port=port, tokens=tokens, config=config, tls=tls, ready=ready)
    logging.shutdown()
    os._exit(0)  # to take torch apart in good order takes seconds, of a machine that may be busy


def _tls(certificate: Path | None, key: Path | None) -> "ssl.SSLContext | None":
    from fedrec.listening import server_context

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key: expected both, or neither")
    return server_context(certificate, key)


def _tell(origin: str, facts: dict[str, str], port: int, *, has_page: bool, show: bool, as_json: bool) -> None:
    """Say what is served where; a service with a page is also a place to go to."""
    address = f"{origin}:{port}"
    told = f"serving {facts['run']} at {address}, events in {facts['store']}"
    if has_page:
        told += f"\nthe shop: open {address} in a browser; Ctrl-C ends it"
    typer.echo(json.dumps({"address": address} | facts) if as_json else told)
    sys.stdout.flush()
    if show:
        threading.Thread(target=_open, args=(address,), daemon=True).start()


def _open(address: str) -> None:
    """Show the page. A browser of the terminal would take the terminal, and has no scripts."""
    try:
        kind = type(webbrowser.get())
    except webbrowser.Error:
        return
    if kind is not webbrowser.GenericBrowser or "BROWSER" in os.environ:
        webbrowser.open(address)
