"""Privacy loss distributions (PLD) of our mechanisms, from Google's library, discretised upwards.

The library is imported inside the functions: it takes seconds, and whoever only reads a plan or charges
a ledger within its plan needs none of it.
Source: Doroshenko et al. 2022, https://arxiv.org/abs/2207.04380 (connect the dots); for a capped batch
Chua et al. 2025, https://arxiv.org/abs/2508.15089.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from fedrec.privacy.steps import Steps

if TYPE_CHECKING:
    from dp_accounting import NeighboringRelation
    from dp_accounting.dp_event import DpEvent
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

ADD_OR_REMOVE = "add or remove one person"
REPLACE_ONE = "replace one person"
ZERO_OUT = "zero out one person"
RELATIONS = (ADD_OR_REMOVE, REPLACE_ONE, ZERO_OUT)


def composed_loss(spendings: tuple[Steps, ...], interval: float, relation: str) -> "PrivacyLossDistribution":
    """The loss of everything in ``spendings``, which are merged and have noise.

    Args:
        interval: width of a cell of the discretisation, > 0.
        relation: one of ``RELATIONS``.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not spendings:
        return pld.identity(interval)
    *others, last = spendings
    total = _loss(last, interval, relation)
    return _composed_others(tuple(others), interval, relation).compose(total) if others else total


def event_of(spending: Steps) -> "DpEvent":
    """The library's name for these steps, for its own accountants."""
    from dp_accounting import dp_event

    noise, rate, steps, cap, people = spending
    step: DpEvent
    if cap is not None and people is not None:
        step = dp_event.TruncatedSubsampledGaussianDpEvent(people, rate, cap, noise)
    else:
        gaussian = dp_event.GaussianDpEvent(noise)
        step = gaussian if rate == 1.0 else dp_event.PoissonSampledDpEvent(rate, gaussian)
    return dp_event.SelfComposedDpEvent(step, steps)


def event_of_all(spendings: tuple[Steps, ...], *, private: bool) -> "DpEvent":
    """The library's name for all of it; one without any promise unless ``private``."""
    from dp_accounting import dp_event

    if not private:
        return dp_event.NonPrivateDpEvent()
    return dp_event.ComposedDpEvent([event_of(spending) for spending in spendings])


@lru_cache(maxsize=16)
def _composed_others(spendings: tuple[Steps, ...], interval: float, relation: str) -> "PrivacyLossDistribution":
    """Everything but the last mechanism, which is the one that grows from charge to charge."""
    return composed_loss(spendings, interval, relation)


def _loss(spending: Steps, interval: float, relation: str) -> "PrivacyLossDistribution":
    noise, rate, steps, cap, people = spending
    if rate == 1.0 and cap is None:  # Gaussians compose exactly into one, another for each number of steps: not kept
        return _gaussian(noise / math.sqrt(steps), 1.0, interval, relation)
    return _one_step(Steps(noise, rate, 1, cap, people), interval, relation).self_compose(steps)


@lru_cache(maxsize=16)
def _one_step(spending: Steps, interval: float, relation: str) -> "PrivacyLossDistribution":
    """One step; where the batch is capped, at the worst of all client sizes up to ``max_people``.

    Given how many of the others are sampled, the step is a plain Poisson step, or the batch is full and the
    person, with probability at most q, takes the place of another, which moves the sum by at most 2C. A full batch
    is likeliest at the largest client, and the second case costs more than the first, so the mixture below holds
    for all sizes. The library's own capped mechanism is for one size; its epsilon falls again beyond a size, so
    taken at ``max_people`` it would understate what smaller clients lose. Like it, we count the second case as a
    replacement, which is a little more than needed.
    """
    noise, rate, _, _, _ = spending
    plain = _gaussian(noise, rate, interval, relation)
    full = cap_probability(spending)
    return plain if full == 0.0 else _gaussian(noise / 2, rate, interval, REPLACE_ONE).compute_mixture(plain, full)


def _gaussian(noise: float, rate: float, interval: float, relation: str) -> "PrivacyLossDistribution":
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=interval,
        pessimistic_estimate=True,
        neighboring_relation=_neighbours(relation),
    )


def cap_probability(spending: Steps) -> float:
    """How likely the others alone fill a capped batch at the largest client; 0 without a cap."""
    from scipy import stats

    _, rate, _, cap, people = spending
    return 0.0 if cap is None or people is None else float(stats.binom.sf(cap - 1, people - 1, rate))


def _neighbours(relation: str) -> "NeighboringRelation":
    from dp_accounting import NeighboringRelation

    known = {
        ADD_OR_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
        REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
        ZERO_OUT: NeighboringRelation.REPLACE_SPECIAL,
    }
    return known[relation]
