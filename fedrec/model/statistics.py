"""What clients count of their people in private: how often each item was taken, and each public pair of items.

Server and clients read the same layout: one vector, the blocks that have a share one after the other. Which pairs are
counted is public and fixed by the base, so that nobody's history decides it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from fedrec.model.pairs import PublicPairs
from fedrec.model.transitions import gap_weights_of
from fedrec.schema import AdapterSchema, ArraySpec

POPULARITY, PAIRS = "popularity", "pairs"


@dataclass(frozen=True)
class StatisticsSpec:
    """How a person is counted. Public, agreed on.

    Attributes:
        window: events apart that still count as a pair, >= 1; a pair g apart weighs 1/g.
        popularity_share: rho in [0, 1], of the square of a person's norm, that goes to the items' popularity; the
            rest goes to the pairs. A block without a share is left out.
    """

    window: int
    popularity_share: float

    @property
    def gap_weights(self) -> list[float]:
        """Weight of a pair that is 1, 2, ... events apart."""
        return gap_weights_of(self.window)

    @property
    def shares(self) -> dict[str, float]:
        """Of the square of a person's norm, by block, in the order of the vector."""
        shares = {POPULARITY: self.popularity_share, PAIRS: 1 - self.popularity_share}
        return {block: share for block, share in shares.items() if share > 0}


class Counting(NamedTuple):
    """What is counted, and how: the base's public pairs, and what was agreed on."""

    pairs: PublicPairs
    spec: StatisticsSpec

    @property
    def schema(self) -> AdapterSchema:
        """Names and shapes of what one client releases: popularity (I,) and pairs (C,)."""
        sizes = {POPULARITY: self.pairs.items, PAIRS: len(self.pairs)}
        return tuple(ArraySpec(block, (sizes[block],)) for block in self.spec.shares)
