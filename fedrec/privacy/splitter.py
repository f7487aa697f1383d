"""Who gets how much of a budget: the one release of counts, or the rounds of the adapter.

Everything here is arithmetic on public figures: the plan, how many clients there are, and what public people's rows
look like. A share s of the budget is a share of 1/sigma^2, the quantity that Gaussian releases on the same people add
up; that only guides the choice, and the plan that is made of it is calibrated by the exact accountant.
Source: Dong et al. 2022, "Gaussian differential privacy", Corollary 3.3, https://arxiv.org/abs/1905.02383
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import calibrated_noise_multiplier
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.plan_checks import releases_of
from fedrec.privacy.replanning import promise_of, replanned

PAIRS, ADAPTER = "pairs", "adapter"
# NDCG@10 that a part adds without noise beside public pairs and the merchant's memory: Online Retail, seed 0, before
# the base's parts were weighed on the panel; since then the adapter adds next to nothing: docs/experiments.md.
WORTH = {PAIRS: 0.0126, ADAPTER: 0.0035}
LEAST_SNR = 0.5  # a part with less signal for its noise gets nothing: at .7 pairs were seen to gain, at .4 hardly
SHARES = tuple(step / 20 for step in range(20))  # 0, .05, ..., .95: a plan always has a step to pay


class PairBucket(NamedTuple):
    """Pairs that were seen about as often among the people who listed them.

    Attributes:
        pairs: how many there are, >= 1.
        mean: mean entry of a person's row, which has norm 1, over these pairs and other public people, >= 0.
        rms: root of the mean square, over these pairs, of each pair's expected entry, >= mean.
    """

    pairs: int
    mean: float
    rms: float


class AdapterSignal(NamedTuple):
    """What a step of the adapter can learn.

    Attributes:
        parameters: P, >= 1.
        gradient: norm of the mean of people's gradients, each shortened to the clip norm, in clip norms, > 0.
    """

    parameters: int
    gradient: float


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Who is summed, and how the sum is read. Public.

    Attributes:
        clients: m >= 1, all of them count.
        clients_per_round: of whose updates a round is the mean, >= 1.
        threshold: z >= 0, counts below so many standard deviations of their noise count for nothing.
        popularity_share: rho in [0, 1), of the square of a person's row, that pairs do not get.
    """

    clients: int
    clients_per_round: int
    threshold: float
    popularity_share: float = 0.0


@dataclass(frozen=True)
class Prospect:
    """What a part can expect of a share of the budget; of the most there is where it gets none.

    Attributes:
        share: of the budget that this is about, in [0, 1].
        noise_multiplier: sigma that goes with it.
        signal, noise: norms; of the counts that are published, in people, or of the adapter's mean update over the
            run and its noise, in clip norms times the root of the steps.
        snr: their quotient.
        survives: share of the pairs' weight that is expected above the threshold, or of the adapter's energy that a
            best linear filter would keep, in [0, 1].
    """

    share: float
    noise_multiplier: float
    signal: float
    noise: float
    snr: float
    survives: float

    @property
    def can_pay(self) -> bool:
        """Whether there is enough signal for its noise."""
        return self.snr >= LEAST_SNR


@dataclass(frozen=True)
class Split:
    """A budget split in two.

    Attributes:
        share: of the budget, for the release of counts, in [0, 1); the rest is for the rounds.
        noise_multiplier: of that release; None when there is none.
        prospects: of each part, by name.
    """

    share: float
    noise_multiplier: float | None
    prospects: dict[str, Prospect]

    def verdict(self, part: str) -> str:
        """How much of the budget a part gets, and why, in words."""
        prospect, gets = self.prospects[part], self.share if part == PAIRS else 1 - self.share
        if prospect.can_pay and not gets:
            return "nothing: could pay, but the adapter earns more with it"
        if prospect.can_pay:
            kept = "what they weigh" if part == PAIRS else "its signal"
            return f"{gets:.0%}, with which {prospect.survives:.0%} of {kept} is expected to survive"
        if prospect.share == gets:
            return f"{gets:.0%}, but can't pay: it buys too little signal for its noise"
        rest = f"the {gets:.0%} that is left" if gets else "nothing"
        return f"{rest}: can't pay, too little signal for its noise even with {prospect.share:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the share, its noise, and a list of what each part can expect."""
        parts = [
            {"part": name} | asdict(prospect) | {"verdict": self.verdict(name)}
            for name, prospect in self.prospects.items()
        ]
        return {"share": self.share, "noise_multiplier": self.noise_multiplier, "parts": parts}


def split_budget(
    plan: PrivacyPlan,
    crowd: Crowd,
    *,
    pairs: Sequence[PairBucket],
    adapter: AdapterSignal,
    share: float | None = None,
) -> Split:
    """Choose how much of a plan's budget goes to a release of counts: what earns most by public figures.

    Args:
        plan: private, all of whose budget is for the rounds so far.
        pairs: what public people's rows look like; without any there is no release.
        adapter: of the adapter that learns in the rounds.
        share: in [0, 1), given by someone who knows better; None chooses from ``SHARES``, of equals the smallest.

    Raises:
        PrivacyError: the plan is not private or pays for counts already, or ``share`` is out of range.
    """
    whole = _whole_budget_noise(plan)
    if share is not None and not 0 <= share < 1:
        raise PrivacyError(f"noise_share={share}: expected in [0, 1); set statistics.noise_share")

    def counting(part: float) -> Prospect:
        return _pairs_prospect(plan, crowd, pairs, part, whole / math.sqrt(part))

    def training(part: float, noise_multiplier: float) -> Prospect:
        return _adapter_prospect(plan, crowd, adapter, part, noise_multiplier)

    def earned(part: float) -> float:
        parts = {ADAPTER: training(1 - part, plan.noise_multiplier / math.sqrt(1 - part))}
        parts |= {PAIRS: counting(part)} if part else {}
        return sum(WORTH[name] * prospect.survives for name, prospect in parts.items() if prospect.can_pay)

    chosen, alone = max(SHARES, key=earned) if share is None else share, training(1.0, plan.noise_multiplier)
    if not chosen:
        return Split(0.0, None, {PAIRS: counting(SHARES[-1]), ADAPTER: alone})
    counted = counting(chosen)
    paid = replanned(plan, statistics_noise_multiplier=counted.noise_multiplier)
    left = training(1 - chosen, paid.noise_multiplier)
    return Split(chosen, counted.noise_multiplier, {PAIRS: counted, ADAPTER: left if alone.can_pay else alone})


def noise_of_sum(plan: PrivacyPlan, noise_multiplier: float, clients: int) -> float:
    """Standard deviation of the noise in the sum over ``clients``, in units of what one person can move it."""
    return math.hypot(math.sqrt(clients) * plan.client_share(noise_multiplier), plan.server_share(noise_multiplier))


def _whole_budget_noise(plan: PrivacyPlan) -> float:
    """Sigma of one release that leaves nothing for the rounds, beside the plan's metrics."""
    epsilon, delta = promise_of(plan)
    if plan.statistics_noise_multiplier is not None:
        raise PrivacyError("this plan pays for a release of statistics already: expected one that does not")
    metrics = releases_of(plan.metric_releases, plan.metric_noise_multiplier, None)
    return calibrated_noise_multiplier(epsilon, delta, 1.0, 1, others=metrics)


def _pairs_prospect(
    plan: PrivacyPlan, crowd: Crowd, buckets: Sequence[PairBucket], share: float, noise_multiplier: float
) -> Prospect:
    """What is expected above the threshold; a bucket survives as its pair of the mass-weighted mean size does."""
    people = plan.expected_people * crowd.clients * math.sqrt(1 - crowd.popularity_share)
    std = noise_of_sum(plan, noise_multiplier, crowd.clients)
    mass = kept_mass = kept_energy = 0.0
    for count, mean, rms in buckets:
        typical = people * rms**2 / mean if mean else 0.0  # E[x^2] / E[x]
        survives = _above(crowd.threshold - typical / std)
        mass += count * mean
        kept_mass += count * mean * survives
        kept_energy += count * (people * rms) ** 2 * survives
    z = crowd.threshold
    let_through = _above(z) + z * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)  # E[x^2; x > z] of a normal x
    noise = std * math.sqrt(sum(bucket.pairs for bucket in buckets) * let_through)
    signal = math.sqrt(kept_energy)
    return Prospect(
        share,
        noise_multiplier,
        signal=signal,
        noise=noise,
        snr=signal / noise if noise else 0.0,
        survives=kept_mass / mass if mass else 0.0,
    )


def _adapter_prospect(
    plan: PrivacyPlan, crowd: Crowd, adapter: AdapterSignal, share: float, noise_multiplier: float
) -> Prospect:
    """Steps add up signal by their number, and noise by its root."""
    replies = crowd.clients_per_round
    std = noise_of_sum(plan, noise_multiplier, replies) / (plan.normaliser * replies)
    noise, signal = std * math.sqrt(adapter.parameters), adapter.gradient * math.sqrt(plan.steps)
    snr = signal / noise
    return Prospect(share, noise_multiplier, signal=signal, noise=noise, snr=snr, survives=snr**2 / (1 + snr**2))


def _above(x: float) -> float:
    """Chance that a standard normal number exceeds ``x``."""
    return math.erfc(x / math.sqrt(2)) / 2
