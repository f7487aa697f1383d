"""What a merchant can check of its own client before it starts; sends one unsigned question, nothing of its own."""

from collections.abc import Iterator
from datetime import datetime

from clients.people import check_store
from clients.resident import link_of
from clients.serving.store import EventStore
from clients.settings import ClientSettings
from clients.transport import tls_of
from fedrec.agreement import Agreement
from fedrec.code import code_digest
from fedrec.doctor import Check, Finding, check_keys, failed, ok, warning
from fedrec.errors import PrivacyError
from fedrec.invitation import read_invitation, split_address
from fedrec.privacy.accounting import round_up
from fedrec.privacy.ledger import Kind, Ledger, State
from fedrec.privacy.plan import RELATION, UNIT
from fedrec.privacy.policy import Policy, load_policy
from fedrec.privacy.stated import statement_under
from fedrec.reaching import check_reach


def client_checks(settings: ClientSettings, *, now: datetime) -> dict[str, Check]:
    """What to look at, by name; ``now`` is UTC."""

    def reach() -> list[Finding]:
        invitation = read_invitation(settings.federation)
        host, port = split_address(invitation.terms.address)
        tls = tls_of(link_of(settings, invitation))
        if tls is None:
            return [failed("server", "plain HTTP", "join again: nothing would protect what is sent")]
        return check_reach(host, port, tls=tls, now=now)

    return {
        "keys": lambda: check_keys(settings.keys, now=now),
        "invitation": lambda: _check_invitation(settings),
        "events": lambda: _check_events(settings),
        "policy": lambda: _check_policy(settings),
        "ledger": lambda: _check_ledger(settings),
        "server": reach,
    }


def _check_invitation(settings: ClientSettings) -> list[Finding]:
    invitation = read_invitation(settings.federation)
    invitation.agreement()
    return [ok("invitation", f"{invitation.terms.name}: whole; fingerprint {invitation.fingerprint}")]


def _check_events(settings: ClientSettings) -> list[Finding]:
    if settings.store is not None:
        with EventStore.open(settings.store) as store:
            check_store(store, settings)
        return [ok("events", f"{settings.store} can be read; fedrec store status says whether it is whole")]
    try:
        with settings.source.open("rb"):
            return [ok("events", f"{settings.source} can be read; fedrec data check says whether it can be used")]
    except OSError as error:
        mend = "put the file there, or set events in client.toml"
        return [failed("events", f"{settings.source}: {error.strerror}", mend)]


def _check_policy(settings: ClientSettings) -> Iterator[Finding]:
    """Ask the policy of everything that a round would ask it of, people apart."""
    agreement = read_invitation(settings.federation).agreement()
    if settings.not_private:
        yield warning("policy", "NOT PRIVATE: no policy, no noise, nobody is protected", "join a private federation")
        return
    policy, refused = load_policy(settings.policy), False
    for holds in _questions(policy, agreement):
        try:
            holds()
        except PrivacyError as error:
            refused = True
            said, _, mend = str(error).rpartition("; ")
            yield failed("policy", said or mend, mend if said else f"change {settings.policy}, if you mean to allow it")
    if not refused:
        yield ok("policy", f"allows what was agreed on: {agreement.plan.statement()}")


def _questions(policy: Policy, agreement: Agreement) -> Iterator:
    yield lambda: policy.check_server(agreement.server_key)
    yield lambda: policy.check_plan(agreement.plan)
    yield lambda: policy.check_base(agreement.base_digest)
    yield lambda: policy.check_code(code_digest())
    yield lambda: policy.check_metrics(agreement.metrics)


def _check_ledger(settings: ClientSettings) -> list[Finding]:
    """Read all of it; say what was spent and which rounds are left."""
    agreement = read_invitation(settings.federation).agreement()
    policy = None if settings.not_private else load_policy(settings.policy)
    ledger = Ledger.open(settings.ledger_files, dataset=settings.dataset, policy=policy)
    charged = [entry for entry in ledger.entries() if entry.state == State.RESERVED]
    if policy is None:
        return [warning("ledger", f"intact, {len(charged)} charges, NOT PRIVATE", "join a private federation")]
    stated = statement_under(policy, runs=len({(entry.plan, entry.run) for entry in charged}))
    spent = round_up(stated.epsilon(ledger.spendings()))
    training = {entry.round_id for entry in charged if entry.run == agreement.run_id and entry.kind == Kind.TRAINING}
    done = len(training)
    said = (
        f"intact; epsilon {spent} of {policy.max_epsilon} spent at delta {policy.max_delta}, per {UNIT} ({RELATION}), "
        f"by {stated.accountant}; {done} of {agreement.plan.rounds} rounds of this federation charged"
    )
    if done >= agreement.plan.rounds:
        return [warning("ledger", said, "nothing is left of this plan: this client will refuse further rounds")]
    if spent >= policy.max_epsilon:
        mend = f"nothing is left for these people: max_epsilon in {settings.policy} counts all that they ever gave"
        return [failed("ledger", said, mend)]
    return [ok("ledger", said)]
