import re

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from fedrec.errors import ConfigError
from fedrec.report.plan_chart import check_plot_path, draw_plan


def forecast(**changes):
    """A forecast by hand; nothing here is computed."""
    return {
        "epsilon": 3.0,
        "delta": 1e-6,
        "sampling_rate": 0.25,
        "statement": "Each person at a client has a promise, in so many words.",
        "epsilon_by_round": [{"round": 1, "epsilon": 1.0}, {"round": 2, "epsilon": 2.0}, {"round": 3, "epsilon": 2.9}],
        "epsilon_for_person_at": {"1": 2.9, "2": 4.2911, "10": 10.5},
        "sampling_rates": None,
    } | changes


RATES = [
    {"sampling_rate": 0.1, "noise_multiplier": 1.4, "relative_noise": 0.0028, "is_best": False},
    {"sampling_rate": 0.5, "noise_multiplier": None, "relative_noise": None, "is_best": False},
    {"sampling_rate": 1.0, "noise_multiplier": 9.8, "relative_noise": 0.0019, "is_best": True},
]


@pytest.fixture
def axes(monkeypatch, tmp_path):
    """Draw and keep the figure's axes."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k)))

    def draw(found):
        draw_plan(found, tmp_path / "plan.svg")
        return kept[-1].axes

    return draw


def test_the_curve_is_the_forecast_s_and_starts_at_nothing(axes):
    curve = axes(forecast())[0].lines[1]
    assert curve.get_xydata().tolist() == [[0, 0], [1, 1.0], [2, 2.0], [3, 2.9]]
    assert curve.get_drawstyle() == "steps-post"


def test_between_rounds_that_are_not_shown_the_curve_is_never_below_the_truth(axes):
    sparse = [{"round": 1, "epsilon": 1.0}, {"round": 50, "epsilon": 2.9}]
    assert axes(forecast(epsilon_by_round=sparse))[0].lines[1].get_drawstyle() == "steps-pre"


def test_bars_are_what_a_person_at_several_clients_pays(axes):
    right = axes(forecast())[1]
    assert [bar.get_height() for bar in right.patches] == [2.9, 4.2911, 10.5]
    assert [text.get_text() for text in right.texts] == ["2.90", "4.30", "10.50"]  # never rounded down


def test_compared_rates_take_the_place_of_the_bars_and_unreachable_ones_are_left_out(axes):
    right = axes(forecast(sampling_rates=RATES))[1]
    assert right.lines[0].get_xydata().tolist() == [[0.1, 0.0028], [1.0, 0.0019]]
    assert not right.patches
    assert [text.get_text() for text in right.texts] == ["least"]


def test_the_picture_says_the_statement_and_delta_and_repeats_byte_for_byte(tmp_path):
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_plan(forecast(), tmp_path / "a.svg")
        draw_plan(forecast(), tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for words in ("in so many words.", "epsilon at delta = 1e-06", "promised: 3", "Spent by round"):
        assert words in text
    assert not re.search(r"<dc:date>", text)


def test_other_formats_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--plot=plan: expected a file ending in \.svg or \.png"):
        check_plot_path(type(tmp_path)("plan"))
    with pytest.raises(ConfigError, match=r"no folder .*nowhere; make it first"):
        draw_plan(forecast(), tmp_path / "nowhere" / "plan.svg")
