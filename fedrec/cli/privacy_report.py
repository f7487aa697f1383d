"""``fedrec privacy report`` and ``fedrec privacy verify``: say what is promised, and check what was said."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import ConfigError

if TYPE_CHECKING:
    from fedrec.privacy.ledger import LedgerFiles
    from fedrec.privacy.report.document import Facts, Signed
    from fedrec.privacy.report.verify import Check, Format
    from fedrec.signing import SigningKey

REPORT_EXAMPLES = """Examples:

\b
  fedrec privacy report runs/eps3
      one page for people, runs/eps3/privacy.html
  fedrec privacy report runs/eps3 --format all
      the same facts as html, json and markdown
  fedrec privacy report ledger.sqlite --policy policy.toml --sign-with officer.key
      a client's own ledger, signed by its privacy officer
"""
VERIFY_EXAMPLES = """Examples:

\b
  fedrec privacy verify runs/eps3/privacy.html
      signature, words, arithmetic, and the ledgers beside it
  fedrec privacy verify privacy.json --public-key 9f0c...
      a report that came by mail, from someone whose key is known
"""
_RUN_STEM, _POLICY, _OPERATOR_KEY = "privacy", "policy.toml", "operator.key"


class FormatFlag(StrEnum):
    """What a report is written as."""

    HTML = "html"
    JSON = "json"
    MD = "md"
    ALL = "all"


AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="a LEDGER's policy; default: policy.toml beside it")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="a LEDGER's key; default: NAME.key beside it")]
WitnessFile = Annotated[Path | None, typer.Option("--witness", help="its witness; default: NAME.witness.json there")]


@one_line_errors
def report_command(
    source: Annotated[Path, typer.Argument(metavar="RUN|LEDGER", help="a run folder, or one ledger file")],
    formats: Annotated[
        list[FormatFlag] | None, typer.Option("--format", help="repeatable; html when not given")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; one format only")] = None,
    policy: PolicyFile = None,
    key: KeyFile = None,
    witness: WitnessFile = None,
    sign_with: Annotated[
        Path | None, typer.Option(help="Ed25519 key that signs, made when absent; default: the operator's own")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """State what a run or a ledger promises its people, what is left, and what is not covered; signed."""
    from fedrec.privacy.report.document import FORMAT, PrivacyReport, Signed
    from fedrec.privacy.report.findings import findings_of
    from fedrec.privacy.report.verify import Format, render
    from fedrec.runfolder import write_text

    asked = set(formats or [FormatFlag.HTML])
    chosen = [form for form in Format if form.value in asked or FormatFlag.ALL in asked]
    if out is not None and len(chosen) > 1:
        raise ConfigError(f"--out {out}: one file for {len(chosen)} formats; leave out --out or name one --format")
    facts = _read_facts(source, policy=policy, key=key, witness=witness)
    signing_key = _signing_key(sign_with or _operator_key(source))
    signed = Signed.sign(PrivacyReport(format=FORMAT, facts=facts, findings=findings_of(facts)), signing_key)
    paths = [out or _default_path(source, form) for form in chosen]
    for path, form in zip(paths, chosen, strict=True):
        write_text(path, render(signed, form))
    _show_report(signed, paths, as_json=as_json)


@one_line_errors
def verify_command(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="what fedrec privacy report wrote, in any format")],
    public_key: Annotated[str | None, typer.Option(help="64 hex digits: the key you trust")] = None,
    run: Annotated[Path | None, typer.Option(help="the run folder; default: the report's own, if it is one")] = None,
    ledger: Annotated[Path | None, typer.Option(help="the ledger; default: the one beside the report")] = None,
    key: KeyFile = None,
    witness: WitnessFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a report without a network: signature, visible words, arithmetic and ledgers. Exit code 3 if any fails."""
    from fedrec.privacy.report.verify import has_failed

    if run is not None and ledger is not None:
        raise ConfigError("--run and --ledger: expected one of them")
    checks = _checks(report, public_key=public_key, run=run, ledger=ledger, key=key, witness=witness)
    failed = has_failed(checks)
    if as_json:
        typer.echo(json.dumps({"verified": not failed, "checks": [check._asdict() for check in checks]}, indent=2))
    else:
        for check in checks:
            typer.echo(f"{check.name + ':':<12} {check.outcome:<12} {check.detail}")
    if failed:
        raise typer.Exit(3)


def _checks(
    path: Path,
    *,
    public_key: str | None,
    run: Path | None,
    ledger: Path | None,
    key: Path | None,
    witness: Path | None,
) -> list["Check"]:
    """Every check; what rests on a signature that does not hold is not checked."""
    from fedrec.privacy.report import verify

    text = verify.read_text(path)
    form = verify.format_of(text, path=path)
    signed = verify.signed_document(text, form)
    signature = verify.check_signature(signed)
    if signature.outcome == "FAILED":
        rest = ("signer", "text", "arithmetic", "ledger")
        return [signature, *(verify.Check(name, "not checked", "the signature does not hold") for name in rest)]
    facts = signed.report.facts
    if run is None and ledger is None:
        run, ledger = _run_beside(path, facts), _ledger_beside(path, facts)
    expected, source = (public_key, "the one you named") if public_key else (_run_key(run), "the run's operator's")
    return [
        signature,
        verify.check_signer(signed, expected, source=source),
        verify.check_text(text, signed, form),
        verify.check_arithmetic(signed),
        _ledger_check(facts, run=run, ledger=ledger, key=key, witness=witness),
    ]


def _ledger_check(
    facts: "Facts", *, run: Path | None, ledger: Path | None, key: Path | None, witness: Path | None
) -> "Check":
    from fedrec.errors import PrivacyError, RunError
    from fedrec.privacy.ledger import Ledger
    from fedrec.privacy.report import verify

    try:
        if run is not None:
            return verify.check_ledgers(facts, _run_books(run))
        if ledger is not None:
            files = _ledger_files(ledger, key=key, witness=witness)
            return verify.check_ledgers(facts, {ledger.name: Ledger.open(files, dataset=None, policy=None).entries()})
    except (PrivacyError, RunError) as error:
        return verify.Check("ledger", "FAILED", str(error))
    return verify.Check("ledger", "not checked", "none at hand; name it with --run or --ledger")


def _run_books(run: Path) -> dict:
    from fedrec.agreement import read_agreement
    from fedrec.privacy.report.facts import run_ledgers

    return {name: book.entries() for name, book in run_ledgers(run, read_agreement(run)).items()}


def _run_beside(path: Path, facts: "Facts") -> Path | None:
    return path.parent if facts.source == "run" and _is_run(path.parent) else None


def _ledger_beside(path: Path, facts: "Facts") -> Path | None:
    beside = path.parent / Path(facts.name).name
    return beside if facts.source == "ledger" and beside.is_file() else None


def _run_key(run: Path | None) -> str | None:
    """Public half of the key that signs a run's reports; None where it is not."""
    from fedrec.signing import SigningKey

    path = _operator_key(run) if run is not None else None
    return SigningKey.load(path).public if path is not None and path.exists() else None


def _read_facts(source: Path, *, policy: Path | None, key: Path | None, witness: Path | None) -> "Facts":
    from fedrec.privacy.policy import load_policy
    from fedrec.privacy.report.facts import facts_of_ledger, facts_of_run

    if _is_run(source):
        if policy or key or witness:
            raise ConfigError("--policy, --key, --witness: a run folder has its own; expected them with a LEDGER only")
        return facts_of_run(source)
    if source.is_dir():
        raise ConfigError(f"{source}: neither a run folder (no agreement.json) nor a ledger file")
    policy = policy or source.parent / _POLICY
    loaded = load_policy(policy) if policy.exists() or policy != source.parent / _POLICY else None
    return facts_of_ledger(_ledger_files(source, key=key, witness=witness), loaded)


def _ledger_files(ledger: Path, *, key: Path | None, witness: Path | None) -> "LedgerFiles":
    from fedrec.privacy.ledger import LedgerFiles

    beside = LedgerFiles.beside(ledger)
    return LedgerFiles(ledger, key or beside.key, witness or beside.witness)


def _is_run(path: Path) -> bool:
    return (path / "agreement.json").is_file()


def _operator_key(source: Path) -> Path:
    """Where the key that signs reports of a run or a ledger lies by default."""
    if _is_run(source):
        from fedrec.workspace import operator_key_path

        return operator_key_path(source)
    return source.parent / _OPERATOR_KEY


def _signing_key(path: Path) -> "SigningKey":
    from fedrec.signing import SigningKey

    return SigningKey.load(path) if path.exists() else SigningKey.create(path)


def _default_path(source: Path, form: "Format") -> Path:
    if _is_run(source):
        return source / f"{_RUN_STEM}.{form.value}"
    return source.with_name(f"{source.stem}.{_RUN_STEM}.{form.value}")


def _show_report(signed: "Signed", paths: list[Path], *, as_json: bool) -> None:
    from fedrec.privacy.report.words import verdict_line

    found = signed.report.findings
    if not as_json:
        for path in paths:
            typer.echo(path)
        typer.echo(verdict_line(signed.report.facts, found.verdict))
        return
    shown = {
        **found.model_dump(mode="json", include={"verdict", "guarantee", "headroom"}),
        "files": [str(path) for path in paths],
        "public_key": signed.public_key,
    }
    typer.echo(json.dumps(shown, indent=2, allow_nan=False))
