"""Run ``fedrec privacy report`` and ``verify`` in this process."""

import json
from types import SimpleNamespace

import typer
from typer.testing import CliRunner

from fedrec.cli.privacy_report import report_command, verify_command

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("report")(report_command)
app.command("verify")(verify_command)

CHECKS = ("signature", "signer", "text", "arithmetic", "ledger")


def fedrec(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)


def outcomes(*arguments):
    """Exit code, and the outcome of each check by name."""
    result = fedrec("verify", *arguments, "--json")
    return result.code, {check["name"]: check["outcome"] for check in json.loads(result.out)["checks"]}
