"""A second opinion on epsilon: the Renyi accountant of Opacus, written by other people than the first.

Opacus brings torch and takes seconds to import, so it is imported when asked and never by a ledger.
"""

import math
import warnings
from importlib.metadata import version

from fedrec.errors import PrivacyError
from fedrec.privacy.steps import Steps, check_delta, merged

CROSSCHECK = f"opacus {version('opacus')} RDP"

_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(11, 65), 80, 96, 128, 192, 256, 384, 512, 1024)


def opacus_rdp_epsilon(spendings: tuple[Steps, ...], delta: float) -> float:
    """Epsilon of the same steps by Opacus' Renyi accountant; neighbours add or remove one person.

    Args:
        delta: in (0, 1).

    Returns:
        >= 0; 0 for no steps, infinity without noise. An upper bound like ``composed_epsilon`` and looser.

    Raises:
        PrivacyError: an argument out of range, or a capped batch, which Opacus cannot account for.
    """
    check_delta(delta)
    total = merged(spendings)
    if any(spending.batch_cap is not None for spending in total):
        raise PrivacyError("batch_cap: Opacus accounts for no capped batches; use composed_rdp_epsilon")
    if not total:
        return 0.0
    if any(spending.noise_multiplier == 0 for spending in total):
        return math.inf
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps) for noise, rate, steps, _, _ in total]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # looser, never too low
        return max(float(accountant.get_epsilon(delta, alphas=list(_ORDERS))), 0.0)
