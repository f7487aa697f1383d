"""What makes a privacy plan: every number in range, and noise that really gives the promised epsilon."""

import math
from typing import TYPE_CHECKING

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon, round_up
from fedrec.privacy.steps import Steps, check_caps, check_whole
from fedrec.privacy.trust import check_trust

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan

_RELEASE_NOISES = ("metric_noise_multiplier", "statistics_noise_multiplier")


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


def releases_of(
    metric_releases: int, metric_noise_multiplier: float | None, statistics_noise_multiplier: float | None
) -> tuple[Steps, ...]:
    """What is released besides training steps, each kind as one spending in which everyone takes part.

    Raises:
        PrivacyError: metric releases without noise or the other way round, or a number out of range.
    """
    check_whole("metric_releases", metric_releases, least=0)
    if (metric_noise_multiplier is None) != (metric_releases == 0):
        raise PrivacyError(
            f"metric_noise_multiplier={metric_noise_multiplier}, metric_releases={metric_releases}: "
            "expected a noise multiplier exactly when there are releases"
        )
    planned = {
        "metric": (metric_noise_multiplier, metric_releases),
        "statistics": (statistics_noise_multiplier, 1),
    }
    return tuple(
        one_release(kind, noise)._replace(steps=times) for kind, (noise, times) in planned.items() if noise is not None
    )


def one_release(kind: str, noise_multiplier: float | None) -> Steps:
    """What one release spends in which everyone takes part, so that nothing is amplified.

    Raises:
        PrivacyError: there is none, or its noise is out of range.
    """
    name = f"{kind}_noise_multiplier"
    if noise_multiplier is None:
        raise PrivacyError(f"{name}=None: this plan releases none; make one that does")
    if number(name, noise_multiplier) < 0:
        raise PrivacyError(f"{name}={noise_multiplier}: expected a finite number >= 0")
    return Steps(float(noise_multiplier), 1.0, 1)


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
    noises = {name: getattr(plan, name) for name in _RELEASE_NOISES}
    releases_of(plan.metric_releases, *noises.values())
    return exact | {name: float(noise) for name, noise in noises.items() if noise is not None}


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
        for name in _RELEASE_NOISES:
            if getattr(plan, name):
                raise PrivacyError(f"a plan without privacy: expected {name}=0 or none")
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
