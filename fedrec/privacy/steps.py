"""What is spent: some steps of one mechanism, checked, and many of them merged into one canonical list."""

import math
from collections import defaultdict
from typing import NamedTuple

from fedrec.errors import PrivacyError


class Steps(NamedTuple):
    """Some steps of one mechanism: Poisson sampling at a rate, then Gaussian noise of sigma x clip norm.

    Attributes:
        noise_multiplier: sigma >= 0; 0 means no noise.
        sampling_rate: q in (0, 1], the probability that a person is in a step; 1 means everyone.
        steps: >= 0.
        batch_cap: >= 1, at most so many of those sampled take part, chosen uniformly; None: all of them.
        max_people: >= 1, a public bound on the people a client may have; None exactly when ``batch_cap`` is.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    batch_cap: int | None = None
    max_people: int | None = None


def merged(spendings: tuple[Steps, ...]) -> tuple[Steps, ...]:
    """Check each, add up those of one mechanism and sort: equal histories become equal tuples.

    Raises:
        PrivacyError: a number out of range or not finite.
    """
    totals: dict[tuple[float, float, int, int], int] = defaultdict(int)
    for spending in spendings:
        noise, rate, steps, cap, people = checked(spending)
        totals[noise, rate, cap or 0, people or 0] += steps
    return tuple(
        Steps(noise, rate, steps, cap or None, people or None)
        for (noise, rate, cap, people), steps in sorted(totals.items())
        if steps > 0
    )


def checked(spending: Steps) -> Steps:
    """The same steps with plain numbers; a cap that can never bind is left out.

    Raises:
        PrivacyError: a number out of range or not finite, or one cap without the other.
    """
    noise, rate, steps, cap, people = spending
    if not (math.isfinite(noise) and noise >= 0):
        raise PrivacyError(f"noise_multiplier={noise}: expected a finite number >= 0")
    if not 0.0 < rate <= 1.0:
        raise PrivacyError(f"sampling_rate={rate}: expected a fraction in (0, 1]; set privacy.sampling_rate")
    check_whole("steps", steps, least=0)
    check_caps(cap, people)
    if cap is not None and people is not None and cap >= people:
        cap = people = None
    return Steps(float(noise), float(rate), steps, cap, people)


def check_caps(batch_cap: int | None, max_people: int | None) -> None:
    """Both or neither, because how often the cap binds depends on how many people there may be.

    Raises:
        PrivacyError: one without the other, or no whole number >= 1.
    """
    if (batch_cap is None) != (max_people is None):
        raise PrivacyError(f"batch_cap={batch_cap}, max_people={max_people}: expected both or neither")
    if batch_cap is not None and max_people is not None:
        check_whole("batch_cap", batch_cap, least=1)
        check_whole("max_people", max_people, least=1)


def check_delta(delta: float) -> None:
    """Raises ``PrivacyError`` unless ``delta`` is a probability strictly between 0 and 1."""
    if not 0.0 < delta < 1.0:
        raise PrivacyError(f"delta={delta}: expected a number in (0, 1); set privacy.delta")


def check_whole(name: str, value: int, *, least: int) -> None:
    """Raises ``PrivacyError`` naming ``name`` unless ``value`` is a whole number >= ``least``."""
    if type(value) is not int or value < least:
        raise PrivacyError(f"{name}={value!r}: expected a whole number >= {least}")
