"""Charts as SVG."""

from __future__ import annotations

import math
import re

import pytest

from wassily.reporting import charts
from wassily.reporting.charts import Dot, Scale, Series


def test_round_ticks() -> None:
    """By hand: 1, 2, 2.5 or 5 times a power of ten apart, none outside."""
    assert charts.ticks(0, 100) == [0, 25, 50, 75, 100]
    assert charts.ticks(0.028, 0.0331) == [0.028, 0.03, 0.032]
    assert charts.ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]
    assert [charts.number(v) for v in (-1000, 0.5, 1e-7)] == ["−1,000", "0.5", "1e−07"]


def test_a_scale_is_a_straight_line() -> None:
    scale = Scale(10, 20, 100, 0)
    assert [scale(v) for v in (10, 15, 20)] == [100, 50, 0]


def test_a_long_line_is_thinned_by_means() -> None:
    """The mean of all is kept, the order too; what is not finite is no part of it."""
    points = [(float(n), float(n % 7)) for n in range(960)] + [(1.0, math.inf)]
    thin = charts.thinned(points)
    assert len(thin) == 240
    assert sum(y for _, y in thin) / 240 == pytest.approx(sum(n % 7 for n in range(960)) / 960)
    assert thin == sorted(thin)


def test_a_single_point() -> None:
    """The axis goes from zero to its step, not from one half of a step to another."""
    made = charts.line_chart([Series("a", [(10.0, 5.0)], 10)], "t", "x", "y")
    assert ">0<" in made and ">10<" in made and ">9.6<" not in made and ">10.4<" not in made
    assert "<circle" in charts.line_chart([Series("a", [(0.0, 5.0)], 10)], "t", "x", "y")


def test_points_lie_within_the_axes() -> None:
    """Lines, areas and dots, of one point and of equal values too."""
    rows = [(0.0, 5.0), (10.0, 5.0), (20.0, 7.0)]
    for points in (rows, rows[:1], rows[:2]):
        spread = [(x, y - 1, y + 1) for x, y in points]
        made = charts.line_chart([Series("a<b", points, 10, spread)], "t", "x", "y")
        for x, y in re.findall(r"([\d.]+),([\d.]+)", " ".join(re.findall('points="(.*?)"', made))):
            assert charts.LEFT <= float(x) <= charts.WIDTH - charts.RIGHT
            assert charts.TOP <= float(y) <= charts.HEIGHT - charts.BOTTOM
        assert "a&lt;b" in made and "a<b" not in made
    dots = [
        Dot(f"step {n}", (n, n - 1, n + 1), (1, 0, 2), "base" if not n else "step")
        for n in range(3)
    ]
    made = charts.dot_chart(dots, "t", "x", "y")
    assert made.count("<circle") == 3 and made.count('class="dot base"') == 1
    assert charts.dot_chart([], "t", "x", "y") == charts.line_chart([], "t", "x", "y") == ""
