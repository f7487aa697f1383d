"""From noised counts to a part of the score. Made of what was released, so it costs no privacy whatever it does."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedrec.model.pairs import PairPart, PairSpec, PublicPairs, with_weight
from fedrec.model.statistics import PAIRS, POPULARITY, Counting
from fedrec.runfolder import write_arrays
from fedrec.schema import Arrays, unflatten
from server.census import Counts

log = logging.getLogger(__name__)

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)  # logits; no part at all stays a choice


@dataclass(frozen=True, eq=False)
class Reading:
    """How counts are read. Public.

    Attributes:
        counting: what was counted.
        threshold: counts below so many standard deviations of their noise are taken for none.
        spec: how the pairs that are left enter the score; its weight stands where nothing chooses another.
        weigh: chooses the weight of pairs beside an adapter, among some; None where there is no panel to choose on.
    """

    counting: Counting
    threshold: float
    spec: PairSpec
    weigh: Callable[[Arrays, PairPart, tuple[float, ...]], float] | None = None


def counted_pairs(counts: Counts, reading: Reading) -> PublicPairs:
    """Keep the pairs whose count stands out from its noise; none where pairs were not counted."""
    pairs = reading.counting.pairs
    totals = _blocks(counts, reading).get(PAIRS, np.zeros(len(pairs), np.float32))
    is_kept = (totals > 0) & (totals >= reading.threshold * counts.noise_std)
    return replace(
        pairs, first=pairs.first[is_kept], then=pairs.then[is_kept], counts=totals[is_kept], spec=reading.spec
    )


def weighed_pairs(counts: Counts, reading: Reading, *, adapter: Arrays) -> PublicPairs:
    """As ``counted_pairs``, with the weight that suits them best beside an adapter, where there is a panel."""
    pairs = counted_pairs(counts, reading)
    return pairs if reading.weigh is None else with_weight(pairs, reading.weigh(adapter, pairs.part(), WEIGHTS))


def publish_statistics(
    path: Path, counts: Counts, reading: Reading, *, adapter: Arrays, about: Mapping[str, str]
) -> PublicPairs:
    """Write what the counts came to, atomically: the pairs that stand out and their weight, and noised popularity.

    Args:
        adapter: that is published beside them; the weight is chosen for both together.
        about: metadata: the run and its base.

    Returns:
        The pairs, with the weight that was chosen.

    Raises:
        RunError: the disk refuses.
    """
    pairs = weighed_pairs(counts, reading, adapter=adapter)
    log.info("statistics replies=%d pairs=%d weight=%g", counts.replies, len(pairs), pairs.spec.weight)
    popularity = {name: values for name, values in _blocks(counts, reading).items() if name == POPULARITY}
    numbers = {"noise_std": np.array(counts.noise_std), "replies": np.array(counts.replies)}
    write_arrays(path, pairs.arrays() | popularity | numbers, metadata=about)
    return pairs


def _blocks(counts: Counts, reading: Reading) -> Arrays:
    return unflatten(counts.totals, reading.counting.schema)
