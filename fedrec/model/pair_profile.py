"""What people's rows of pair counts look like, by public people alone: how much a release of them can show."""

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.counting import person_statistics
from fedrec.model.pairs import PublicPairs
from fedrec.model.statistics import Counting, StatisticsSpec
from fedrec.privacy.splitter import PairBucket

_FIRST_EDGE = 0.5  # weighted count; pairs that were only suggested lie below every edge, the next edges double


def pair_buckets(pairs: PublicPairs, others: Histories, *, window: int) -> tuple[PairBucket, ...]:
    """Sort the listed pairs by how often they were seen, and measure each kind on other public people.

    A pair that was seen once was seen by luck, so the people who listed the pairs overrate the rare ones. The others
    do not know what was listed: the mean over a bucket is without bias, and so is the mean square, of which each
    person's product with themselves is left out.

    Args:
        pairs: with the counts of the people who listed them.
        others: public people whom the pairs were not counted from.
        window: events apart that still count as a pair.

    Returns:
        One bucket for each doubling of the count; none where there are fewer than two others.
    """
    people = len(others)
    if people < 2 or not len(pairs):
        return ()
    edges = _FIRST_EDGE * 2.0 ** np.arange(np.ceil(np.log2(max(pairs.counts.max() / _FIRST_EDGE, 1))) + 1)
    bucket_of = np.where(pairs.counts > 0, 1 + np.searchsorted(edges, pairs.counts), 0)
    sums, own = np.zeros(len(pairs)), np.zeros(bucket_of.max() + 1)
    for places, values in person_statistics(others, Counting(pairs, StatisticsSpec(window, popularity_share=0.0))):
        sums[places] += values
        np.add.at(own, bucket_of[places], values**2)
    sizes = np.bincount(bucket_of)
    means = np.bincount(bucket_of, weights=sums) / people / np.maximum(sizes, 1)
    products = (np.bincount(bucket_of, weights=sums**2) - own) / (people * (people - 1)) / np.maximum(sizes, 1)
    rms = np.sqrt(np.maximum(products, means**2))  # a mean square is never below the square of the mean
    buckets = zip(sizes.tolist(), means.tolist(), rms.tolist(), strict=True)
    return tuple(PairBucket(*bucket) for bucket in buckets if bucket[0])
