"""A merchant from its own files: what ``client.toml`` names, and nothing from anybody else but the invitation."""

from dataclasses import dataclass

from clients.merchant import Merchant
from clients.opening import local_training, resident
from clients.people import keep_store, read_people
from clients.replies import ReplyCache
from clients.settings import ClientSettings
from clients.training import RankerLearner
from fedrec.agreement import Agreement
from fedrec.data.rules import RuleCount
from fedrec.errors import PrivacyError
from fedrec.invitation import Invitation, read_invitation
from fedrec.keyfiles import REPLY_KEY
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.policy import Policy, load_policy
from fedrec.privacy.trust import require_local
from fedrec.signing import SigningKey


@dataclass(frozen=True, eq=False)
class Own:
    """A merchant that is ready for its first round, and what its owner may want to know.

    Attributes:
        invitation: that was accepted.
        agreement: in it.
        policy: the owner's; None when the plan is stamped NOT PRIVATE.
        ledger: of this merchant's people.
        merchant: trains when asked.
        rules: what cleaning dropped from the events.
        people: who are left; for the owner's eyes.
    """

    invitation: Invitation
    agreement: Agreement
    policy: Policy | None
    ledger: Ledger
    merchant: Merchant
    rules: tuple[RuleCount, ...]
    people: int


def open_own(settings: ClientSettings, *, keeps: bool = True) -> Own:
    """Read everything, load the model, try it on made-up people, and ask the policy.

    Args:
        keeps: let the store, if there is one, know the ledger of its people, before anything is spent on them.

    Raises:
        DataError: the events cannot be used.
        ConfigError, RunError: the invitation is not whole, or the key for replies or the store is missing.
        PrivacyError: the policy or the ledger is missing or damaged, or the policy does not allow this federation,
            or its trust is not local, or the store's people are counted in another ledger.
    """
    invitation = read_invitation(settings.federation)
    agreement, (_, ranker, counting) = invitation.agreement(), resident(settings.federation.resolve())
    require_local(agreement.plan.trust)
    policy = _policy(settings, agreement)
    ledger = Ledger.open(settings.ledger_files, dataset=settings.dataset, policy=policy)
    histories, rules = read_people(
        invitation,
        settings,
        merge_repeats=agreement.mask_last,  # a federation in which the last item is never next has merged repeats
        items=ranker.items,
    )
    merchant = Merchant(
        agreement,
        learner=RankerLearner(ranker, histories, local_training(agreement)),
        policy=policy,
        ledger=ledger,
        replies=ReplyCache.of_run(settings.replies, agreement.run_id),
        partition=int(settings.dataset[:8], 16),
        reply_key=SigningKey.load(settings.keys / REPLY_KEY),
        counting=counting,
    )
    merchant.check_policy(merchant.metrics)
    if keeps:
        keep_store(settings)
    return Own(invitation, agreement, policy, ledger, merchant, rules, len(histories))


def _policy(settings: ClientSettings, agreement: Agreement) -> Policy | None:
    """The owner's limits; with ``not_private`` there are none, and the plan must say so too."""
    if settings.not_private != (not agreement.plan.private):
        plan = "private" if agreement.plan.private else "NOT PRIVATE"
        said = str(settings.not_private).lower()
        raise PrivacyError(f"client.toml: not_private = {said}, and the agreed plan is {plan}; join again")
    return None if settings.not_private else load_policy(settings.policy)
