import numpy as np
import pytest
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.randomness import SecureRandom, SeededRandom
from fedrec.privacy.sampling import poisson_sample


def draws(rate: float, *, people: int = 40, steps: int = 3000) -> np.ndarray:
    """Who took part, (steps, people), bool."""
    mask = np.zeros((steps, people), dtype=bool)
    for step in range(steps):
        mask[step, poisson_sample(people, rate, SecureRandom())] = True
    return mask


def test_everyone_is_included_at_the_rate_and_batch_sizes_are_binomial():
    rate, people, steps = 0.25, 40, 3000
    mask = draws(rate)

    def person_pvalue(claimed: float) -> float:
        counts = mask.sum(axis=0)
        chi2 = ((counts - steps * claimed) ** 2 / (steps * claimed * (1 - claimed))).sum()
        return stats.chi2.sf(chi2, people)

    assert person_pvalue(rate) > 1e-6
    assert person_pvalue(rate * 2 / 3) < 1e-6
    assert person_pvalue(rate * 3 / 2) < 1e-6
    sizes = mask.sum(axis=1)
    spread = (steps - 1) * sizes.var(ddof=1) / (people * rate * (1 - rate))
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], steps - 1)
    assert low < spread < high  # shuffled batches of fixed size would have no spread


def test_steps_and_people_are_independent():
    mask = draws(0.5, people=10)
    assert abs(np.corrcoef(mask[:-1, 0], mask[1:, 0])[0, 1]) < 5 / np.sqrt(3000)
    between = np.corrcoef(mask.T) - np.eye(10)
    assert np.abs(between).max() < 5 / np.sqrt(3000)


def test_rate_one_takes_everyone_and_no_people_give_no_batch():
    assert poisson_sample(5, 1.0, SecureRandom()).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(0, 0.5, SecureRandom()).tolist() == []


def test_indices_are_ascending_whole_and_distinct():
    chosen = poisson_sample(100, 0.5, SeededRandom(0))
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < 100


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(PrivacyError, match=r"sampling_rate=.*: expected a fraction in \(0, 1\]"):
        poisson_sample(5, rate, SecureRandom())


def test_a_negative_number_of_people_is_refused_without_naming_it():
    with pytest.raises(PrivacyError, match=r"^people: expected a number >= 0$"):
        poisson_sample(-7, 0.5, SecureRandom())


def test_a_cap_keeps_a_uniform_subset_of_those_sampled():
    """Ten people at rate 1, four places: each takes part in 40 % of the steps."""
    taken = np.zeros(10)
    for _ in range(3000):
        chosen = poisson_sample(10, 1.0, SecureRandom(), batch_cap=4)
        assert len(chosen) == 4
        assert (np.diff(chosen) > 0).all()
        taken[chosen] += 1
    chi2 = ((taken - 1200) ** 2 / (3000 * 0.4 * 0.6)).sum() * 9 / 10  # the counts add up to 12000
    assert stats.chi2.sf(chi2, 9) > 1e-6
    first_come = np.array([3000.0] * 4 + [0.0] * 6)
    assert stats.chi2.sf(((first_come - 1200) ** 2 / (3000 * 0.4 * 0.6)).sum() * 9 / 10, 9) < 1e-6


def test_a_cap_leaves_smaller_batches_alone():
    sizes = [len(poisson_sample(40, 0.25, SecureRandom(), batch_cap=12)) for _ in range(2000)]
    assert max(sizes) == 12
    full = sum(size == 12 for size in sizes)
    assert stats.binomtest(full, 2000, stats.binom.sf(11, 40, 0.25)).pvalue > 1e-6
    assert stats.binomtest(full, 2000, stats.binom.sf(9, 40, 0.25)).pvalue < 1e-6
    assert np.array_equal(
        poisson_sample(40, 0.25, SeededRandom(2), batch_cap=40), poisson_sample(40, 0.25, SeededRandom(2))
    )


@pytest.mark.parametrize("cap", [0, -1, 1.5, True])
def test_a_cap_that_is_no_count_is_refused(cap):
    with pytest.raises(PrivacyError, match=r"batch_cap=.*: expected a whole number >= 1"):
        poisson_sample(5, 0.5, SecureRandom(), batch_cap=cap)
