"""``fedrec privacy audit``: attack the clients' own code and compare what it shows with what the plan claims."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.errors import one_line_errors
from fedrec.errors import PrivacyError
from fedrec.paths import make_app_importable

if TYPE_CHECKING:
    from fedrec.agreement import Agreement
    from fedrec.model.ranker import Ranker
    from fedrec.model.statistics import Counting
    from fedrec.privacy.audit.suite import Audit

AUDIT_EXAMPLES = """\b
Examples:
  fedrec privacy audit
      the installed code under the default plan; seconds
  fedrec privacy audit runs/eps3
      the plan, base and adapter of that run; writes runs/eps3/audit.json
  fedrec privacy audit --canaries 5000 --json
      a stronger attack, as one JSON document
"""
FILE = "audit.json"
_NOMINAL_PEOPLE = 74  # of a merchant of the bundled data among fifty; it only scales what is released
_ITEMS = 200  # of a made-up catalogue
_CANARIES = 2000


@one_line_errors
def audit_command(
    run: Annotated[Path | None, typer.Argument(help="run folder whose plan and model are audited")] = None,
    canaries: Annotated[int, typer.Option(help="gradients planted; more find more")] = _CANARIES,
    as_json: Annotated[bool, typer.Option("--json", help="print audit.json on stdout, nothing else")] = False,
) -> None:
    """Plant canaries among made-up people, run the clients' own code, and see whether the claim survives.

    Exit code 3 when a lower bound exceeds the claimed epsilon or any check fails.
    """
    make_app_importable()
    from fedrec.quiet import silence

    silence()
    from clients.audited import audited_clients  # torch comes with it
    from fedrec.privacy.audit.suite import run_audit
    from fedrec.runfolder import write_json

    agreement, ranker, counting = _of_run(run) if run is not None else (*_of_defaults(), None)
    with audited_clients(agreement, ranker, counting=counting) as engine:
        audit = run_audit(engine, canaries=canaries, base=agreement.base_digest if run is not None else None)
    if run is not None:
        write_json(run / FILE, audit.to_dict())
    typer.echo(json.dumps(audit.to_dict(), indent=2) if as_json else _text(audit))
    if failed := [check.name for check in audit.checks if not check.passed]:
        raise PrivacyError(f"the audit failed: {'; '.join(failed)}; do not rely on the claim")


def _of_run(run: Path) -> tuple["Agreement", "Ranker", "Counting | None"]:
    """What a run's own clients agreed to, over its own base."""
    from fedrec.agreement import agreed_counting, agreed_ranker, read_agreement

    agreement = read_agreement(run)
    return agreement, agreed_ranker(agreement, run), agreed_counting(agreement, run)


def _of_defaults() -> tuple["Agreement", "Ranker"]:
    """The default plan and adapter over a base that was never trained, with a made-up catalogue."""
    import numpy as np

    from fedrec.agreement import Agreement
    from fedrec.config import Config
    from fedrec.model.adapters import AdapterSpec, attach_adapter
    from fedrec.model.base import new_ranker
    from fedrec.model.decoder import small_llama
    from fedrec.model.ranker import RankerSpec
    from fedrec.privacy.plan import PrivacyPlan

    config = Config()
    model, privacy, federation = config.model, config.privacy, config.federation
    decoder = small_llama(
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        feed_forward=model.feed_forward,
        history=model.history,
    )
    spec = RankerSpec(decoder, model.history, model.text_window, model.text_decay, model.text_scale, dropout=0.0)
    vectors = np.random.default_rng(0).standard_normal((_ITEMS, config.items.dimensions))
    ranker = new_ranker(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), spec, seed=config.seed)
    adapter = AdapterSpec(**config.adapter.model_dump())
    attach_adapter(ranker, adapter, seed=config.seed)
    plan = PrivacyPlan.calibrate(
        privacy.epsilon,
        privacy.delta,
        sampling_rate=privacy.sampling_rate,
        rounds=federation.rounds,
        local_steps=federation.local_steps,
        clip_norm=privacy.clip_norm,
        clipping=privacy.clipping,
        expected_people=privacy.expected_people or _NOMINAL_PEOPLE,
    )
    rate, mask_last = federation.local_learning_rate, config.data.merge_repeats
    digest = server_key = "0" * 64  # an audit asks the clients itself, and signs nothing
    return Agreement("audit", digest, adapter, plan, rate, mask_last, None, config.seed, server_key), ranker


def _text(audit: "Audit") -> str:
    """The claim, each check, the verdict."""
    from fedrec.privacy.trust import CENTRAL, DISTRIBUTED

    lines = [f"Claim: {audit.plan.statement()}", ""]
    lines += [f"{'ok' if c.passed else 'FAILED':<8}{c.name}\n        {c.detail}" for c in audit.checks]
    passed = sum(check.passed for check in audit.checks)
    verdict = "the claim stands" if audit.passed else "the claim does NOT stand"
    lines += ["", f"{passed} of {len(audit.checks)} checks hold with {audit.attack.canaries} canaries: {verdict}"]
    lines += ["An audit finds faults that show; it proves no promise. Metric releases are not attacked."]
    if audit.plan.trust == DISTRIBUTED:
        lines += [f"Attacked was the sum of {audit.plan.noise_sharers} clients, all but one without people."]
    if audit.plan.trust == CENTRAL:
        lines += ["Attacked was a client's sum with the noise of the function that a server calls; no server ran."]
    return "\n".join([*lines, f"{audit.seconds:.1f} s"])
