"""The privacy plan: every public number of the guarantee in one checked, frozen object.

Sampler, clipper, noise and accountant are built from a plan and from nothing else, so they cannot
disagree. No plan exists whose noise does not give its epsilon: each one is verified when it is made.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import (
    ACCOUNTANT,
    ADD_OR_REMOVE,
    Steps,
    calibrated_noise_multiplier,
    composed_epsilon,
)
from fedrec.privacy.losses import event_of_all
from fedrec.privacy.plan_checks import check_plan, number, one_release, releases_of, whole
from fedrec.privacy.plan_words import statement_of
from fedrec.privacy.randomness import RandomSource
from fedrec.privacy.several import epsilon_at_clients
from fedrec.privacy.trust import CENTRAL, LOCAL

if TYPE_CHECKING:
    from dp_accounting.dp_event import DpEvent

    from fedrec.privacy.mechanism import Mechanism

UNIT = "person at a client"
RELATION = ADD_OR_REMOVE


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What one client promises each of its people, and how. Public; the same at every client of a run.

    Make one with ``calibrate`` or ``without_privacy``.

    Attributes:
        epsilon: target over all steps and releases, > 0; None without privacy.
        delta: in (0, 1); None without privacy.
        noise_multiplier: sigma; what is published carries noise of standard deviation sigma·clip_norm: one client's
            release under local trust, a round's sum under the others; 0 without privacy.
        sampling_rate: q in (0, 1], chance that a person takes part in a step.
        steps: of the whole run, >= 1.
        local_steps: of one round, divides ``steps``.
        clip_norm: C > 0, L2 norm of what a person can contribute to a step.
        clipping: "flat" or "auto-s".
        expected_people: public constant n >= 1 that stands for a client's size.
        batch_cap: at most so many of the sampled people take part in a step, >= 1; None: all of them.
        max_people: public bound on the people at any client, >= 1; None exactly when ``batch_cap`` is.
        metric_releases: noised evaluations that the promise leaves room for, >= 0.
        metric_noise_multiplier: noise of each, in units of what one person can move it; None without any,
            0 without privacy.
        statistics_noise_multiplier: of the one release of counts, in units of what one person can move them; None
            when there is none, 0 without privacy.
        trust: "local", "distributed" or "central": who adds the noise; see ``fedrec.privacy.trust``.
        noise_sharers: m, how many clients' noises add up in every sum that is published; 1 unless distributed.
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
    batch_cap: int | None = None
    max_people: int | None = None
    metric_releases: int = 0
    metric_noise_multiplier: float | None = None
    statistics_noise_multiplier: float | None = None
    trust: str = LOCAL
    noise_sharers: int = 1
    unit: str = UNIT
    relation: str = RELATION
    accountant: str = ACCOUNTANT
    private: bool = True

    def __post_init__(self) -> None:
        for name, value in check_plan(self).items():
            object.__setattr__(self, name, value)  # 1 and 1.0 are one plan, one digest

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
        batch_cap: int | None = None,
        max_people: int | None = None,
        metric_releases: int = 0,
        metric_noise_multiplier: float | None = None,
        statistics_noise_multiplier: float | None = None,
        trust: str = LOCAL,
        noise_sharers: int = 1,
    ) -> Self:
        """The plan with the least training noise that gives (epsilon, delta) after everything it spends.

        Raises:
            PrivacyError: a number out of range or not finite, or an epsilon that no noise reaches.
        """
        caps: dict[str, Any] = {"batch_cap": batch_cap, "max_people": max_people}
        shape = cls.without_privacy(
            sampling_rate=sampling_rate,
            rounds=rounds,
            local_steps=local_steps,
            clip_norm=clip_norm,
            clipping=clipping,
            expected_people=expected_people,
            **caps,
            metric_releases=metric_releases,
        )
        target, failure = number("epsilon", epsilon), number("delta", delta)
        others = releases_of(metric_releases, metric_noise_multiplier, statistics_noise_multiplier)
        noise = calibrated_noise_multiplier(target, failure, shape.sampling_rate, shape.steps, others=others, **caps)
        return replace(
            shape,
            epsilon=target,
            delta=failure,
            noise_multiplier=noise,
            metric_noise_multiplier=metric_noise_multiplier,
            statistics_noise_multiplier=statistics_noise_multiplier,
            trust=trust,
            noise_sharers=noise_sharers,
            private=True,
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
        batch_cap: int | None = None,
        max_people: int | None = None,
        metric_releases: int = 0,
        releases_statistics: bool = False,
    ) -> Self:
        """The same steps without noise, for references and debugging. Stamped NOT PRIVATE.

        Raises:
            PrivacyError: a number out of range or not finite.
        """
        return cls(
            epsilon=None,
            delta=None,
            noise_multiplier=0.0,
            sampling_rate=number("sampling_rate", sampling_rate),
            steps=whole("rounds", rounds) * whole("local_steps", local_steps),
            local_steps=local_steps,
            clip_norm=number("clip_norm", clip_norm),
            clipping=clipping,
            expected_people=expected_people,
            batch_cap=batch_cap,
            max_people=max_people,
            metric_releases=metric_releases,
            metric_noise_multiplier=0.0 if metric_releases else None,
            statistics_noise_multiplier=0.0 if releases_statistics else None,
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
    def client_noise_multiplier(self) -> float:
        """Sigma of what one client adds to its own sum of a training step."""
        return self.client_share(self.noise_multiplier)

    def client_share(self, noise_multiplier: float) -> float:
        """What one client adds of a release's noise: all of it, 1/m of its variance, or none."""
        return 0.0 if self.trust == CENTRAL else noise_multiplier / math.sqrt(self.noise_sharers)

    def server_share(self, noise_multiplier: float) -> float:
        """What the server adds of a release's noise to the sum of all clients', once: all of it, or none."""
        return noise_multiplier if self.trust == CENTRAL else 0.0

    @property
    def server_noise_std(self) -> float:
        """Standard deviation of what the server adds to a round's sum, in units of an update; 0 unless central."""
        return self.server_share(self.noise_multiplier) * self.clip_norm / self.normaliser

    @property
    def delta_is_below_one_over_n(self) -> bool:
        """Whether delta < 1/n, without which a mechanism may publish one whole person and still comply."""
        return self.delta is not None and self.delta < 1.0 / self.expected_people

    def training(self, steps: int) -> Steps:
        """What ``steps`` >= 0 steps of training spend."""
        return Steps(self.noise_multiplier, self.sampling_rate, steps, self.batch_cap, self.max_people)

    def metrics_release(self) -> Steps:
        """What one release of noised metrics spends; raises ``PrivacyError`` when the plan has none."""
        return one_release("metric", self.metric_noise_multiplier)

    def statistics_release(self) -> Steps:
        """What the one release of counts spends; raises ``PrivacyError`` when the plan has none."""
        return one_release("statistics", self.statistics_noise_multiplier)

    def spendings(self) -> tuple[Steps, ...]:
        """Everything the plan will ever spend: all training steps, then all releases."""
        noises = self.metric_noise_multiplier, self.statistics_noise_multiplier
        return (self.training(self.steps), *releases_of(self.metric_releases, *noises))

    def event(self) -> "DpEvent":
        """The same in the words of the accounting library, for whoever wants to check with its accountants."""
        return event_of_all(self.spendings(), private=self.private)

    def epsilon_after(self, steps: int, *, metric_releases: int = 0, statistics: bool = False) -> float | None:
        """Epsilon spent by ``steps`` steps and some releases, an upper bound; None without privacy.

        Raises:
            PrivacyError: a count is negative or no whole number, or something is released that the plan lacks.
        """
        if self.delta is None:
            return None
        metrics = (self.metrics_release()._replace(steps=metric_releases),) if metric_releases != 0 else ()
        counts = (self.statistics_release(),) if statistics else ()
        return composed_epsilon((self.training(steps), *metrics, *counts), self.delta)

    def epsilon_for_person_at(self, clients: int) -> float | None:
        """Epsilon over the whole run of someone who is at ``clients`` clients; None without privacy.

        Raises:
            PrivacyError: ``clients`` is below 1 or no whole number.
        """
        if self.delta is None:
            return None
        return epsilon_at_clients(self.spendings(), clients, self.delta, in_one_sum=self.trust != LOCAL)

    def statement(self) -> str:
        """The whole guarantee in words, and whom it relies on; or the sentence that says there is none."""
        return statement_of(self)

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
