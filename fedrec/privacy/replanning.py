"""The plan for the same promise in which some public number is another one."""

from typing import Any

from fedrec.errors import PrivacyError
from fedrec.privacy.plan import PrivacyPlan

_KEPT = (
    *("sampling_rate", "rounds", "local_steps", "clip_norm", "clipping", "expected_people", "batch_cap", "max_people"),
    *("metric_releases", "metric_noise_multiplier", "statistics_noise_multiplier", "trust", "noise_sharers"),
)


def promise_of(plan: PrivacyPlan) -> tuple[float, float]:
    """Epsilon and delta of a private plan.

    Raises:
        PrivacyError: the plan is not private.
    """
    if plan.epsilon is None or plan.delta is None:
        raise PrivacyError("a plan without privacy: expected a private one, because it promises nothing")
    return plan.epsilon, plan.delta


def replanned(
    plan: PrivacyPlan,
    *,
    rounds: int | None = None,
    sampling_rate: float | None = None,
    statistics_noise_multiplier: float | None = None,
) -> PrivacyPlan:
    """Make a plan for the same promise in which what is given is different, with the training noise that it needs.

    Raises:
        PrivacyError: the plan is not private, or no noise reaches the promise.
    """
    target, delta = promise_of(plan)
    values: dict[str, Any] = {name: getattr(plan, name) for name in _KEPT}
    given = {
        "rounds": rounds,
        "sampling_rate": sampling_rate,
        "statistics_noise_multiplier": statistics_noise_multiplier,
    }
    values |= {name: value for name, value in given.items() if value is not None}
    return PrivacyPlan.calibrate(target, delta, **values)
