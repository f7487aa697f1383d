"""The attack: people who exist only to be found, each a gradient that nobody else has.

Every canary is in or out by a fair coin of the auditor's. Those that are in are sampled, clipped, summed and
noised with everyone else through all steps of the plan; the attacker, who knows everything but the coins, the
masks and the noise, scores each canary by how much better the releases fit its presence than its absence.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.privacy.audit.bounds import GaussianLimit, epsilon_of_gaussian, gaussian_mu, strict_epsilon
from fedrec.privacy.audit.engine import Engine
from fedrec.privacy.audit.tap import Step, Tap, clipped
from fedrec.privacy.plan import PrivacyPlan

LONG = 1000.0  # length of a canary's gradient before clipping, in clip norms
MISS = 0.05  # of the strict bound that is reported
CERTAIN = 1e-7  # chance that the Gaussian limit exceeds the truth
_LEVELS = np.arange(0.1, 0.95, 0.1)  # quantiles of a sound engine's scores at which the estimate looks
_PRACTICE = 2000  # scores of the auditor's own Gaussian that place the thresholds; they carry no verdict


@dataclass(frozen=True)
class Attack:
    """What the canaries showed.

    Attributes:
        canaries: m.
        strict_epsilon: one-run lower limit at 95 % and the plan's delta.
        gaussian: mu, its estimate and its lower limit, the latter wrong with probability at most 1e-7.
        gdp_epsilon: epsilon of the lower limit at the plan's delta.
        steps: every step of the attacked run, with the part of the canaries that came through.
        expected: (T, W), what the added rows should have contributed.
    """

    canaries: int
    strict_epsilon: float
    gaussian: GaussianLimit
    gdp_epsilon: float
    steps: tuple[Step, ...]
    expected: np.ndarray


def attack(engine: Engine, people: Histories, *, canaries: int, rng: np.random.Generator) -> Attack:
    """Run the whole plan once at a new client and try to tell which canaries took part.

    Args:
        people: of that client, made up; their gradients go through the mechanism beside the canaries.
        canaries: m >= 20; as many of the released numbers are watched.
        rng: of the auditor's coins; they protect nobody.

    Returns:
        Limits and the steps that were seen.
    """
    plan = engine.plan
    is_in = rng.random(canaries) < 0.5
    present = np.flatnonzero(is_in)
    tap = Tap(added=len(present), make=lambda rows, width: diracs(present[rows], width, plan), width=canaries)
    client = engine.client(people, tap)
    for round_index in range(1, plan.rounds + 1):
        client.answer(round_index)
    seen = np.array([step.released * plan.normaliser - step.known for step in tap.steps])  # (T, W)
    expected = np.array([_contribution(present[step.added], seen.shape[1], plan) for step in tap.steps])
    scores = log_likelihood_ratios(seen[:, :canaries] / plan.clip_norm, plan).sum(axis=0)
    thresholds = _thresholds(plan, steps=len(tap.steps), rng=rng)
    delta = plan.delta or 0.0
    limit = gaussian_mu(scores, is_in, thresholds=thresholds, miss=CERTAIN)
    return Attack(
        canaries=canaries,
        strict_epsilon=strict_epsilon(scores, is_in, delta=delta, miss=MISS),
        gaussian=limit,
        gdp_epsilon=epsilon_of_gaussian(limit.lower, delta),
        steps=tuple(tap.steps),
        expected=expected,
    )


def diracs(coordinates: np.ndarray, width: int, plan: PrivacyPlan) -> Tensor:
    """Rows (k, W) that are zero but for one long entry each."""
    rows = torch.zeros(len(coordinates), width)
    rows[torch.arange(len(coordinates)), torch.from_numpy(coordinates)] = LONG * plan.clip_norm
    return rows


def log_likelihood_ratios(values: np.ndarray, plan: PrivacyPlan) -> np.ndarray:
    """How much better each value fits a canary that takes part at rate q than none.

    Args:
        values: sums on a canary's coordinate in clip norms; normal around 1 or 0 with deviation sigma.

    Returns:
        Same shape: log of (1 - q) + q·exp((2y - 1) / (2·sigma²)).
    """
    rate, variance = plan.sampling_rate, plan.noise_multiplier**2
    stays_out = math.log1p(-rate) if rate < 1.0 else -math.inf
    return np.asarray(np.logaddexp(stays_out, math.log(rate) + (2.0 * values - 1.0) / (2.0 * variance)))


def _contribution(coordinates: np.ndarray, width: int, plan: PrivacyPlan) -> np.ndarray:
    """(W,): what canaries on these coordinates add once clipped to the clip norm."""
    total = np.zeros(width)
    total[coordinates] = clipped(np.array([[LONG * plan.clip_norm]]), plan)[0, 0]
    return total


def _thresholds(plan: PrivacyPlan, *, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Where the estimate looks: quantiles of scores that the plan's own mechanism would give."""
    noise = plan.noise_multiplier * rng.standard_normal((2, steps, _PRACTICE))
    noise[1] += rng.random((steps, _PRACTICE)) < plan.sampling_rate
    return np.asarray(np.quantile(log_likelihood_ratios(noise, plan).sum(axis=1), _LEVELS))
