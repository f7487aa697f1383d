"""What a plan will cost and what other plans would: everything to know before a run, as plain numbers.

Every epsilon is an upper bound, rounded up, at the plan's delta, unit, relation and accountant unless its
name says otherwise.
"""

import math
from typing import Any

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import REPLACE_ONE, ZERO_OUT, composed_epsilon, composed_rdp_epsilon, round_up
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.replanning import promise_of, replanned
from fedrec.privacy.splitter import Split

CLIENTS_OF_A_PERSON = (1, 2, 3, 5, 10)
FACTORS_OF_ROUNDS = (1.5, 2.0, 4.0)
SAMPLING_RATES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
RDP_ACCOUNTANT = "Renyi (RDP) at whole orders, converted by Canonne et al. 2020"

_POINTS = 50  # a longer run is shown at so many rounds


def forecast(plan: PrivacyPlan, *, compare_sampling_rates: bool = False, split: Split | None = None) -> dict[str, Any]:
    """All about a private plan, as JSON values; keys are stable.

    Args:
        split: that the plan was made of, told as ``split``.

    Returns:
        The plan's numbers and statement, and
        ``epsilon_by_round``: [{round, epsilon}], the metric releases spread evenly over the rounds;
        ``epsilon_for_person_at``: {clients: epsilon}, everyone of them running the whole plan;
        ``epsilon_replace_one``, ``epsilon_zero_out``: for other neighbours; ``rdp_epsilon``: the cross-check;
        ``more_rounds``, ``sampling_rates``: see ``more_rounds`` and ``other_rates``.

    Raises:
        PrivacyError: the plan is not private.
    """
    _, delta = promise_of(plan)
    everything = plan.spendings()
    return plan.to_dict() | {
        "rounds": plan.rounds,
        "statement": plan.statement(),
        "delta_is_below_one_over_n": plan.delta_is_below_one_over_n,
        "epsilon_by_round": epsilon_by_round(plan),
        "epsilon_for_person_at": {str(k): _shown(plan.epsilon_for_person_at(k)) for k in CLIENTS_OF_A_PERSON},
        "epsilon_replace_one": round_up(composed_epsilon(everything, delta, relation=REPLACE_ONE)),
        "epsilon_zero_out": round_up(composed_epsilon(everything, delta, relation=ZERO_OUT)),
        "rdp_epsilon": round_up(composed_rdp_epsilon(everything, delta)),
        "rdp_accountant": RDP_ACCOUNTANT,
        "more_rounds": [more_rounds(plan, factor) for factor in FACTORS_OF_ROUNDS],
        "sampling_rates": other_rates(plan) if compare_sampling_rates else None,
        "split": split.to_dict() if split else None,
    }


def epsilon_by_round(plan: PrivacyPlan) -> list[dict[str, Any]]:
    """Epsilon after each round, or after fifty evenly spaced ones; the first and the last are always there."""
    count = min(plan.rounds, _POINTS)
    at = sorted({1, *(math.ceil(plan.rounds * part / count) for part in range(1, count + 1))})
    return [{"round": rounds, "epsilon": _shown(_epsilon_after(plan, rounds))} for rounds in at]


def more_rounds(plan: PrivacyPlan, factor: float) -> dict[str, Any]:
    """What ``factor`` times as many rounds would need, or cost.

    Returns:
        ``rounds``; ``noise_multiplier`` for the same promise, None when no noise reaches it;
        ``epsilon_at_same_noise``: what the plan's own noise would come to.
    """
    rounds = math.ceil(factor * plan.rounds)
    return {
        "rounds": rounds,
        "noise_multiplier": _noise_for(plan, rounds=rounds),
        "epsilon_at_same_noise": _shown(_epsilon_after(plan, rounds)),
    }


def other_rates(plan: PrivacyPlan) -> list[dict[str, Any]]:
    """What other sampling rates would need for the same promise.

    Returns:
        For each rate ``sampling_rate``, ``noise_multiplier`` (None when no noise reaches the promise),
        ``people_per_step``: q·n, ``relative_noise``: sigma/(q·n), the noise on the mean update in units of the
        clip norm, and ``is_best``: whether that is the smallest.
    """
    found = []
    for rate in SAMPLING_RATES:
        noise, people = _noise_for(plan, sampling_rate=rate), rate * plan.expected_people
        relative = None if noise is None else noise / people
        found.append(
            {"sampling_rate": rate, "noise_multiplier": noise, "people_per_step": people, "relative_noise": relative}
        )
    best = min((line["relative_noise"] for line in found if line["relative_noise"] is not None), default=None)
    return [line | {"is_best": best is not None and line["relative_noise"] == best} for line in found]


def _epsilon_after(plan: PrivacyPlan, rounds: int) -> float | None:
    """After some rounds, of the plan or beyond it, with their share of its metric releases, and its counts."""
    releases = math.ceil(plan.metric_releases * min(rounds / plan.rounds, 1.0))
    counts = plan.statistics_noise_multiplier is not None  # before the first round
    return plan.epsilon_after(rounds * plan.local_steps, metric_releases=releases, statistics=counts)


def _noise_for(plan: PrivacyPlan, *, rounds: int | None = None, sampling_rate: float | None = None) -> float | None:
    """The noise that a plan needs in which one public number is different; None when none is enough."""
    promise_of(plan)
    try:
        return replanned(plan, rounds=rounds, sampling_rate=sampling_rate).noise_multiplier
    except PrivacyError:
        return None


def _shown(epsilon: float | None) -> float | None:
    return None if epsilon is None else round_up(epsilon)
