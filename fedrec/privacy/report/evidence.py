"""What a report rests on: everything that was read from a run or a ledger, in the shape in which it is signed.

Whoever checks a report reads these from a stranger. So what would make the arithmetic fail or run for ever fits no
schema here, and is refused before anything is computed.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedrec.privacy.accounting import composed_rdp_epsilon
from fedrec.privacy.policy import Policy
from fedrec.privacy.steps import Steps

# What a hostile report may cost its reader. An epsilon above the largest takes minutes, and then hours, to compute
# for every relation, and is no guarantee; so do steps or mechanisms beyond what a ledger collects in its life.
_LARGEST_COUNT = 100_000_000
_MOST_STEPS = 100_000
_LARGEST_EPSILON = 1000.0
_LEAST_NOISE, _LARGEST_NOISE = 1e-3, 1e9
_MOST_MECHANISMS = 1000
_MOST_POINTS = 100
_NOT_OURS = "not a privacy report of this kind"

Count = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
StepCount = Annotated[int, Field(ge=0, le=_MOST_STEPS)]
Real = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A piece of the document: frozen, nothing unknown, no conversions, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Group(Part):
    """Charges of one ledger that are alike: one run, one plan, one kind, the same mechanism.

    ``charged_steps`` as they were charged, which is what caps count; ``steps`` what remains of them once settled.
    """

    run: str
    plan: str
    kind: Literal["training", "metrics", "statistics"]
    noise_multiplier: Real
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    batch_cap: Positive | None
    max_people: Positive | None
    clip_norm: Annotated[float, Field(gt=0)]
    accountant: str
    charges: Positive
    released: Count
    settled: Count
    charged_steps: Annotated[StepCount, Field(ge=1)]
    steps: StepCount

    @property
    def spending(self) -> Steps:
        """What remains spent, as the accountant takes it."""
        return Steps(self.noise_multiplier, self.sampling_rate, self.steps, self.batch_cap, self.max_people)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.noise_multiplier and not _LEAST_NOISE <= self.noise_multiplier <= _LARGEST_NOISE:
            expected = f"expected 0, or {_LEAST_NOISE} to {_LARGEST_NOISE:.0f}"
            raise ValueError(f"{_NOT_OURS}: noise_multiplier={self.noise_multiplier}: {expected}")
        if max(self.released, self.settled) > self.charges or self.steps > self.charged_steps:
            raise ValueError(f"{_NOT_OURS}: more was released, settled or spent than was charged")
        return self


class Point(Part):
    """Where a ledger stood: steps of each of its groups after so many charges."""

    charges: Positive
    steps: tuple[Count, ...]


class LedgerFacts(Part):
    """One client's ledger. The data set's digest stays in the ledger: a hash of private data is private."""

    name: str
    head: Digest
    entries: Positive
    policies: tuple[Digest, ...]  # on record, in the order of their last use
    groups: tuple[Group, ...]

    def is_under(self, policy: str) -> bool:
        """Whether the newest policy on record has this digest; so it has where nothing is on record."""
        return self.policies[-1:] == (policy,) or not (self.policies or self.groups)


class AuditFacts(Part):
    """What ``fedrec privacy audit`` measured, and of what; audits before digests were kept lack them."""

    plan: str
    base: str | None = None
    code: str | None = None
    canaries: Count
    strict_epsilon: Real
    gdp_epsilon: Real
    gdp_mu: Real
    claimed_epsilon: Real
    delta: Fraction
    passed: bool
    failed_checks: tuple[str, ...]
    checks: Count


class Facts(Part):
    """Everything that was read; the findings follow from it alone."""

    source: Literal["run", "ledger"]
    name: str
    made_at: str
    private: bool
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    plan: dict[str, Any] | None
    policy: Policy | None
    ledgers: Annotated[tuple[LedgerFacts, ...], Field(min_length=1)]
    timeline_of: str
    timeline: tuple[Point, ...]
    audit: AuditFacts | None
    digests: dict[str, str]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        planned = [self.plan[name] for name in ("steps", "metric_releases") if self.plan and name in self.plan]
        if any(isinstance(steps, int) and steps > _MOST_STEPS for steps in planned):
            raise ValueError(f"{_NOT_OURS}: a plan of {max(planned)} steps, expected at most {_MOST_STEPS}")
        mechanisms = {group.spending._replace(steps=0) for ledger in self.ledgers for group in ledger.groups}
        if len(mechanisms) > _MOST_MECHANISMS:
            raise ValueError(f"{_NOT_OURS}: {len(mechanisms)} mechanisms, expected at most {_MOST_MECHANISMS}")
        if self.delta is None or not all(mechanism.noise_multiplier for mechanism in mechanisms):
            return self
        for ledger in self.ledgers:
            spent = composed_rdp_epsilon(tuple(group.spending for group in ledger.groups), self.delta)
            if not spent <= _LARGEST_EPSILON:
                why = f"expected at most {_LARGEST_EPSILON:g}; more is no guarantee, and takes for ever to compute"
                raise ValueError(f"{_NOT_OURS}: {ledger.name}: epsilon {spent:.3g} by Renyi accounting, {why}")
        return self

    @model_validator(mode="after")
    def _has_a_timeline_of_its_own(self) -> Self:
        names = [ledger.name for ledger in self.ledgers]
        if len(set(names)) < len(names) or self.timeline_of not in names:
            raise ValueError(f"{_NOT_OURS}: expected ledgers with different names, and a timeline of one of them")
        groups = self.ledgers[names.index(self.timeline_of)].groups
        charges, most = [point.charges for point in self.timeline], sum(group.charges for group in groups)
        if len(charges) > _MOST_POINTS or charges != sorted({at for at in charges if at <= most}):
            raise ValueError(f"{_NOT_OURS}: timeline: expected at most {_MOST_POINTS} ascending counts up to {most}")
        for point in self.timeline:
            if len(point.steps) != len(groups) or any(n > g.steps for n, g in zip(point.steps, groups, strict=False)):
                raise ValueError(f"{_NOT_OURS}: timeline after charge {point.charges}: expected steps of each group")
        return self
