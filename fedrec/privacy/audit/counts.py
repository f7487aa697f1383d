"""The release of counts under attack: extreme people, the noise itself, and canaries with a pair each to themselves.

Everything goes through the clients' own code from charge to reply. Where a plan covers nothing but sums over clients,
the rest of the sum is added to what a client sends.
"""

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.statistics import PAIRS, Counting
from fedrec.privacy.accounting import round_up
from fedrec.privacy.audit.bounds import epsilon_of_gaussian, gaussian_mu
from fedrec.privacy.audit.canaries import CERTAIN
from fedrec.privacy.audit.checks import Check, Noise, noise_scale, noise_shape
from fedrec.privacy.audit.contributions import without_noise
from fedrec.privacy.audit.engine import Engine
from fedrec.privacy.audit.tap import Tap
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.randomness import SecureRandom
from fedrec.privacy.statistics import release_statistics
from fedrec.privacy.trust import server_noise
from fedrec.schema import flatten, parameters_of

_ROUNDING = 1e-4  # float32 of a sum of a few people
_PRACTICE = 2000  # values of the auditor's own noise that place the thresholds; they carry no verdict
_LEVELS = np.arange(0.1, 0.95, 0.1)
_FEWEST_CANARIES = 20


def count_checks(
    engine: Engine, counting: Counting, people: Histories, *, canaries: int, rng: np.random.Generator
) -> list[Check]:
    """Attack the release of counts of an engine whose plan has one.

    Args:
        counting: what is counted.
        people: of the client, made up.
        canaries: at most so many, each with a public pair of its own.
        rng: of the auditor's coins.
    """
    exact = _sum(engine, counting, people, plan=without_noise(engine.plan))
    sigma = engine.plan.statistics_release().noise_multiplier
    noise = [Noise("counts", (_sum(engine, counting, people, plan=engine.plan) - exact) / sigma) for _ in range(2)]
    return [
        _bounded(engine, counting, people, exact=exact),
        noise_scale("noise of the counts", noise),
        noise_shape(noise, name="noise of the counts is normal"),
        _told_apart(engine, counting, people, exact=exact, canaries=canaries, rng=rng),
    ]


def _bounded(engine: Engine, counting: Counting, people: Histories, *, exact: np.ndarray) -> Check:
    """Whoever is added, with whatever history, the sum moves by at most 1."""
    first, then = (int(items[0]) for items in (counting.pairs.first, counting.pairs.then))
    extremes = [[first], [first, then], [first] * 500, [first, then] * 5000, list(range(engine.items))]
    plan = without_noise(engine.plan)
    moved = [
        float(np.linalg.norm(_sum(engine, counting, _with(people, [history]), plan=plan) - exact))
        for history in extremes
    ]
    return Check(
        "one person moves the counts by at most 1",
        0.0 < max(moved) <= 1.0 + _ROUNDING,
        f"people of 1 to 10,000 events move their sum by at most {max(moved):.6f}, expected above 0 and at most 1",
    )


def _told_apart(
    engine: Engine, counting: Counting, people: Histories, *, exact: np.ndarray, canaries: int, rng: np.random.Generator
) -> Check:
    """Guess from the noised counts which canaries were there; an estimate as if the release were Gaussian."""
    plan, pairs, name = engine.plan, counting.pairs, "Gaussian estimate of the counts"
    share = counting.spec.shares.get(PAIRS, 0.0)
    if share == 0.0 or min(canaries, len(pairs)) < _FEWEST_CANARIES:
        return Check(name, True, "too few public pairs to give each canary its own: not attacked")
    own = rng.choice(len(pairs), min(canaries, len(pairs)), replace=False)
    is_in = rng.random(len(own)) < 0.5
    histories = [[int(pairs.first[pair]), int(pairs.then[pair])] for pair in own[is_in]]
    seen = _sum(engine, counting, _with(people, histories), plan=plan) - exact
    sigma = plan.statistics_release().noise_multiplier
    practice = sigma * rng.standard_normal((2, _PRACTICE)) + np.array([[0.0], [np.sqrt(share)]])
    limit = gaussian_mu(seen[-len(pairs) :][own], is_in, thresholds=np.quantile(practice, _LEVELS), miss=CERTAIN)
    delta, claim = plan.delta or 0.0, plan.epsilon_after(0, statistics=True) or 0.0
    found = epsilon_of_gaussian(limit.lower, delta)
    return Check(
        name,
        found <= claim,
        f"epsilon above {found:.2f} but for one chance in 10^7 (mu above {limit.lower:.2f}, estimated "
        f"{limit.estimate:.2f}) at delta = {delta:g} for each {plan.unit} ({plan.relation}); claimed at most "
        f"{round_up(claim):g} by {plan.accountant}",
    )


def _sum(engine: Engine, counting: Counting, people: Histories, *, plan: PrivacyPlan) -> np.ndarray:
    """The sum over a new client's people as the plan lets anyone see it, (S,)."""
    counted = flatten(engine.client(people, Tap(), plan=plan).counts(), counting.schema)
    size, release = parameters_of(counting.schema), plan.statistics_release()
    rest = server_noise(plan.server_share(release.noise_multiplier), size)
    for _ in range(plan.noise_sharers - 1):
        rest += release_statistics(plan, SecureRandom(), people=[], size=size) * plan.expected_people
    return np.asarray(counted * plan.expected_people + rest)


def _with(people: Histories, more: list[list[int]]) -> Histories:
    return Histories.from_lists([*(people.of(person).tolist() for person in range(len(people))), *more])
