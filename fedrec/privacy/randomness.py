"""Where random numbers come from: a cryptographic source for the guarantee, a seeded one for tests.

Whoever can guess the noise can subtract it. So private noise and private sampling never touch
torch's, NumPy's or Python's seeded generators, and the private source takes no seed at all.
"""

import math
import os
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedrec.errors import PrivacyError

_KEY_BYTES = 32
_BITS = 53  # a double holds 53 random bits
_TERMS = 4  # normals that are added into one
_BLOCK = 1 << 15  # normals made at a time; bounds memory at any adapter size


class RandomSource(Protocol):
    """What the mechanism asks of randomness."""

    @property
    def is_private(self) -> bool:
        """Whether nobody can predict or repeat the numbers."""

    def normal(self, size: int) -> np.ndarray:
        """Independent standard normals, (size,), float64."""

    def bernoulli(self, size: int, rate: float) -> np.ndarray:
        """Independent coins, (size,), bool, each true with probability ``rate`` in [0, 1]."""

    def subset(self, size: int, *, count: int) -> np.ndarray:
        """``count`` <= ``size`` different places below ``size``, (count,), int64, ascending; all sets alike."""


class SecureRandom:
    """ChaCha20 under a fresh key from the operating system at every call.

    There is no state, so a forked, copied or restarted process never repeats a stream; there is
    no seed, so no setting can make the noise predictable.
    """

    @property
    def is_private(self) -> bool:
        return True

    def normal(self, size: int) -> np.ndarray:
        """Independent standard normals.

        Returns:
            (size,), float64, finite.

        Raises:
            PrivacyError: ``size`` is negative.

        Each is the sum of four Box-Muller normals, halved, which hides the holes in a single one's
        set of possible values. Source: Holohan & Braghin 2021, https://arxiv.org/abs/2107.10138
        """
        result = np.empty(_checked_size(size), dtype=np.float64)
        for start in range(0, size, _BLOCK):
            block = result[start : start + _BLOCK]
            block[:] = self._normal_block(len(block))
        return result

    def bernoulli(self, size: int, rate: float) -> np.ndarray:
        """Independent coins.

        Returns:
            (size,), bool; the probability of true is ``rate`` rounded down to 53 bits.

        Raises:
            PrivacyError: ``size`` is negative or ``rate`` outside [0, 1].
        """
        threshold = np.uint64(math.floor(_checked_rate(rate) * 2.0**_BITS))
        return self._integers(_checked_size(size)) < threshold

    def subset(self, size: int, *, count: int) -> np.ndarray:
        """A uniform subset without replacement.

        Every place gets a random 53-bit number and the smallest numbers win; should two be equal, all
        are drawn again, so that no set is likelier than another.

        Returns:
            (count,), int64, ascending.

        Raises:
            PrivacyError: ``size`` is negative or ``count`` outside [0, size].
        """
        _check_count(_checked_size(size), count)
        while len(np.unique(keys := self._integers(size))) < size:
            pass
        return np.sort(np.argsort(keys)[:count]).astype(np.int64)

    def _integers(self, size: int) -> np.ndarray:
        """Uniform 53-bit integers, (size,), uint64."""
        cipher = Cipher(ChaCha20(os.urandom(_KEY_BYTES), bytes(16)), mode=None)
        stream = cipher.encryptor().update(bytes(8 * size))
        return np.frombuffer(stream, dtype="<u8") >> np.uint64(64 - _BITS)

    def _normal_block(self, size: int) -> np.ndarray:
        """Box-Muller, (size,): the two outputs of a pair go to different sums, so each sum has four sources."""
        pairs = (_TERMS, (size + 1) // 2)
        uniforms = self._integers(2 * pairs[0] * pairs[1]).reshape(2, *pairs).astype(np.float64)
        radius = np.sqrt(-2.0 * np.log((uniforms[0] + 1.0) * 2.0**-_BITS))  # of (0, 1], so finite
        angle = uniforms[1] * (2.0 * math.pi * 2.0**-_BITS)
        both = [(radius * np.cos(angle)).sum(axis=0), (radius * np.sin(angle)).sum(axis=0)]
        return np.asarray(np.concatenate(both)[:size] / math.sqrt(_TERMS))


class SeededRandom:
    """Repeatable numbers for tests and for runs that are stamped NOT PRIVATE."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    @property
    def is_private(self) -> bool:
        return False

    def normal(self, size: int) -> np.ndarray:
        """Standard normals that repeat with the seed, (size,), float64."""
        return self._generator.standard_normal(_checked_size(size))

    def bernoulli(self, size: int, rate: float) -> np.ndarray:
        """Coins that repeat with the seed, (size,), bool."""
        return self._generator.random(_checked_size(size)) < _checked_rate(rate)

    def subset(self, size: int, *, count: int) -> np.ndarray:
        """A uniform subset that repeats with the seed, (count,), int64, ascending."""
        _check_count(_checked_size(size), count)
        return np.sort(self._generator.permutation(size)[:count]).astype(np.int64)


def _checked_size(size: int) -> int:
    if size < 0:
        raise PrivacyError(f"size={size}: expected >= 0 random numbers")
    return size


def _checked_rate(rate: float) -> float:
    if not 0.0 <= rate <= 1.0:  # false for NaN too
        raise PrivacyError(f"rate={rate}: expected a probability in [0, 1]")
    return rate


def _check_count(size: int, count: int) -> None:
    if not 0 <= count <= size:
        raise PrivacyError("count: expected a number between 0 and size")
