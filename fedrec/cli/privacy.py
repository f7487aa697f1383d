"""``fedrec privacy``: plan a promise, set limits, read the record, report, verify, attack."""

import typer

from fedrec.cli.privacy_audit import AUDIT_EXAMPLES, audit_command
from fedrec.cli.privacy_ledger import ledger_app
from fedrec.cli.privacy_plan import PLAN_EXAMPLES, plan_command
from fedrec.cli.privacy_policy import policy_app
from fedrec.cli.privacy_report import REPORT_EXAMPLES, VERIFY_EXAMPLES, report_command, verify_command

privacy_app = typer.Typer(
    help="Plan, limit, record, report, verify and attack the privacy guarantee.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
privacy_app.command("plan", epilog=PLAN_EXAMPLES)(plan_command)
privacy_app.add_typer(policy_app, name="policy")
privacy_app.add_typer(ledger_app, name="ledger")
privacy_app.command("report", epilog=REPORT_EXAMPLES)(report_command)
privacy_app.command("verify", epilog=VERIFY_EXAMPLES)(verify_command)
privacy_app.command("audit", epilog=AUDIT_EXAMPLES)(audit_command)
