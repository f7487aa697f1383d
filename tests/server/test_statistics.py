"""Pairs that stand out from the noise become a part of the score, weighed on the panel, and are written whole."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedrec.evaluation.masking import Masking
from fedrec.model.adapters import adapter_arrays
from fedrec.model.pairs import PairPart, PairSpec, PublicPairs
from fedrec.model.statistics import Counting, StatisticsSpec
from server.census import Counts
from server.panel import PanelJudge
from server.statistics import WEIGHTS, Reading, counted_pairs, publish_statistics
from tests.tiny_ranker import ITEMS, adapted, histories, public_pairs

PAIRS = public_pairs()
SPEC = PairSpec(weight=0.0, sharpness=30.0, recent=3, decay=0.4, shrinkage=1.0)
ABOUT = {"run_id": "run-1", "round": "3", "base": "a" * 64}


def reading(share: float = 0.0, **changes: Any) -> Reading:
    counting = Counting(PAIRS, StatisticsSpec(window=3, popularity_share=share))
    return Reading(**({"counting": counting, "threshold": 2.5, "spec": SPEC} | changes))


def counts(*first: float, noise_std: float = 2.0, before: int = 0) -> Counts:
    """Totals that begin with these, zeros otherwise; ``before`` numbers of popularity come first."""
    totals = np.zeros(before + len(PAIRS))
    totals[before : before + len(first)] = first
    totals[:before] = 100 + np.arange(before)
    return Counts(totals, noise_std, replies=4)


def test_only_counts_that_stand_out_are_kept() -> None:
    """Noise of 2: what is below 5 is none."""
    kept = counted_pairs(counts(4.99, 5.0, -9.0, 7.0), reading())
    assert kept.counts.tolist() == [5.0, 7.0]
    assert kept.first.tolist() == PAIRS.first[[1, 3]].tolist()
    assert kept.then.tolist() == PAIRS.then[[1, 3]].tolist()
    assert kept.spec == SPEC


def test_without_noise_everything_that_was_counted_is_kept() -> None:
    assert counted_pairs(counts(0.001, 0.0, 3.0, noise_std=0.0), reading()).counts == pytest.approx([0.001, 3.0])


def test_popularity_comes_first_and_is_no_pair() -> None:
    assert counted_pairs(counts(0.0, 6.0, before=ITEMS), reading(share=0.25)).counts.tolist() == [6.0]
    alone = Counts(np.full(ITEMS, 100.0), 2.0, replies=4)
    assert len(counted_pairs(alone, reading(share=1.0))) == 0


def test_the_file_holds_the_pairs_the_weight_and_what_they_come_from(tmp_path: Any) -> None:
    path = tmp_path / "statistics.safetensors"
    chosen = lambda adapter, part, weights: max(weights)  # noqa: E731
    published = publish_statistics(
        path, counts(6.0, before=ITEMS), reading(share=0.25, weigh=chosen), adapter={}, about=ABOUT
    )
    read = PublicPairs.load(tmp_path, file="statistics.safetensors")
    assert read.spec.weight == published.spec.weight == max(WEIGHTS)
    assert read.counts.tolist() == [6.0]
    stored = load_file(path)
    assert stored["popularity"].tolist() == (100 + np.arange(ITEMS)).tolist()
    assert (stored["noise_std"].item(), stored["replies"].item()) == (2.0, 4)


def test_the_same_counts_are_published_as_the_same_bytes(tmp_path: Any) -> None:
    files = [tmp_path / name for name in "ab"]
    for path in files:
        publish_statistics(path, counts(6.0, 8.0), reading(), adapter={}, about=ABOUT)
    assert files[0].read_bytes() == files[1].read_bytes()


def _weight(kept: PublicPairs, pairs: PairPart) -> float:
    """The weight that the panel gives to pairs beside others."""
    panel = histories(8, 8, 8, 8, 8, 8, seed=3)
    adapter = adapter_arrays(adapted())
    judge = PanelJudge(adapted(), panel, pairs, Masking.LAST, adapter)
    return judge.weigh(adapter, kept.part(), WEIGHTS)


def test_the_panel_weighs_pairs_and_leaves_out_what_does_harm() -> None:
    """Pairs that the panel's people do take get weight; pairs that lead away from them get none."""
    panel = histories(8, 8, 8, 8, 8, 8, seed=3)
    taken = np.unique(np.concatenate([panel.of(i)[:-1].astype(np.int64) * ITEMS + panel.of(i)[1:] for i in range(6)]))
    followed = set(taken.tolist())
    away = np.array([key for key in range(ITEMS**2) if key not in followed and key // ITEMS != key % ITEMS])
    nothing = PublicPairs(ITEMS, *np.zeros((2, 0), np.int32), np.zeros(0, np.float32), SPEC).part()
    for keys, expected in ((taken, True), (away, False)):
        first, then = (array.astype(np.int32) for array in np.divmod(keys, ITEMS))
        pairs = PublicPairs(ITEMS, first, then, np.ones(len(keys), np.float32), SPEC)
        assert (_weight(pairs, nothing) > 0) == expected


def test_the_panel_weighs_pairs_beside_the_public_ones() -> None:
    """Where the public pairs say it all already, and strongly, the same again adds less."""
    panel = histories(8, 8, 8, 8, 8, 8, seed=3)
    taken = np.unique(np.concatenate([panel.of(i)[:-1].astype(np.int64) * ITEMS + panel.of(i)[1:] for i in range(6)]))
    first, then = (array.astype(np.int32) for array in np.divmod(taken, ITEMS))
    loud = PairSpec(weight=20.0, sharpness=30.0, recent=1, decay=0.4, shrinkage=0.0)
    pairs = PublicPairs(ITEMS, first, then, np.ones(len(taken), np.float32), loud)
    nothing = PublicPairs(ITEMS, *np.zeros((2, 0), np.int32), np.zeros(0, np.float32), SPEC).part()
    assert _weight(pairs, pairs.part()) < _weight(pairs, nothing)
