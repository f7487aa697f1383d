"""Accepting an invitation: a merchant's folder, made whole on the merchant's own machine. Nothing leaves it here."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clients.own import open_own
from clients.people import keep_store
from clients.settings import FILE, ClientSettings, load_client_settings, write_client_settings
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.data.rules import RuleCount
from fedrec.drafts import whole_folder
from fedrec.errors import ConfigError, DataError, PrivacyError
from fedrec.invitation import Invitation, copy_invitation, read_invitation
from fedrec.keyfiles import make_client, read_certificate
from fedrec.privacy.ledger import Ledger, LedgerFiles
from fedrec.privacy.policy import Policy, write_policy


class Wishes(NamedTuple):
    """What a merchant insists on.

    Attributes:
        max_epsilon: refuse a federation that asks for more; None takes what the agreed plan asks.
        min_people: of the policy that is written, >= 1.
        fingerprint: of the invitation, as the operator told it over another channel; None does not compare.
        allow_not_private: take part in a federation that protects nobody.
    """

    min_people: int
    max_epsilon: float | None = None
    fingerprint: str | None = None
    allow_not_private: bool = False


class Joined(NamedTuple):
    """What was made and agreed to.

    Attributes:
        agreement: that was accepted.
        policy: that was written; None without privacy.
        fingerprint: of the invitation.
        rules: what cleaning dropped from the events.
        people: who are left; for the owner's eyes.
    """

    agreement: Agreement
    policy: Policy | None
    fingerprint: str
    rules: tuple[RuleCount, ...]
    people: int


def join(
    invitation: Path,
    out: Path,
    *,
    name: str,
    wishes: Wishes,
    events: Path | None = None,
    store: Path | None = None,
    columns: Mapping[str, str] | None = None,
    ledger: Path | None = None,
    certificate_request: bool = False,
) -> Joined:
    """Make ``out``: keys, the invitation's copy, a policy, a ledger and ``client.toml``; whole or not at all.

    Args:
        invitation: folder that the operator sent.
        out: does not exist.
        name: what the operator will call this client; public.
        wishes: under which to join.
        events: CSV or Parquet; or else
        store: the shop's own. Once ``out`` is whole the store knows its people's ledger for ever.
        columns: our event field = the file's column.
        ledger: of these people, who took part in a federation before; a new one is made when None.
        certificate_request: also make a TLS key and a request for a certificate.

    Raises:
        ConfigError, RunError, DataError: the invitation is not whole or another one, ``out`` exists, or the events
            cannot be used.
        PrivacyError: the federation asks for more than the wishes allow, or the people have another ledger.
    """
    _check_given(events, store)
    offered = _offered(invitation, wishes)
    with whole_folder(out) as draft:
        copy = copy_invitation(offered, draft / "federation")
        read_certificate(copy.authority)
        agreement = copy.agreement()
        _check(agreement, wishes)
        make_client(draft / "keys", name, with_request=certificate_request)
        dataset = Ledger.open(LedgerFiles.beside(ledger), dataset=None, policy=None).dataset if ledger else None
        own_files = {"events": events, "store": store, "ledger": ledger}
        settings = _settings(
            draft,
            out,
            own_files={setting: path for setting, path in own_files.items() if path is not None},
            name=name,
            dataset=dataset or secrets.token_hex(32),
            columns=dict(columns or {}),
            not_private=not agreement.plan.private,
        )
        policy = _policy(agreement, min_people=wishes.min_people)
        if policy is not None:
            write_policy(policy, settings.policy)
        if ledger is None:
            Ledger.create(settings.ledger_files, dataset=settings.dataset, policy=policy)
        own = open_own(settings, keeps=False)  # what refuses to start later refuses here
    keep_store(settings)
    return Joined(agreement, policy, offered.fingerprint, own.rules, own.people)


def _check_given(events: Path | None, store: Path | None) -> None:
    if (events is None) == (store is None):
        raise ConfigError("--data or --store: expected one of the two, your events as a file or in your own store")
    if events is not None and not events.is_file():
        raise DataError(f"{events}: no such file; --data expects your events, CSV or Parquet")


def _settings(draft: Path, out: Path, *, own_files: Mapping[str, Path], **values: Any) -> ClientSettings:
    """Write ``client.toml``, as it will hold once the draft is ``out``; errors name the files as they were given."""
    home = out.parent.resolve() / out.name
    relative = {setting: os.path.relpath(path.resolve(), home) for setting, path in own_files.items()}
    write_client_settings(draft / FILE, **values, **relative)
    return load_client_settings(draft / FILE).model_copy(update=dict(own_files))


def _offered(path: Path, wishes: Wishes) -> Invitation:
    offered = read_invitation(path)
    if wishes.fingerprint is not None and wishes.fingerprint.lower() != offered.fingerprint:
        raise ConfigError(
            f"{path}: its fingerprint is {offered.fingerprint}, not the one given; it is not this operator's"
        )
    return offered


def _check(agreement: Agreement, wishes: Wishes) -> None:
    plan = agreement.plan
    if not plan.private and not wishes.allow_not_private:
        raise PrivacyError(
            "this federation is NOT PRIVATE: no noise is added, nobody is protected; "
            "--allow-not-private joins all the same"
        )
    if plan.epsilon is not None and wishes.max_epsilon is not None and not plan.epsilon <= wishes.max_epsilon:
        raise PrivacyError(f"--max-epsilon {wishes.max_epsilon:g}: the federation asks for more. {plan.statement()}")


def _policy(agreement: Agreement, *, min_people: int) -> Policy | None:
    """The strictest policy under which the agreed plan runs with the code that is installed here."""
    if not agreement.plan.private:
        return None
    return Policy.for_plan(
        agreement.plan,
        base=agreement.base_digest,
        code=code_digest(),
        server_key=agreement.server_key,
        metrics=agreement.metrics,
        min_people=min_people,
        statistics=agreement.statistics is not None,
    )
