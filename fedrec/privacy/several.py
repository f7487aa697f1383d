"""What someone has spent who is at several clients: alike, and asked in the same rounds."""

from functools import lru_cache

from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.steps import Steps, check_delta, check_whole, merged

_INTERVAL = 1e-2  # of the discretisation, which rounds upwards; finer moves epsilon by less than 0.01


def epsilon_at_clients(spendings: tuple[Steps, ...], clients: int, delta: float, *, in_one_sum: bool) -> float:
    """Epsilon at ``delta`` of someone who is at ``clients`` clients that each spend ``spendings``, an upper bound.

    Args:
        in_one_sum: what the clients send carries one noise together, under distributed and central trust, so that the
            person moves it by as many clip norms as clients had them in the step. Else each client's release has a
            noise of its own, and the releases compose.

    Raises:
        PrivacyError: a number out of range.
    """
    check_whole("clients", clients, least=1)
    if not in_one_sum or clients == 1:
        return composed_epsilon(clients * spendings, delta)
    check_delta(delta)
    return _epsilon_in_sums(merged(spendings), clients, delta)


@lru_cache(maxsize=64)
def _epsilon_in_sums(spendings: tuple[Steps, ...], clients: int, delta: float) -> float:
    """The same where the person is in a step at J clients, J binomial, and moves its sum by at most J·C.

    Where a batch is capped, the person may also take another's place, and a client's part moves by 2C.
    Source: Choquette-Choo et al. 2024, section 4 (mixtures of Gaussians), https://arxiv.org/abs/2310.15526
    """
    from dp_accounting.pld import privacy_loss_distribution as pld
    from scipy import stats

    if any(spending.noise_multiplier == 0 for spending in spendings):
        return float("inf")
    counts, total = list(range(clients + 1)), pld.identity(_INTERVAL)
    for noise, rate, steps, cap, _ in spendings:
        std = noise if cap is None else noise / 2
        if rate == 1:  # at every client for certain: one Gaussian, which the mixture's search for its tail can miss
            step = pld.from_gaussian_mechanism(std, sensitivity=clients, value_discretization_interval=_INTERVAL)
        else:
            chances = stats.binom.pmf(counts, clients, rate).tolist()
            step = pld.from_mixture_gaussian_mechanism(std, counts, chances, value_discretization_interval=_INTERVAL)
        total = total.compose(step.self_compose(steps))
    return float(total.get_epsilon_for_delta(delta))
