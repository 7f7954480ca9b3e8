"""Charts are well-formed, true to their numbers, and silent about nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from agents.report.charts import Bar, Group, Series, line_chart, rate_bars, stacked_bars
from agents.report.markup import words

NAMED = {"nbsp": " "}


def parse(html: str) -> ElementTree.Element:
    parser = ElementTree.XMLParser()
    parser.entity.update(NAMED)
    return ElementTree.fromstring(f"<!DOCTYPE x SYSTEM 'x'>{html.replace('<wbr>', '')}", parser)


def shares(chart: ElementTree.Element, kind: str, key: str = "width") -> list[float]:
    """Percentages in the styles of the elements of a class."""
    found = [re.search(rf"{key}:([\d.]+)", e.get("style", "")) for e in chart.iter() if e.get("class") == kind]
    return [float(match.group(1)) for match in found if match]


def test_bars_are_as_long_as_their_rates() -> None:
    bars = [Bar("one", 0.5, "#112233", "half", 0.4, 0.65), Bar("two", 1.0, "#112233", "all")]
    chart = parse(rate_bars([Group("a <b>", bars, 0.25, "chance"), Group("c", [Bar("three", 0.0, "#112233", "none")])]))
    assert shares(chart, "bar") == [50, 100, 0]
    assert (shares(chart, "whisker", "left"), shares(chart, "whisker")) == ([40], [25])
    assert shares(chart, "mark", "left") == [25, 25]
    assert [e.get("title") for e in chart.iter() if e.get("class") == "track"] == ["half", "all", "none"]
    text = "".join(chart.itertext())
    assert all(name in text for name in ("a <b>", "one", "50 %", "two", "100 %", "three", "0 %"))


def test_stacks_fill_the_width() -> None:
    rows = [("t", [("solved", 3), ("failed", 1), ("never", 0)])]
    chart = parse(stacked_bars(rows, {"solved": "#0072b2", "failed": "#f0e442", "never": "#000000"}))
    parts = [e for e in chart.iter("span")]
    assert [e.text for e in parts] == ["3 solved", "1 failed"]
    assert [e.get("style", "").split(";")[0] for e in parts] == ["flex:3", "flex:1"]
    assert ["color:#ffffff" in e.get("style", "") for e in parts] == [True, False]  # white on blue, black on yellow


def test_words_break_behind_underscores_only() -> None:
    assert words("slide_block <1> 5 %") == "slide_<wbr>block &lt;1&gt; 5&nbsp;%"


def points(chart: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]+)"', chart)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.group(1).split())]


def test_curves_go_where_their_numbers_go() -> None:
    chart = line_chart("loss", [Series("training", [0, 50, 100], [2.0, 1.0, 1.5], "#112233")])
    drawn = points(chart)
    assert drawn[0][0] < drawn[1][0] < drawn[2][0]
    assert drawn[0][1] < drawn[2][1] < drawn[1][1]  # SVG's y points down
    assert drawn[1][0] == pytest.approx((drawn[0][0] + drawn[2][0]) / 2, abs=0.1)
    assert ">training step</text>" in chart


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0, 1], [0.0, 0.0]),
        ([1, 2], [5.0, 5.0]),
        ([1, 2], [-3.0, -1.0]),
        ([1, 2], [-1e-9, 1e9]),
        ([1, 2, 3], [1e-6, 1.0, 1e3]),
        ([1, 2], [0.0, 1e-12]),
        (list(range(5000)), [1 / (1 + i) for i in range(5000)]),
    ],
)
def test_odd_curves(x: list[float], y: list[float]) -> None:
    chart = line_chart("a & b", [Series("s", x, y, "#112233"), Series("empty", [], [], "#112233")])
    ElementTree.fromstring(chart)
    assert len(points(chart)) == min(len(x), 120)
    assert all(0 <= u <= 360 and 0 <= v <= 214 for u, v in points(chart))


def test_without_two_points_no_curve() -> None:
    assert line_chart("a", [Series("s", [], [], "#112233")]) == ""
    assert line_chart("a", [Series("s", [1], [3.0], "#112233")]) == ""
