import inspect
import itertools
import os
import random as python_random

import numpy as np
import pytest
import torch
from scipy import stats

from fedrec.errors import PrivacyError
from fedrec.privacy.randomness import RandomSource, SecureRandom, SeededRandom

SOURCES = [SecureRandom(), SeededRandom(3)]


def is_standard_normal(sample: np.ndarray, scale: float = 1.0) -> bool:
    """Chi-square on the spread and Kolmogorov-Smirnov on the shape, each at a false alarm of 1e-6."""
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(sample))
    spread = float(((sample / scale) ** 2).sum())
    return low < spread < high and stats.kstest(sample / scale, "norm").pvalue > 1e-6


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: type(s).__name__)
class TestEverySource:
    def test_normals_have_unit_spread_and_shape_and_wrong_scales_are_told_apart(self, source: RandomSource):
        sample = source.normal(40_001)
        assert sample.dtype == np.float64
        assert sample.shape == (40_001,)
        assert is_standard_normal(sample)
        assert not is_standard_normal(sample * 2 / 3)
        assert not is_standard_normal(sample * 3 / 2)

    def test_normals_of_two_calls_and_of_two_halves_are_independent(self, source: RandomSource):
        first, second = source.normal(40_000), source.normal(40_000)
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(40_000)
        assert abs(np.corrcoef(first[:20_000], first[20_000:])[0, 1]) < 5 / np.sqrt(20_000)
        assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / np.sqrt(40_000)

    @pytest.mark.parametrize("rate", [0.05, 0.25, 0.9])
    def test_coins_fall_at_their_rate(self, source: RandomSource, rate: float):
        heads = int(source.bernoulli(50_000, rate).sum())
        assert stats.binomtest(heads, 50_000, rate).pvalue > 1e-6
        assert stats.binomtest(heads, 50_000, rate * 2 / 3).pvalue < 1e-6

    def test_certain_and_impossible_coins_are_exact(self, source: RandomSource):
        assert source.bernoulli(1000, 1.0).all()
        assert not source.bernoulli(1000, 0.0).any()

    def test_every_subset_is_equally_likely_and_a_lean_towards_the_front_is_told_apart(self, source: RandomSource):
        """Ten pairs out of five places: chi-square at a false alarm of 1e-6."""
        pairs = dict.fromkeys(itertools.combinations(range(5), 2), 0)
        for _ in range(4000):
            pairs[tuple(source.subset(5, count=2).tolist())] += 1
        assert stats.chisquare(list(pairs.values())).pvalue > 1e-6
        leaning = [count + (120 if 0 in pair else -80) for pair, count in pairs.items()]
        assert stats.chisquare(leaning).pvalue < 1e-6

    def test_a_subset_has_its_size_ascends_and_repeats_nobody(self, source: RandomSource):
        for count in (0, 1, 50, 100):
            chosen = source.subset(100, count=count)
            assert chosen.dtype == np.int64
            assert chosen.shape == (count,)
            assert (np.diff(chosen) > 0).all()
            assert count == 0 or (chosen.min() >= 0 and chosen.max() < 100)
        assert source.subset(0, count=0).shape == (0,)

    @pytest.mark.parametrize("count", [-1, 4])
    def test_a_subset_that_does_not_fit_is_refused_without_naming_a_size(self, source: RandomSource, count: int):
        with pytest.raises(PrivacyError, match=r"^count: expected a number between 0 and size$"):
            source.subset(3, count=count)

    def test_nothing_asked_is_nothing_given(self, source: RandomSource):
        assert source.normal(0).shape == (0,)
        assert source.bernoulli(0, 0.5).shape == (0,)

    @pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
    def test_a_rate_that_is_no_probability_is_refused(self, source: RandomSource, rate: float):
        with pytest.raises(PrivacyError, match=r"rate=.*: expected a probability in \[0, 1\]"):
            source.bernoulli(3, rate)

    def test_a_negative_size_is_refused(self, source: RandomSource):
        with pytest.raises(PrivacyError, match="size=-1: expected >= 0 random numbers"):
            source.normal(-1)
        with pytest.raises(PrivacyError, match="size=-1: expected >= 0 random numbers"):
            source.bernoulli(-1, 0.5)


def test_the_secure_source_takes_no_argument():
    assert not inspect.signature(SecureRandom).parameters


def test_the_chance_of_a_coin_is_rounded_down_never_up(monkeypatch):
    monkeypatch.setattr(SecureRandom, "_integers", lambda self, size: np.zeros(size, dtype=np.uint64))
    assert not SecureRandom().bernoulli(3, 0.0).any()
    assert not SecureRandom().bernoulli(3, 2.0**-54).any()
    assert SecureRandom().bernoulli(3, 2.0**-53).all()


def test_equal_keys_are_drawn_again_so_that_no_subset_is_likelier(monkeypatch):
    draws = iter([np.array([4, 4, 1], dtype=np.uint64), np.array([9, 2, 5], dtype=np.uint64)])
    monkeypatch.setattr(SecureRandom, "_integers", lambda self, size: next(draws))
    assert SecureRandom().subset(3, count=2).tolist() == [1, 2]


def test_two_secure_sources_and_two_calls_differ():
    source = SecureRandom()
    draws = [source.normal(8), source.normal(8), SecureRandom().normal(8)]
    assert len({draw.tobytes() for draw in draws}) == 3


def test_seeds_of_torch_numpy_and_python_have_no_influence():
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        python_random.seed(0)
        draws.append((SecureRandom().normal(64).tobytes(), SecureRandom().bernoulli(64, 0.5).tobytes()))
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_the_secure_source_leaves_the_seeded_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SecureRandom().normal(10)
    assert torch.equal(before, torch.get_rng_state())


def test_a_forked_process_does_not_repeat_the_stream():
    source = SecureRandom()
    source.normal(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.normal(8).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 64) != source.normal(8).tobytes()
    os.close(reader)
    os.close(writer)


def test_blocks_join_without_a_seam():
    sample = SecureRandom().normal(3 * (1 << 15) + 7)
    assert np.isfinite(sample).all()
    assert len(np.unique(sample)) == len(sample)


def test_only_the_secure_source_is_private_and_neither_can_be_told_otherwise():
    assert SecureRandom().is_private is True
    assert SeededRandom(0).is_private is False
    with pytest.raises(AttributeError):
        SeededRandom(0).is_private = True


def test_the_seeded_source_repeats():
    assert np.array_equal(SeededRandom(5).normal(9), SeededRandom(5).normal(9))
    assert np.array_equal(SeededRandom(5).bernoulli(9, 0.5), SeededRandom(5).bernoulli(9, 0.5))
