"""The picture of epsilon never flatters: between two measured points it stands at the later one."""

import re

import pytest

from fedrec.privacy.report.curve import epsilon_curve

POINTS = ((1, 2.2), (5, 4.0), (30, 8.0))


def _stairs(svg: str) -> list[tuple[float, float]]:
    path = re.search(r'<path d="M([^"]+)" fill="none" stroke="var\(--accent\)"', svg)[1]
    return [tuple(float(part) for part in place.split(",")) for place in path.split("L")]


def test_line_stands_at_the_later_point_everywhere_between_two():
    stairs = _stairs(epsilon_curve(POINTS, 8.0))
    across = list(zip(stairs[1::2], stairs[2::2], strict=True))
    assert len(across) == 3
    for (x1, y1), (x2, y2) in across:
        assert x2 > x1
        assert y1 == y2
    heights = [y for (_, y), _ in across]
    assert heights == sorted(heights, reverse=True)
    assert stairs[0][1] > heights[0]  # it starts at nothing spent


@pytest.mark.parametrize(
    ("highest", "written"), [(8.0, {"0", "2", "4", "6", "8"}), (0.5, {"0", "0.2", "0.4"}), (1.0, {"0", "0.5", "1"})]
)
def test_values_at_the_side_are_easy_to_read(highest, written):
    svg = epsilon_curve(((1, highest / 2), (9, highest)), highest)
    shown = set(re.findall(r'text-anchor="end">([0-9.]+)</text>', svg)) - {"9"}
    assert shown == written


@pytest.mark.parametrize("highest", [1e-3, 0.9, 3.0, 7.3, 29.0, 4321.0])
def test_there_are_always_two_to_five_of_them(highest):
    svg = epsilon_curve(((1, highest),), highest)
    assert 2 <= svg.count('stroke="var(--line)"') <= 6
