"""``fedrec privacy policy``: write a client's limits, and check them."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.code import code_digest
from fedrec.config import FederationConfig, PrivacyConfig
from fedrec.config_policy import MIN_PEOPLE
from fedrec.errors import ConfigError, PrivacyError

if TYPE_CHECKING:
    from fedrec.privacy.policy import Policy

CHECK_EXAMPLES = """Examples:

\b
  fedrec privacy policy check policy.toml
      whether it can be used, and what it allows; exit code 3 when it allows nothing because of a mistake
"""
NEW_EXAMPLES = """Examples:

\b
  fedrec privacy policy new policy.toml --epsilon 3 --server-key 9f0c...
      a strict start; no base and no code is allowed until you list their digests
  fedrec privacy policy new policy.toml --epsilon 3 --server-key 9f0c... --base ./base --this-code
      allows the base in that folder, and the fedrec that is installed here
"""
_MIN_NOISE = 0.5

AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout, nothing else")]

policy_app = typer.Typer(
    help="What a client allows, whatever a server asks.", no_args_is_help=True, rich_markup_mode=None
)


class Parameters(StrEnum):
    """Whether later runs may be chosen after seeing earlier ones."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


@policy_app.command("check", epilog=CHECK_EXAMPLES)
@one_line_errors
def check_command(
    file: Annotated[Path, typer.Argument(help="policy.toml")],
    as_json: AsJson = False,
) -> None:
    """Read a policy as a client would, and say what it allows."""
    from fedrec.privacy.policy import load_policy

    policy = load_policy(file)
    if as_json:
        typer.echo(json.dumps(policy.model_dump(mode="json") | {"digest": policy.digest()}, indent=2))
    else:
        typer.echo(_text(policy))


@policy_app.command("new", epilog=NEW_EXAMPLES)
@one_line_errors
def new_command(
    file: Annotated[Path, typer.Argument(help="a file that does not exist yet")],
    epsilon: Annotated[float, typer.Option(help="everything this client's people will ever give")],
    server_key: Annotated[str, typer.Option(help="the server's public key, 64 hex digits")],
    delta: Annotated[float | None, typer.Option(help="failure probability [1e-5, twice that if adaptive]")] = None,
    min_noise_multiplier: Annotated[float, typer.Option(help="least noise of any release")] = _MIN_NOISE,
    max_clip_norm: Annotated[float | None, typer.Option(help="largest contribution of a person [1]")] = None,
    max_sampling_rate: Annotated[float | None, typer.Option(help="largest share sampled [0.25]")] = None,
    max_rounds: Annotated[int | None, typer.Option(help="rounds over the ledger's life [30]")] = None,
    max_rounds_per_day: Annotated[int | None, typer.Option(help="rounds in any 24 hours [as many]")] = None,
    min_people: Annotated[int, typer.Option(help="no training with fewer people")] = MIN_PEOPLE,
    parameters: Annotated[
        Parameters, typer.Option(help="adaptive: stricter, and right when a run is chosen after seeing another")
    ] = Parameters.ADAPTIVE,
    base: Annotated[list[Path] | None, typer.Option(help="folder of a base that may be trained on; repeatable")] = None,
    this_code: Annotated[bool, typer.Option("--this-code", help="allow the fedrec that is installed here")] = False,
    metric: Annotated[list[str] | None, typer.Option(help="noised metric that may leave; repeatable")] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="let noised counts of items and pairs leave, once in a run")
    ] = False,
) -> None:
    """Write a commented policy to start from. Whatever base, code or metric you don't name is not allowed."""
    from fedrec.privacy.plan import UNIT
    from fedrec.privacy.policy import parse_policy, write_policy

    if file.exists():
        raise ConfigError(f"{file}: exists; edit it, or choose another place")
    privacy, federation = PrivacyConfig(), FederationConfig()
    rounds = federation.rounds if max_rounds is None else max_rounds
    daily = rounds if max_rounds_per_day is None else max_rounds_per_day
    values = {
        "version": 1,
        "unit": UNIT,
        "max_epsilon": epsilon,
        "max_delta": _default_delta(parameters) if delta is None else delta,
        "parameters": parameters.value,
        "min_noise_multiplier": min_noise_multiplier,
        "max_clip_norm": privacy.clip_norm if max_clip_norm is None else max_clip_norm,
        "max_sampling_rate": privacy.sampling_rate if max_sampling_rate is None else max_sampling_rate,
        "max_steps_total": rounds * federation.local_steps,
        "max_steps_per_day": daily * federation.local_steps,
        "max_rounds_total": rounds,
        "max_rounds_per_day": daily,
        "min_people": min_people,
        "allowed_metrics": metric or [],
        "statistics": statistics,
        "allowed_bases": _base_digests(base or []),
        "allowed_code": [code_digest()] if this_code else [],
        "server_key": server_key,
    }
    try:
        policy = parse_policy(values, source="flags")
    except PrivacyError as error:
        raise ConfigError(str(error).replace("; nothing is allowed until this is mended", "")) from None
    write_policy(policy, file)
    missing = [name for name in ("allowed_bases", "allowed_code") if not values[name]]
    typer.echo(
        f"{file}: written" + (f"; nothing can run until you list it in {' and '.join(missing)}" if missing else "")
    )


def _default_delta(parameters: Parameters) -> float:
    """Enough for a plan at the default delta: an adaptive policy keeps half for what comes after the first run."""
    return PrivacyConfig().delta * (2 if parameters is Parameters.ADAPTIVE else 1)


def _base_digests(folders: list[Path]) -> list[str]:
    if not folders:
        return []
    from fedrec.model.base import base_digest  # torch comes with it

    try:
        return [base_digest(folder) for folder in folders]
    except OSError as error:
        raise ConfigError(f"--base: {error.filename}: {error.strerror}; expected the folder of a base") from None


def _text(policy: "Policy") -> str:
    """Every limit with its meaning."""
    fields = type(policy).model_fields
    lines = [f"{name:<21} {_shown(value):<24} {fields[name].description}" for name, value in policy]
    return "\n".join([*lines, f"{'digest':<21} {policy.digest()}"])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} listed" if value else "none"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
