"""``fedrec keys``: an authority, a server's keys, a client's keys; what there is and how long it lasts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError

if TYPE_CHECKING:
    from fedrec.keycheck import KeyFolder

AUTHORITY_EXAMPLES = """Examples:

\b
  fedrec keys authority authority
      five years; ca.crt is for everyone, ca.key for nobody
"""
SERVER_EXAMPLES = """Examples:

\b
  fedrec keys server server-keys --authority authority --host fedrec.example.org --host 203.0.113.7
      every name and address that clients connect to
  fedrec keys server new-keys --authority authority --host fedrec.example.org --keep server-keys
      a new certificate; the signing key, which clients have pinned, stays
"""
CLIENT_EXAMPLES = """Examples:

\b
  fedrec keys client keys --name shop-7
      send node.pub and reply.pub to the operator
  fedrec keys client keys --name shop-7 --certificate-request
      also tls.csr, where the server asks clients for certificates
"""
SIGN_EXAMPLES = """Examples:

\b
  fedrec keys sign shop-7.csr --authority authority
      writes shop-7.crt; compare the fingerprint with the merchant first
"""
SHOW_EXAMPLES = """Examples:

\b
  fedrec keys show keys
      exit code 2 when something expired, is missing or does not fit together
  fedrec keys show keys --json
      the same, for a monitor
"""

NewFolder = Annotated[Path, typer.Argument(help="a folder that is new or empty", metavar="DIR")]
AuthorityFolder = Annotated[Path, typer.Option("--authority", help="what fedrec keys authority made", metavar="DIR")]
Days = Annotated[int, typer.Option(help="how long the certificate holds")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]

keys_app = typer.Typer(
    help="Keys and certificates; every private half stays on the machine that made it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.command("authority", epilog=AUTHORITY_EXAMPLES)
@one_line_errors
def authority_command(folder: NewFolder, days: Days = 1825, as_json: AsJson = False) -> None:
    """Make a private authority, which says whose certificates hold. Keep its ca.key offline."""
    from fedrec.keycheck import certificate_fingerprint
    from fedrec.keyfiles import CA_CRT, make_authority

    make_authority(folder, days=days, now=datetime.now(UTC))
    path = folder / CA_CRT
    _tell({"certificate": str(path), "sha256": certificate_fingerprint(path)}, as_json=as_json)


@keys_app.command("server", epilog=SERVER_EXAMPLES)
@one_line_errors
def server_command(
    folder: NewFolder,
    authority: AuthorityFolder,
    host: Annotated[list[str], typer.Option(help="name or IP address that clients connect to; repeatable")],
    keep: Annotated[
        Path | None, typer.Option(help="older folder whose signing key goes on being used", metavar="DIR")
    ] = None,
    days: Days = 398,
    as_json: AsJson = False,
) -> None:
    """Make a server's TLS key and certificate, and the key it signs with; prints what clients pin."""
    from fedrec.keyfiles import SERVER_PUB, make_server

    public = make_server(folder, authority, host, days=days, now=datetime.now(UTC), keep=keep)
    _tell({"server_key": public, "written_to": str(folder / SERVER_PUB)}, as_json=as_json)


@keys_app.command("client", epilog=CLIENT_EXAMPLES)
@one_line_errors
def client_command(
    folder: NewFolder,
    name: Annotated[str, typer.Option(help="what the operator calls this client; public")] = "client",
    certificate_request: Annotated[
        bool, typer.Option("--certificate-request", help="also a TLS key, and a request for fedrec keys sign")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a client's keys: its node key, the key it signs replies with, a certificate request if wanted."""
    from fedrec.keycheck import node_fingerprint, request_fingerprint
    from fedrec.keyfiles import NODE_PUB, REPLY_PUB, TLS_CSR, make_client

    public = make_client(folder, name, with_request=certificate_request)
    node = folder / NODE_PUB
    facts = {"node_key": str(node), "node_fingerprint": node_fingerprint(node), "reply_key": public}
    facts["written_to"] = str(folder / REPLY_PUB)
    if certificate_request:
        facts |= {"request": str(folder / TLS_CSR), "request_sha256": request_fingerprint(folder / TLS_CSR)}
    _tell(facts, as_json=as_json)


@keys_app.command("sign", epilog=SIGN_EXAMPLES)
@one_line_errors
def sign_command(
    request: Annotated[Path, typer.Argument(help="what a merchant sent", metavar="CSR")],
    authority: AuthorityFolder,
    days: Days = 398,
    as_json: AsJson = False,
) -> None:
    """Let the sender of a request connect as a client. Only its key and name are taken, whatever else it asks."""
    from fedrec.certificates import requested_name
    from fedrec.keycheck import request_fingerprint
    from fedrec.keyfiles import read_request, sign_request

    written = sign_request(request, authority, days=days, now=datetime.now(UTC))
    facts = {"name": requested_name(read_request(request)), "certificate": str(written)}
    _tell(facts | {"request_sha256": request_fingerprint(request)}, as_json=as_json)


@keys_app.command("show", epilog=SHOW_EXAMPLES)
@one_line_errors
def show_command(
    folder: Annotated[Path, typer.Argument(help="what one of the other commands made", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Say what there is, its fingerprints and when it expires. Never shows a private key."""
    from fedrec.keycheck import look_at

    seen = look_at(folder, now=datetime.now(UTC))
    typer.echo(json.dumps(seen.to_dict(), indent=2) if as_json else _page(seen))
    if seen.problems:
        raise ConfigError(f"{folder}: {'; '.join(seen.problems)}")


def _tell(facts: dict[str, str], *, as_json: bool) -> None:
    width = max(map(len, facts))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())
    typer.echo(json.dumps(facts, indent=2) if as_json else text)


def _page(seen: "KeyFolder") -> str:
    lines = [f"{seen.kind}: {seen.folder}"]
    for one in seen.files:
        lasts = f"until {one.expires:%Y-%m-%d} ({one.days_left} days)" if one.expires else ""
        lines += [f"  {one.file:<11} {one.what}  {lasts}".rstrip(), f"  {'':<11} {one.fingerprint}"]
    return "\n".join([*lines, *(f"warning: {text}" for text in seen.warnings)])
