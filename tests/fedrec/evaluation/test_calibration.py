import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as their_log_loss
from sklearn.metrics import roc_auc_score

from fedrec.errors import ConfigError, DataError
from fedrec.evaluation.calibration import Calibration, area_under_curve, error_by_chance, log_loss, reliability


def _predictions(count: int = 3_000, *, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, probabilities and clicks; the logits are right when ``skill`` is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 1.0, count)
    said = 1 / (1 + np.exp(-logits))
    clicked = rng.random(count) < 1 / (1 + np.exp(-skill * logits))
    return logits, said, clicked


def test_error_of_four_predictions_in_two_bins_by_hand():
    found = reliability(np.array([0.8, 0.1, 0.6, 0.3]), np.array([True, False, False, True]), bins=2)
    assert found.count.tolist() == [2, 2]
    assert found.said == pytest.approx([0.2, 0.7])
    assert found.came_true == pytest.approx([0.5, 0.5])
    assert found.error == pytest.approx((0.3 + 0.2) / 2)


def test_bins_are_weighed_by_how_many_predictions_they_hold():
    found = reliability(np.array([0.1, 0.1, 0.7]), np.array([False, False, True]), bins=2)
    assert found.count.tolist() == [2, 1]
    assert found.error == pytest.approx((2 * 0.1 + 0.3) / 3)


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_bins_agree_with_scikit_learn(bins):
    """Its quantile bins hold the same predictions where their number divides by that of the bins."""
    _, said, clicked = _predictions(3_000)
    ours = reliability(said, clicked, bins=bins)
    came_true, mean_said = calibration_curve(clicked, said, n_bins=bins, strategy="quantile")
    assert np.abs(ours.said - mean_said).max() < 0.003  # one prediction may lie on the edge between two bins
    assert np.abs(ours.came_true - came_true).max() < 0.01


def test_error_is_that_of_a_head_that_is_off_by_a_tenth():
    rng = np.random.default_rng(0)
    said = rng.uniform(0.2, 0.8, 200_000)
    assert reliability(said, rng.random(200_000) < said - 0.1).error == pytest.approx(0.1, abs=0.007)
    assert reliability(said, rng.random(200_000) < said).error < 0.01


def test_more_bins_than_predictions_are_as_many_as_there_are():
    assert reliability(np.array([0.5, 0.2]), np.array([True, False])).count.tolist() == [1, 1]


def test_error_by_chance_is_that_of_exact_probabilities():
    """One bin: the mean distance of a share from its chance, sqrt(2 p (1 - p) / (pi n)) by the normal law."""
    found = error_by_chance(np.full(400, 0.5), rng=np.random.default_rng(0), bins=1, draws=4_000)
    assert found == pytest.approx(np.sqrt(2 * 0.25 / (np.pi * 400)), rel=0.08)


def test_exact_head_errs_as_chance_does_and_another_more():
    _, said, clicked = _predictions(4_000)
    chance = error_by_chance(said, rng=np.random.default_rng(1), draws=300)
    assert reliability(said, clicked).error == pytest.approx(chance, abs=0.008)
    _, _, others = _predictions(4_000, skill=0.3)
    assert reliability(said, others).error > 3 * chance


def test_log_loss_agrees_with_scikit_learn_and_is_infinite_for_the_impossible():
    _, said, clicked = _predictions(500)
    assert log_loss(said, clicked) == pytest.approx(their_log_loss(clicked, said))
    assert log_loss(np.array([0.0, 0.5]), np.array([True, False])) == np.inf


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_area_agrees_with_scikit_learn_ties_included(decimals):
    logits, _, clicked = _predictions(500)
    scores = logits.round(decimals)
    assert area_under_curve(scores, clicked) == pytest.approx(roc_auc_score(clicked, scores), abs=1e-12)


def test_area_of_three_by_hand():
    assert area_under_curve(np.array([1.0, 2.0, 2.0]), np.array([False, True, False])) == 0.75


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_calibration_agrees_with_scikit_learn(seed):
    logits, _, clicked = _predictions(800, seed=seed, skill=0.4)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], clicked)
    ours = Calibration.fit(logits, clicked)
    assert ours.slope == pytest.approx(float(theirs.coef_[0, 0]), abs=1e-4)
    assert ours.intercept == pytest.approx(float(theirs.intercept_[0]), abs=1e-4)


def test_calibration_mends_a_head_that_is_too_sure():
    logits, said, clicked = _predictions(20_000, skill=0.4)
    ours = Calibration.fit(logits[:10_000], clicked[:10_000])
    assert ours.slope == pytest.approx(0.4, abs=0.1)
    assert reliability(said[10_000:], clicked[10_000:]).error > 0.1
    assert reliability(ours.apply(logits[10_000:]), clicked[10_000:]).error < 0.03


def test_calibration_survives_logits_of_any_size():
    logits, _, clicked = _predictions(800)
    for scale in (1e-3, 1e3):
        ours = Calibration.fit(scale * logits, clicked)
        assert ours.slope * scale == pytest.approx(Calibration.fit(logits, clicked).slope, rel=1e-5)
    assert np.isfinite(ours.apply(np.array([-1e6, 1e6]))).all()


NO_SLOPE = "calibration: no slope fits; bring more impressions, or a head that has learned something"


@pytest.mark.parametrize(
    ("logits", "clicked", "message"),
    [
        ([0.0, 1.0], [True, True], "calibration: all or none are clicked; expected some of each"),
        ([0.0, 1.0], [False, False], "calibration: all or none are clicked; expected some of each"),
        ([0.0, 1.0, 2.0, 3.0], [False, False, True, True], NO_SLOPE),
        ([3.0, 2.0, 1.0, 2.5], [False, False, True, True], NO_SLOPE),
        ([1.0, 1.0, 1.0], [False, True, True], NO_SLOPE),
        ([1.0], [True, False], "1 predictions and 2 clicks: expected as many, and at least one"),
        ([], [], "0 predictions and 0 clicks: expected as many, and at least one"),
    ],
    ids=["all", "none", "set apart", "falling", "constant", "unequal", "nothing"],
)
def test_calibration_that_has_no_answer_is_refused(logits, clicked, message):
    with pytest.raises(DataError, match=message):
        Calibration.fit(np.array(logits), np.array(clicked, dtype=bool))


@pytest.mark.parametrize(("slope", "intercept"), [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_calibration_that_would_turn_the_order_round_is_refused(slope, intercept):
    with pytest.raises(ConfigError, match=rf"calibration slope={slope}, intercept={intercept}: expected finite"):
        Calibration(slope, intercept)


def test_measures_refuse_what_they_cannot_measure():
    with pytest.raises(DataError, match="clicks: all or none; expected some of each"):
        area_under_curve(np.array([0.1, 0.2]), np.array([True, True]))
    with pytest.raises(ConfigError, match="bins=0: expected >= 1"):
        reliability(np.array([0.1]), np.array([True]), bins=0)
    with pytest.raises(DataError, match="0 predictions and 0 clicks"):
        reliability(np.array([]), np.array([], dtype=bool))
