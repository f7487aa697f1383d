"""Pictures are small, deterministic, take their colours from the page and leave gaps where nothing is known."""

import re
import xml.etree.ElementTree as ET

import pytest

from fedrec.report import charts
from fedrec.report.inputs import check_inputs

DRAWINGS = {
    "quality": lambda rounds, context: charts.quality_curve(rounds, published_round=context.published_round),
    "epsilon": lambda rounds, context: charts.epsilon_curve(rounds, budget=8.0),
    "merchants": lambda rounds, context: charts.merchants_plot(context.clients, name="merchants", is_wide=True),
    "narrow": lambda rounds, context: charts.merchants_plot(context.clients, name="narrow", is_wide=False),
    "gains": lambda rounds, context: charts.gains_plot(context.clients, name="gains", is_wide=True),
}


@pytest.fixture(params=DRAWINGS)
def draw(request):
    return DRAWINGS[request.param]


def test_a_picture_is_one_well_formed_svg_that_scales(run, draw):
    _, rounds, context = check_inputs(*run)
    root = ET.fromstring(draw(rounds, context))
    assert root.tag.endswith("svg")
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & root.attrib.keys()


def test_a_picture_has_no_colour_font_or_link_of_its_own(run, draw):
    _, rounds, context = check_inputs(*run)
    svg = draw(rounds, context)
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", svg)
    assert "var(--" in svg
    assert set(re.findall(r"https?://[^\"]+", svg)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_same_run_draws_the_same_bytes(run, draw):
    _, rounds, context = check_inputs(*run)
    assert draw(rounds, context) == draw(rounds, context)


def test_ids_of_different_pictures_never_meet(run):
    _, rounds, context = check_inputs(*run)
    ids = [set(re.findall(r' id="([^"]+)"', draw(rounds, context))) for draw in DRAWINGS.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_every_reference_has_its_target(run, draw):
    _, rounds, context = check_inputs(*run)
    svg = draw(rounds, context)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) == set(re.findall(r' id="([^"]+)"', svg))


def test_the_published_round_is_named(run):
    _, rounds, _ = check_inputs(*run)
    assert ">published<" in charts.quality_curve(rounds, published_round=3)
    assert ">published<" not in charts.quality_curve(rounds, published_round=0)


def test_an_unmeasured_round_leaves_a_gap(run):
    whole = charts.quality_curve(check_inputs(*run)[1], published_round=None)
    run[1][10]["panel_ndcg@10"] = None
    broken = charts.quality_curve(check_inputs(*run)[1], published_round=None)
    line = re.compile(r'<path d="(M[^"]*)"[^>]*stroke: var\(--accent\); stroke-width: 2')
    assert line.search(whole)[1].count("M") == 1
    assert line.search(broken)[1].count("M") == 2


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_any_number_of_merchants_can_be_drawn(run, count):
    run[2]["clients"] = [
        {"name": f"m{n}", "people": n + 1, "epsilon": 8.0, "local_only": 0.1, "federated": 0.2} for n in range(count)
    ]
    assert "<svg" in charts.merchants_plot(check_inputs(*run)[2].clients, name="m", is_wide=False)


def test_a_merchants_gain_stands_above_or_below_the_line_at_its_size(run):
    """Four merchants at known places: the largest loses."""
    figures = [(10, 0.1, 0.2), (100, 0.1, 0.3), (1000, 0.2, 0.2), (10000, 0.2, 0.1)]
    run[2]["clients"] = [
        {"name": "m", "people": people, "epsilon": 8.0, "local_only": alone, "federated": together}
        for people, alone, together in figures
    ]
    svg = charts.gains_plot(check_inputs(*run)[2].clients, name="g", is_wide=False)
    point = re.compile(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: var\(--(accent|alone|warn)\)')
    found = sorted((float(x), float(y), colour) for x, y, colour in point.findall(svg)[:4])  # the legend comes last
    (x1, y1, _), (x2, y2, _), (x3, y3, _), (x4, y4, _) = found
    assert [colour for *_, colour in found] == ["accent", "accent", "alone", "warn"]
    assert x2 - x1 == pytest.approx(x3 - x2) == pytest.approx(x4 - x3)  # ten times the people, one step to the right
    assert (y3 - y2) == pytest.approx(2 * (y3 - y1)) == pytest.approx(2 * (y4 - y3))  # y grows downwards
