"""Charts are well-formed, true to their numbers, and silent about nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from agents.report.charts import Bar, Group, Series, line_chart, rate_bars, stacked_bars


def test_bars_are_as_long_as_their_rates() -> None:
    group = Group("a <b>", [Bar(0.5, "50 %", 0, "half", 0.4, 0.6), Bar(1.0, "all", 1, "all")], 0.25, "chance")
    svg = ElementTree.fromstring(rate_bars([group, Group("c", [Bar(0.0, "none", 0, "none")])], "x"))
    widths = [float(rect.get("width", "").rstrip("%")) for rect in svg.iter("rect")]
    assert widths[0] == pytest.approx(widths[1] / 2)
    assert 0 < widths[2] < 1  # a hair, so that none is seen as measured
    assert [text.text for text in svg.iter("title")] == ["half", "all", "chance", "none"]


def test_stacks_fill_the_width() -> None:
    rows = [("t", [("solved", 3), ("failed", 1), ("never", 0)])]
    svg = ElementTree.fromstring(stacked_bars(rows, {"solved": "blue", "failed": "red", "never": "grey"}, "x"))
    assert [float(rect.get("width", "").rstrip("%")) for rect in svg.iter("rect")] == [75, 25]


def points(chart: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]+)"', chart)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.group(1).split())]


def test_curves_go_where_their_numbers_go() -> None:
    drawn = points(line_chart("loss", [Series("training", [0, 50, 100], [2.0, 1.0, 1.5])]))
    assert drawn[0][0] < drawn[1][0] < drawn[2][0]
    assert drawn[0][1] < drawn[2][1] < drawn[1][1]  # SVG's y points down
    assert drawn[1][0] == pytest.approx((drawn[0][0] + drawn[2][0]) / 2, abs=0.1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1], [3.0]),
        ([0], [0.0]),
        ([1, 2], [5.0, 5.0]),
        ([1, 2], [-3.0, -1.0]),
        ([1, 2], [-1e-9, 1e9]),
        ([1, 2, 3], [1e-6, 1.0, 1e3]),
        ([1, 2], [0.0, 1e-12]),
        (list(range(5000)), [1 / (1 + i) for i in range(5000)]),
    ],
)
def test_odd_curves(x: list[float], y: list[float]) -> None:
    chart = line_chart("a & b", [Series("s", x, y), Series("empty", [], [])])
    ElementTree.fromstring(chart)
    assert len(points(chart)) == min(len(x), 120)
    assert all(0 <= u <= 360 and 0 <= v <= 200 for u, v in points(chart))


def test_no_values_no_chart() -> None:
    assert line_chart("a", [Series("s", [], [])]) == ""
