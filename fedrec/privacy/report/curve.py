"""The picture of epsilon by round: a small SVG drawn here, so that every machine draws the same bytes."""

import math
from collections.abc import Callable

_WIDTH, _HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 22, 40


def epsilon_curve(points: tuple[tuple[int, float], ...], limit: float) -> str:
    """Draw epsilon after each charge below the line of the policy, in stairs: between two points, that of the later.

    Args:
        points: (charges, epsilon), charges ascending; at least one.
        limit: the policy's epsilon, > 0.

    Returns:
        An ``<svg>`` element without a word from outside; its colours and font are the page's.
    """
    last, highest = points[-1][0], max(limit, *(epsilon for _, epsilon in points)) * 1.1

    def place(charges: float, epsilon: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * charges / last
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1.0 - epsilon / highest)
        return f"{x:.1f},{y:.1f}"

    stairs, before = [place(0, 0)], 0
    for charges, epsilon in points:
        stairs += [place(before, epsilon), place(charges, epsilon)]
        before = charges
    start, end = place(0, limit), place(last, limit)
    x, y = (float(part) for part in start.split(","))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true" focusable="false">',
        *(_gridline(value, place) for value in _round_values(highest)),
        f'<path d="M{start}L{end}" stroke="var(--warn)" stroke-width="1.5" stroke-dasharray="5 4"/>',
        f'<text x="{x + 4:.1f}" y="{y - 6:.1f}" fill="var(--warn)">policy</text>',
        f'<path d="M{"L".join(stairs)}" fill="none" stroke="var(--accent)" stroke-width="2.5"/>',
        *(_mark(charges, last, place) for charges in sorted({1, (last + 1) // 2, last})),
        f'<text x="{(_LEFT + _WIDTH) / 2:.1f}" y="{_HEIGHT - 2}" text-anchor="middle">charges, oldest first</text>',
        '<text x="0" y="12">epsilon</text>',
        "</svg>",
    ]
    return "".join(parts)


def _round_values(highest: float) -> list[float]:
    """Two to five values from 0 up to ``highest`` that are easy to read."""
    step = 10.0 ** math.floor(math.log10(highest))
    while highest / step < 2.0:
        step /= 2.0
    while highest / step >= 5.0:
        step *= 2.0
    return [step * count for count in range(int(highest / step) + 1)]


def _gridline(value: float, place: Callable[[float, float], str]) -> str:
    """A line across at an epsilon, which stands to the left."""
    x, y = place(0, value).split(",")
    line = f'<path d="M{x},{y}H{_WIDTH - _RIGHT}" stroke="var(--line)"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{float(y) + 5:.1f}" text-anchor="end">{value:.3g}</text>'


def _mark(charges: int, last: int, place: Callable[[float, float], str]) -> str:
    """A number below the axis."""
    x, y = place(charges, 0).split(",")
    anchor = "end" if charges == last else "middle"
    return f'<text x="{x}" y="{float(y) + 17:.1f}" text-anchor="{anchor}">{charges}</text>'
