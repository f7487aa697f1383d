"""The command line: one file per command group; the only place in ``fedrec`` that may see every side."""

import typer
import typer.core

from fedrec.cli.ads import EXAMPLES as ADS_EXAMPLES
from fedrec.cli.ads import ads_command
from fedrec.cli.clicks import clicks_app
from fedrec.cli.client import EXAMPLES as CLIENT_EXAMPLES
from fedrec.cli.client import client_command
from fedrec.cli.data import data_app
from fedrec.cli.doctor import EXAMPLES as DOCTOR_EXAMPLES
from fedrec.cli.doctor import doctor_command
from fedrec.cli.enrol import enrol_app
from fedrec.cli.explain import EXAMPLES as EXPLAIN_EXAMPLES
from fedrec.cli.explain import explain_command
from fedrec.cli.export import EXAMPLES as EXPORT_EXAMPLES
from fedrec.cli.export import export_command
from fedrec.cli.federation import federation_app
from fedrec.cli.forget import EXAMPLES as FORGET_EXAMPLES
from fedrec.cli.forget import forget_command
from fedrec.cli.items import items_app
from fedrec.cli.join import EXAMPLES as JOIN_EXAMPLES
from fedrec.cli.join import join_command
from fedrec.cli.keys import keys_app
from fedrec.cli.pretrain import pretrain_command
from fedrec.cli.privacy import privacy_app
from fedrec.cli.recommend import EXAMPLES as RECOMMEND_EXAMPLES
from fedrec.cli.recommend import recommend_command
from fedrec.cli.run import EXAMPLES as RUN_EXAMPLES
from fedrec.cli.run import run_command
from fedrec.cli.search import EXAMPLES as SEARCH_EXAMPLES
from fedrec.cli.search import search_command
from fedrec.cli.serve import SERVE_EXAMPLES, serve_command
from fedrec.cli.server import SERVER_EXAMPLES, server_command
from fedrec.cli.simulate import EXAMPLES, simulate_command
from fedrec.cli.status import EXAMPLES as STATUS_EXAMPLES
from fedrec.cli.status import status_command
from fedrec.cli.store import store_app
from fedrec.cli.tokens import tokens_app
from fedrec.cli.tune_search import EXAMPLES as TUNE_EXAMPLES
from fedrec.cli.tune_search import tune_search_command

typer.core.HAS_RICH = False  # our help is plain text, and beside rich typer would print "\\[required]" in it

app = typer.Typer(
    help="Federated recommendation with differentially private adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("simulate", epilog=EXAMPLES)(simulate_command)
app.command("pretrain")(pretrain_command)
app.add_typer(data_app, name="data")
app.add_typer(items_app, name="items")
app.add_typer(privacy_app, name="privacy")
app.add_typer(keys_app, name="keys")
app.add_typer(federation_app, name="federation")
app.command("server", epilog=SERVER_EXAMPLES)(server_command)
app.add_typer(enrol_app, name="enrol")
app.command("join", epilog=JOIN_EXAMPLES)(join_command)
app.command("client", epilog=CLIENT_EXAMPLES)(client_command)
app.command("run", epilog=RUN_EXAMPLES)(run_command)
app.command("search", epilog=SEARCH_EXAMPLES)(search_command)
app.command("tune-search", epilog=TUNE_EXAMPLES)(tune_search_command)
app.command("status", epilog=STATUS_EXAMPLES)(status_command)
app.command("recommend", epilog=RECOMMEND_EXAMPLES)(recommend_command)
app.command("explain", epilog=EXPLAIN_EXAMPLES)(explain_command)
app.add_typer(clicks_app, name="clicks")
app.command("ads", epilog=ADS_EXAMPLES)(ads_command)
app.command("export", epilog=EXPORT_EXAMPLES)(export_command)
app.command("serve", epilog=SERVE_EXAMPLES)(serve_command)
app.add_typer(tokens_app, name="tokens")
app.add_typer(store_app, name="store")
app.command("forget", epilog=FORGET_EXAMPLES)(forget_command)
app.command("doctor", epilog=DOCTOR_EXAMPLES)(doctor_command)


def main() -> None:
    """Run the command line."""
    app()
