"""By what and at which delta the loss recorded in a ledger may be stated: the same as its charges are checked by."""

from typing import NamedTuple

from fedrec.privacy.accounting import ACCOUNTANT, Steps
from fedrec.privacy.filter import filter_epsilon, renyi_order
from fedrec.privacy.ledger_limits import spent_epsilon
from fedrec.privacy.policy import Policy


class Statement(NamedTuple):
    """How an epsilon is computed.

    Attributes:
        delta: that it is computed at; half of an adaptive policy's.
        order: of the Renyi filter; None where privacy loss distributions bound what was spent.
        accountant: the same in words, to stand after "by" in a statement at the policy's delta.
    """

    delta: float
    order: int | None
    accountant: str

    def epsilon(self, spendings: tuple[Steps, ...]) -> float:
        """Epsilon of what was spent, an upper bound; 0 for nothing, infinity without noise."""
        if self.order is None:
            return spent_epsilon(spendings, self.delta)
        return filter_epsilon(spendings, self.delta, order=self.order)


def statement_under(policy: Policy, *, runs: int) -> Statement:
    """How to state what a ledger has spent.

    Privacy loss distributions bound the loss of parameters fixed in advance. Under an adaptive policy those of a
    second run may have been chosen after seeing the first one's results: then only the filter bounds the loss.

    Args:
        runs: pairs of plan and run that the ledger was ever charged for, settled ones too.

    Raises:
        PrivacyError: the policy's epsilon is so small that no filter allows anything.
    """
    delta = policy.checked_delta
    half = "" if delta == policy.max_delta else ", at half of that delta"
    if policy.parameters == "fixed" or runs <= 1:
        return Statement(delta, None, f"{ACCOUNTANT}{half}")
    order = renyi_order(policy.max_epsilon, delta)
    return Statement(delta, order, f"the Renyi filter of order {order}{half}")
