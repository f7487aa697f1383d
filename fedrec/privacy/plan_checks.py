"""What makes a privacy plan: every number in range, and noise that really gives the promised epsilon."""

import math
from typing import TYPE_CHECKING

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon, round_up
from fedrec.privacy.steps import check_caps, check_whole
from fedrec.privacy.trust import check_trust

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan


def check_plan(plan: "PrivacyPlan") -> dict[str, float]:
    """Refuse a plan whose claim is not true.

    Returns:
        The plan's fractional numbers, all of type float.

    Raises:
        PrivacyError: a number out of range, an unknown word, or too little noise for the epsilon.
    """
    exact = _check_numbers(plan)
    _check_words(plan)
    check_trust(plan)
    return exact | _check_guarantee(plan)


def check_metrics(releases: int, noise_multiplier: float | None) -> None:
    """Noise exactly when there are metric releases.

    Raises:
        PrivacyError: one without the other, or out of range.
    """
    check_whole("metric_releases", releases, least=0)
    if (noise_multiplier is None) != (releases == 0):
        raise PrivacyError(
            f"metric_noise_multiplier={noise_multiplier}, metric_releases={releases}: "
            "expected a noise multiplier exactly when there are releases"
        )
    if noise_multiplier is not None and number("metric_noise_multiplier", noise_multiplier) < 0:
        raise PrivacyError(f"metric_noise_multiplier={noise_multiplier}: expected a finite number >= 0")


def number(name: str, value: object) -> float:
    """``value`` as a float; raises ``PrivacyError`` naming ``name`` when it is no finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise PrivacyError(f"{name}={value!r}: expected a finite number; set privacy.{name}")
    return float(value)  # type: ignore[arg-type]


def whole(name: str, value: object) -> int:
    """``value`` as it is; raises ``PrivacyError`` naming ``name`` when it is no whole number >= 1."""
    if type(value) is not int or value < 1:
        raise PrivacyError(f"{name}={value!r}: expected a whole number >= 1")
    return value


def _check_numbers(plan: "PrivacyPlan") -> dict[str, float]:
    exact = {name: number(name, getattr(plan, name)) for name in ("noise_multiplier", "sampling_rate", "clip_norm")}
    for name in ("steps", "local_steps", "expected_people"):
        whole(name, getattr(plan, name))
    if not 0.0 < plan.sampling_rate <= 1.0:
        raise PrivacyError(f"sampling_rate={plan.sampling_rate}: expected in (0, 1]; set privacy.sampling_rate")
    if plan.clip_norm <= 0:
        raise PrivacyError(f"clip_norm={plan.clip_norm}: expected > 0; set privacy.clip_norm")
    if plan.clipping not in ("flat", "auto-s"):
        raise PrivacyError(f"clipping={plan.clipping!r}: expected flat or auto-s; set privacy.clipping")
    if plan.steps % plan.local_steps != 0:
        raise PrivacyError(f"steps={plan.steps}: expected a multiple of local_steps={plan.local_steps}")
    check_caps(plan.batch_cap, plan.max_people)
    check_metrics(plan.metric_releases, plan.metric_noise_multiplier)
    if plan.metric_noise_multiplier is not None:
        exact["metric_noise_multiplier"] = float(plan.metric_noise_multiplier)
    return exact


def _check_words(plan: "PrivacyPlan") -> None:
    for name in ("unit", "relation", "accountant"):
        expected = getattr(type(plan), name)  # the default
        if getattr(plan, name) != expected:
            raise PrivacyError(f"{name}={getattr(plan, name)!r}: expected {expected!r}, the only one supported here")


def _check_guarantee(plan: "PrivacyPlan") -> dict[str, float]:
    """The claim must be true: enough noise for the epsilon, or no claim at all."""
    if plan.private is False:
        if plan.epsilon is not None or plan.delta is not None or plan.noise_multiplier != 0:
            raise PrivacyError("a plan without privacy: expected no epsilon, no delta and noise_multiplier=0")
        if plan.metric_noise_multiplier:
            raise PrivacyError("a plan without privacy: expected metric_noise_multiplier=0 or none")
        return {}
    if plan.private is not True:
        raise PrivacyError(f"private={plan.private!r}: expected true or false")
    target, delta = number("epsilon", plan.epsilon), number("delta", plan.delta)
    if target <= 0:
        raise PrivacyError(f"epsilon={target}: expected > 0; set privacy.epsilon")
    spent = composed_epsilon(plan.spendings(), delta)
    if not spent <= target:
        noise = plan.noise_multiplier
        raise PrivacyError(f"noise_multiplier={noise}: gives epsilon {round_up(spent)}, expected <= {target}")
    return {"epsilon": target, "delta": delta}
