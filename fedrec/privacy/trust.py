"""Whom a guarantee relies on: who adds the noise, what may be seen, and what has to be said about it.

Each trust model publishes one Gaussian release of standard deviation sigma·C, and the accountant sees no difference:

- local: every client adds all of it to its own update, which may then be shown to anyone.
- distributed: m clients add a share of variance 1/m each, and nobody may see anything but sums of m or more of them.
  Source: Dwork et al. 2006, "Our Data, Ourselves", https://doi.org/10.1007/11761679_29
- central: clients add none; a server that sees their exact sums adds all of it to the sum of a round, once.

Only the first can be had between machines here: there is no secure sum, and nobody to entrust with exact sums.
"""

from typing import TYPE_CHECKING

import numpy as np

from fedrec.errors import PrivacyError
from fedrec.privacy.randomness import SecureRandom

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan

LOCAL, DISTRIBUTED, CENTRAL = TRUSTS = ("local", "distributed", "central")


def check_trust(plan: "PrivacyPlan") -> None:
    """Refuse a plan whose release would not carry the noise that its trust model promises.

    Raises:
        PrivacyError: an unknown word, a number of sharers that does not go with it, or what an exact sum cannot have.
    """
    trust, sharers = plan.trust, plan.noise_sharers
    if trust not in TRUSTS:
        raise PrivacyError(f"trust={trust!r}: expected {', '.join(TRUSTS)}; set privacy.trust")
    least, most = (2, 2**31) if trust == DISTRIBUTED else (1, 1)
    if type(sharers) is not int or not least <= sharers <= most:
        expected = "a whole number >= 2, or there is nobody to share with" if trust == DISTRIBUTED else "1"
        more = "; ask more clients a round, as with --clients" if trust == DISTRIBUTED else ""
        raise PrivacyError(f"noise_sharers={sharers!r}: expected {expected}, under trust={trust}{more}")
    if trust == LOCAL:
        return
    if not plan.private:
        raise PrivacyError(f"trust={trust}: a plan without privacy has no noise to share or to entrust; use local")
    if plan.local_steps != 1:
        # A second step would start from the client's own first one, which carries a share of the noise or none: what
        # one person changes in it would move everybody's gradient, and C would no longer bound that.
        raise PrivacyError(
            f"local_steps={plan.local_steps}: expected 1 under trust={trust}; set federation.local_steps"
        )
    if plan.metric_releases:
        raise PrivacyError(
            f"metric_releases={plan.metric_releases}: expected 0 under trust={trust}: a client's metrics leave alone"
        )


def require_local(trust: str) -> None:
    """Refuse, between machines, what only a simulation can show.

    Raises:
        PrivacyError: any trust but local.
    """
    if trust != LOCAL:
        needs = "a secure sum" if trust == DISTRIBUTED else "a server that may see exact sums"
        raise PrivacyError(f"privacy.trust={trust}: needs {needs}, and there is none: simulation only; use local")


def server_noise(std: float, parameters: int) -> np.ndarray:
    """What a server adds to the sum of one round's updates, once.

    Args:
        std: of each number, >= 0, in units of an update: ``PrivacyPlan.server_noise_std``.
        parameters: P.

    Returns:
        (P,), float64: std·normal from the operating system's entropy, or zeros.
    """
    return std * SecureRandom().normal(parameters) if std > 0 else np.zeros(parameters)


def trust_sentence(trust: str, sharers: int | None) -> str:
    """Who must be trusted for a guarantee.

    Args:
        sharers: m of the distributed model; None where it is not on record.
    """
    if trust == CENTRAL:
        return (
            "Trust: central. Whoever runs the server sees each client's exact clipped sum, and is trusted with it and "
            "to add the noise: simulation only."
        )
    if trust == DISTRIBUTED:
        least, everyone = (f"at least {sharers}", f"all {sharers}") if sharers else ("enough", "all of them")
        return (
            f"Trust: distributed. This is a guarantee of the sum of {least} clients' updates: it holds only if nobody "
            f"sees anything but such sums, and {everyone} add their share of the noise. "
            "No secure sum stood behind this run: simulation only."
        )
    return "Trust: local. Each client adds all of the noise itself, so nobody else needs to be trusted for it."
