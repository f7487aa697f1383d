"""The privacy plan: every public number of the guarantee in one checked, frozen object.

Sampler, clipper, noise and accountant are built from a plan and from nothing else, so they cannot
disagree. No plan exists whose noise does not give its epsilon: each one is verified when it is made.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import ACCOUNTANT, calibrated_noise_multiplier, epsilon, epsilon_at_clients, round_up
from fedrec.privacy.randomness import RandomSource

if TYPE_CHECKING:
    from fedrec.privacy.mechanism import Mechanism

UNIT = "person at a client"
RELATION = "add or remove one person"
NOT_PRIVATE = "NOT PRIVATE: no noise was added, so this run protects nobody."


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What one client promises each of its people, and how. Public; the same at every client of a run.

    Make one with ``calibrate`` or ``without_privacy``.

    Attributes:
        epsilon: target over all steps, > 0; None without privacy.
        delta: in (0, 1); None without privacy.
        noise_multiplier: sigma; the noise has standard deviation sigma·clip_norm; 0 without privacy.
        sampling_rate: q in (0, 1], chance that a person takes part in a step.
        steps: of the whole run, >= 1.
        local_steps: of one round, divides ``steps``.
        clip_norm: C > 0, L2 norm of what a person can contribute to a step.
        clipping: "flat" or "auto-s".
        expected_people: public constant n >= 1 that stands for a client's size.
        unit, relation, accountant: the words that make epsilon a statement; constants.
        private: false stamps everything made with it NOT PRIVATE.
    """

    epsilon: float | None
    delta: float | None
    noise_multiplier: float
    sampling_rate: float
    steps: int
    local_steps: int
    clip_norm: float
    clipping: str
    expected_people: int
    unit: str = UNIT
    relation: str = RELATION
    accountant: str = ACCOUNTANT
    private: bool = True

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_words(self)
        _check_guarantee(self)

    @classmethod
    def calibrate(
        cls,
        epsilon: float,
        delta: float,
        *,
        sampling_rate: float,
        rounds: int,
        local_steps: int,
        clip_norm: float,
        clipping: str,
        expected_people: int,
    ) -> Self:
        """The plan with the least noise that gives (epsilon, delta) after ``rounds`` rounds.

        Raises:
            PrivacyError: a number out of range or not finite, or an epsilon that no noise reaches.
        """
        steps = _whole("rounds", rounds) * _whole("local_steps", local_steps)
        target, failure = _number("epsilon", epsilon), _number("delta", delta)
        rate = _number("sampling_rate", sampling_rate)
        return cls(
            epsilon=target,
            delta=failure,
            noise_multiplier=calibrated_noise_multiplier(target, failure, rate, steps),
            sampling_rate=rate,
            steps=steps,
            local_steps=local_steps,
            clip_norm=_number("clip_norm", clip_norm),
            clipping=clipping,
            expected_people=expected_people,
        )

    @classmethod
    def without_privacy(
        cls,
        *,
        sampling_rate: float,
        rounds: int,
        local_steps: int,
        clip_norm: float,
        clipping: str,
        expected_people: int,
    ) -> Self:
        """The same steps without noise, for references and debugging. Stamped NOT PRIVATE.

        Raises:
            PrivacyError: a number out of range or not finite.
        """
        return cls(
            epsilon=None,
            delta=None,
            noise_multiplier=0.0,
            sampling_rate=_number("sampling_rate", sampling_rate),
            steps=_whole("rounds", rounds) * _whole("local_steps", local_steps),
            local_steps=local_steps,
            clip_norm=_number("clip_norm", clip_norm),
            clipping=clipping,
            expected_people=expected_people,
            private=False,
        )

    @property
    def rounds(self) -> int:
        return self.steps // self.local_steps

    @property
    def normaliser(self) -> float:
        """What a step's noisy sum is divided by: q·n, public, never a client's true size."""
        return self.sampling_rate * self.expected_people

    @property
    def delta_is_below_one_over_n(self) -> bool:
        """Whether delta < 1/n, without which a mechanism may publish one whole person and still comply."""
        return self.delta is not None and self.delta < 1.0 / self.expected_people

    def epsilon_after(self, steps: int) -> float | None:
        """Epsilon spent by ``steps`` steps, an upper bound; None without privacy.

        Raises:
            PrivacyError: ``steps`` is negative or no whole number.
        """
        if self.delta is None:
            return None
        return epsilon(self.noise_multiplier, self.sampling_rate, steps, self.delta)

    def epsilon_for_person_at(self, clients: int) -> float | None:
        """Epsilon over the whole run of someone who is at ``clients`` clients; None without privacy.

        Raises:
            PrivacyError: ``clients`` is below 1 or no whole number.
        """
        if self.delta is None:
            return None
        return epsilon_at_clients(self.noise_multiplier, self.sampling_rate, self.steps, self.delta, clients=clients)

    def statement(self) -> str:
        """The whole guarantee in one sentence, or the sentence that says there is none."""
        if self.epsilon is None or self.delta is None:
            return NOT_PRIVATE
        below = "below" if self.delta_is_below_one_over_n else "NOT below"
        return (
            f"Each {self.unit} has (epsilon = {round_up(self.epsilon):g}, delta = {self.delta:g})-differential privacy "
            f"over all {self.steps} training steps, "
            f"where neighbouring data sets differ in one person ({self.relation}), "
            f"accounted by {self.accountant}; delta is {below} one over the {self.expected_people} people "
            "expected at a client."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per attribute."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read back ``to_dict`` and verify the guarantee anew.

        Raises:
            PrivacyError: a missing or unknown key, a wrong type, or noise that does not give the epsilon.
        """
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            missing, unknown = sorted(expected - set(values)), sorted(map(str, set(values) - expected))
            raise PrivacyError(f"privacy plan: missing keys {missing}, unknown keys {unknown}; expected neither")
        return cls(**values)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: equal exactly when two plans are."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def mechanism(self, random: RandomSource, *, steps_taken: int = 0) -> "Mechanism":
        """The mechanism that carries out this plan, after ``steps_taken`` steps of it.

        Raises:
            PrivacyError: the plan is private and ``random`` can be predicted.
        """
        from fedrec.privacy.mechanism import Mechanism  # here, so that reading a plan needs no torch

        return Mechanism(self, random, steps_taken=steps_taken)


def _check_numbers(plan: PrivacyPlan) -> None:
    for name in ("noise_multiplier", "sampling_rate", "clip_norm"):
        object.__setattr__(plan, name, _number(name, getattr(plan, name)))  # 1 and 1.0 are one plan, one digest
    for name in ("steps", "local_steps", "expected_people"):
        _whole(name, getattr(plan, name))
    if not 0.0 < plan.sampling_rate <= 1.0:
        raise PrivacyError(f"sampling_rate={plan.sampling_rate}: expected in (0, 1]; set privacy.sampling_rate")
    if plan.clip_norm <= 0:
        raise PrivacyError(f"clip_norm={plan.clip_norm}: expected > 0; set privacy.clip_norm")
    if plan.clipping not in ("flat", "auto-s"):
        raise PrivacyError(f"clipping={plan.clipping!r}: expected flat or auto-s; set privacy.clipping")
    if plan.steps % plan.local_steps != 0:
        raise PrivacyError(f"steps={plan.steps}: expected a multiple of local_steps={plan.local_steps}")


def _check_words(plan: PrivacyPlan) -> None:
    for name, expected in (("unit", UNIT), ("relation", RELATION), ("accountant", ACCOUNTANT)):
        if getattr(plan, name) != expected:
            raise PrivacyError(f"{name}={getattr(plan, name)!r}: expected {expected!r}, the only one supported here")


def _check_guarantee(plan: PrivacyPlan) -> None:
    """The claim must be true: enough noise for the epsilon, or no claim at all."""
    if plan.private is False:
        if plan.epsilon is not None or plan.delta is not None or plan.noise_multiplier != 0:
            raise PrivacyError("a plan without privacy: expected no epsilon, no delta and noise_multiplier=0")
        return
    if plan.private is not True:
        raise PrivacyError(f"private={plan.private!r}: expected true or false")
    target, delta = _number("epsilon", plan.epsilon), _number("delta", plan.delta)
    object.__setattr__(plan, "epsilon", target)
    object.__setattr__(plan, "delta", delta)
    if target <= 0:
        raise PrivacyError(f"epsilon={target}: expected > 0; set privacy.epsilon")
    spent = epsilon(plan.noise_multiplier, plan.sampling_rate, plan.steps, delta)
    if not spent <= target:
        noise = plan.noise_multiplier
        raise PrivacyError(f"noise_multiplier={noise}: gives epsilon {round_up(spent)}, expected <= {target}")


def _number(name: str, value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise PrivacyError(f"{name}={value!r}: expected a finite number; set privacy.{name}")
    return float(value)  # type: ignore[arg-type]


def _whole(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise PrivacyError(f"{name}={value!r}: expected a whole number >= 1")
    return value
