"""The whole audit: attack the clients, check each promise, and say whether the claim survives.

False alarms by design: ten tests of chance at 1e-9 each (the correlations by a union over all pairs), the Gaussian
limit at 1e-7, and the strict bound at 95 % that must refute the claim in five independent attacks (0.05^5 = 3.1e-7; no
single attack can do better, because delta lets a private mechanism fail that often). Together 4.2e-7, so a sound engine
fails less than once in a million audits. The other checks are exact. Counts, where a plan releases them, add two tests
at 1e-9 and a Gaussian limit at 1e-7.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from fedrec import __version__
from fedrec.code import code_digest
from fedrec.data.histories import Histories
from fedrec.errors import FedrecError, PrivacyError
from fedrec.privacy.accounting import round_up
from fedrec.privacy.audit import checks, contributions, counts, quiet
from fedrec.privacy.audit.canaries import Attack, attack
from fedrec.privacy.audit.checks import Check
from fedrec.privacy.audit.engine import Engine
from fedrec.privacy.plan import PrivacyPlan

CANARIES = 2000
FEWEST_CANARIES = 20
_ATTACKED_PEOPLE, _WATCHED_PEOPLE = 24, 12
_ATTACKS = 5
_COMPARED = 256  # steps of a kind whose noise is compared pair by pair
_LIBRARIES = ("torch", "opacus", "numpy", "scipy")


@dataclass(frozen=True)
class Audit:
    """The verdict on one plan.

    Attributes:
        plan: what was claimed.
        attack: what the canaries showed.
        checks: every check, the two bounds first.
        seconds: wall time.
        base, code: digests of what was attacked; no base when it was made up.
    """

    plan: PrivacyPlan
    attack: Attack
    checks: tuple[Check, ...]
    seconds: float
    base: str | None
    code: str

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as written to ``audit.json``."""
        return {
            "plan": self.plan.digest(),
            "base": self.base,
            "code": self.code,
            "canaries": self.attack.canaries,
            "strict_epsilon": round(self.attack.strict_epsilon, 4),
            "gdp_epsilon": round(self.attack.gdp_epsilon, 4),
            "gdp_mu": round(self.attack.gaussian.lower, 4),
            "claimed_epsilon": round_up(self.plan.epsilon or 0.0),
            "delta": self.plan.delta,
            "passed": self.passed,
            "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks],
            "seconds": round(self.seconds, 1),
            "versions": {"fedrec": __version__, "python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
        }


def run_audit(
    engine: Engine, *, canaries: int = CANARIES, rng: np.random.Generator | None = None, base: str | None = None
) -> Audit:
    """Audit the engine against its own plan.

    Args:
        canaries: m; fewer where the plan bounds the people at a client.
        rng: of the auditor's coins and made-up people; fresh when absent.
        base: digest of the base that the engine runs on, for the record; None when it was made up.

    Raises:
        PrivacyError: the plan adds no noise, there are too few canaries, or the engine refuses to run.
    """
    began, plan, rng = time.monotonic(), engine.plan, rng or np.random.default_rng()
    if not plan.private:
        raise PrivacyError("nothing to audit: no noise; the plan is stamped NOT PRIVATE")
    if plan.max_people is not None:
        canaries = min(canaries, plan.max_people - _ATTACKED_PEOPLE)
    if canaries < FEWEST_CANARIES:
        raise PrivacyError(f"canaries={canaries}: expected at least {FEWEST_CANARIES}; raise --canaries or max_people")
    frozen = engine.frozen_digest()
    found = _attacked(engine, canaries=canaries, rng=rng)
    results = (
        *_bounds(found, plan),
        *_chance(engine, found),
        *_contributions(engine, made_up_people(engine.items, _WATCHED_PEOPLE, rng=rng)),
        *_counts(engine, canaries=canaries, rng=rng),
        Check("frozen weights and buffers stay as they were", engine.frozen_digest() == frozen, "compared bit by bit"),
    )
    return Audit(plan, found, results, time.monotonic() - began, base, code_digest())


def made_up_people(items: int, people: int, *, rng: np.random.Generator) -> Histories:
    """People with 2 to 40 events, none repeating the item just before it."""
    lengths = rng.integers(2, 41, people)
    rows = [np.cumsum(rng.integers(1, items, length)) % items for length in lengths]
    return Histories.from_lists([row.tolist() for row in rows])


def _attacked(engine: Engine, *, canaries: int, rng: np.random.Generator) -> Attack:
    """One attack; when its strict bound refutes the claim, the first of several, of which the mildest bound counts."""
    people = made_up_people(engine.items, _ATTACKED_PEOPLE, rng=rng)
    found = attack(engine, people, canaries=canaries, rng=rng)
    for _ in range(_ATTACKS - 1):
        if found.strict_epsilon <= (engine.plan.epsilon or 0.0):
            break
        again = attack(engine, people, canaries=canaries, rng=rng)
        found = replace(found, strict_epsilon=min(found.strict_epsilon, again.strict_epsilon))
    return found


def _bounds(found: Attack, plan: PrivacyPlan) -> list[Check]:
    """The two limits against the claim."""
    claim = plan.epsilon or 0.0
    stated = (
        f"at delta = {plan.delta:g} for each {plan.unit} ({plan.relation}); "
        f"claimed at most {round_up(claim):g} by {plan.accountant}"
    )
    return [
        Check(
            "strict one-run bound",
            found.strict_epsilon <= claim,
            f"epsilon above {found.strict_epsilon:.2f} at 95 % confidence {stated}",
        ),
        Check(
            "Gaussian estimate",
            found.gdp_epsilon <= claim,
            f"epsilon above {found.gdp_epsilon:.2f} but for one chance in 10^7 (mu above {found.gaussian.lower:.2f}, "
            f"estimated {found.gaussian.estimate:.2f}) {stated}",
        ),
    ]


def _chance(engine: Engine, found: Attack) -> list[Check]:
    """Noise and sampling, on clients whose people contribute nothing and on the attacked one."""
    plan = engine.plan
    lonely, calls = quiet.lonely_clients(engine), quiet.same_call_twice(engine)
    called = quiet.noise_of(calls, plan, source="the same call, client")
    silent = quiet.noise_of(lonely, plan, source="client")
    attacked = [
        quiet.noise_in(step, plan, source="attacked client", added=added)
        for step, added in zip(found.steps, found.expected, strict=True)
    ]
    crowd = quiet.masks(quiet.crowded_clients(engine))
    return [
        checks.noise_scale("noise of steps without contributions", silent + called),
        checks.noise_scale("noise of steps with people and canaries", attacked),
        checks.noise_shape(silent + called + attacked),
        checks.noise_is_fresh(called + silent[:_COMPARED] + attacked[:_COMPARED]),
        quiet.empty_batches(lonely, plan),
        checks.inclusion_rate(crowd, plan, name="people are sampled at the planned rate"),
        checks.inclusion_rate(quiet.masks(lonely), plan, name="a client of one person samples at the planned rate"),
        checks.batches_vary(crowd, plan),
        checks.people_vary(crowd, plan),
        checks.batches_overlap(crowd, plan),
        *([quiet.capped_batches(engine)] if plan.batch_cap is not None else []),
    ]


def _counts(engine: Engine, *, canaries: int, rng: np.random.Generator) -> list[Check]:
    if engine.counting is None:
        return []
    people = made_up_people(engine.items, _WATCHED_PEOPLE, rng=rng)
    return counts.count_checks(engine, engine.counting, people, canaries=canaries, rng=rng)


def _contributions(engine: Engine, people: Histories) -> list[Check]:
    tests: dict[str, Callable[[Engine, Histories], Check]] = {
        "sensitivity": contributions.sensitivity,
        "own gradients": contributions.own_gradients,
        "clipping": contributions.clipping,
        "undefined gradients": contributions.undefined_gradients,
        "normaliser": contributions.normaliser,
        "what leaves": contributions.only_the_adapter,
    }
    found = [contributions.start_up_check(engine)]
    for name, test in tests.items():
        try:
            found.append(test(engine, people))
        except FedrecError as error:
            found.append(Check(name, False, f"the client refused: {error}"))
    return found
