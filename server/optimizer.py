"""How the mean update moves the shared adapter: Adam, a step-size schedule, and an average that is published.

All vectors are flat float64 of length P, so a run that is resumed from a checkpoint continues bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from fedrec.errors import ConfigError


@dataclass(frozen=True, eq=False)
class AdamState:
    """Moments of the mean updates so far: ``first`` and ``second`` are (P,) float64, ``steps`` counts them."""

    steps: int
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def zeros(cls, parameters: int) -> "AdamState":
        """The state before the first step."""
        return cls(0, np.zeros(parameters), np.zeros(parameters))


@dataclass(frozen=True)
class ServerAdam:
    """Adam on the mean update.

    Source: Reddi et al. 2021, Algorithm 2 (FedAdam), https://arxiv.org/abs/2003.00295, with the bias correction
    of Kingma and Ba 2015, Algorithm 1, https://arxiv.org/abs/1412.6980
    """

    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8

    def step(self, state: AdamState, mean_update: np.ndarray, *, learning_rate: float) -> tuple[np.ndarray, AdamState]:
        """Turn a mean update, a descent direction, into the change to add to the adapter.

        Args:
            state: moments so far.
            mean_update: (P,) float64, finite.
            learning_rate: >= 0.

        Returns:
            The change, (P,) float64, each entry about ``learning_rate`` at most; and the next state.
        """
        steps = state.steps + 1
        first = self.beta1 * state.first + (1 - self.beta1) * mean_update
        second = self.beta2 * state.second + (1 - self.beta2) * mean_update**2
        corrected = np.sqrt(second / (1 - self.beta2**steps)) + self.epsilon
        change = learning_rate * (first / (1 - self.beta1**steps)) / corrected
        return change, AdamState(steps, first, second)


def learning_rate_at(round_index: int, *, peak: float, warmup_rounds: int, rounds: int) -> float:
    """Step size of one round: linear up to ``peak``, then linear down, reaching 0 just after the last round.

    Not 0 *at* the last round: people would pay for a round that changes nothing.

    Args:
        round_index: 1 to ``rounds``.
        peak: > 0.
        warmup_rounds: rounds of growth, >= 0; the last of them runs at ``peak``.
        rounds: >= 1.

    Raises:
        ConfigError: ``round_index`` is outside the run.
    """
    if not 1 <= round_index <= rounds:
        raise ConfigError(f"round_index={round_index}: expected 1 to {rounds}; set federation.rounds")
    if round_index <= warmup_rounds:
        return peak * round_index / warmup_rounds
    return peak * (rounds + 1 - round_index) / (rounds - warmup_rounds)


@dataclass(frozen=True, eq=False)
class AverageState:
    """Running exponential sum of adapters, (P,) float64, and how many are in it."""

    count: int
    total: np.ndarray

    @classmethod
    def zeros(cls, parameters: int) -> "AverageState":
        """The state before the first adapter."""
        return cls(0, np.zeros(parameters))


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of the adapters after each round, with bias correction.

    The correction makes the first average equal the first adapter, instead of dragging the base along.
    Post-processing of private updates: it costs no privacy.
    """

    decay: float = 0.9

    def add(self, state: AverageState, adapter: np.ndarray) -> AverageState:
        """Take in the adapter of one more round, (P,) float64."""
        return AverageState(state.count + 1, self.decay * state.total + (1 - self.decay) * adapter)

    def average(self, state: AverageState) -> np.ndarray:
        """The published adapter, (P,) float64; weights of the past sum to one.

        Raises:
            ConfigError: nothing was added yet.
        """
        if state.count == 0:
            raise ConfigError("the average of no adapters: expected at least one finished round")
        return state.total / (1 - self.decay**state.count)
