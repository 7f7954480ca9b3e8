"""Small charts in plain Python, without network and script: bars as HTML, curves as SVG.

Bars are HTML so that their texts keep their size, wrap on a phone and are read out by a screen reader. Every mark has
a title, which browsers show on hovering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from agents.report.colours import ink_on
from agents.report.markup import words


@dataclass(frozen=True)
class Bar:
    """One bar of a rate. name: written before it. value: 0 to 1. low, high: whisker, or None. title: on hovering."""

    name: str
    value: float
    colour: str
    title: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Bars that belong together under one label. mark: a rate to compare with (a dashed line), or None."""

    label: str
    bars: Sequence[Bar]
    mark: float | None = None
    mark_title: str = ""


@dataclass(frozen=True)
class Series:
    """A curve: equally many x and y, finite, x rising."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str


def rate_bars(groups: Sequence[Group]) -> str:
    """Horizontal bars on an axis from 0 to 100 %, with whiskers, each between its name and its rate."""
    rows = []
    for group in groups:
        rows.append(f'<b class="group">{words(group.label)}</b>')
        for bar in group.bars:
            marks = f'<i class="bar" style="width:{_percent(bar.value)};background:{bar.colour}"></i>'
            if bar.low is not None and bar.high is not None:
                place = f"left:{_percent(bar.low)};width:{_percent(bar.high - bar.low)}"
                marks += f'<i class="whisker" style="{place}"></i>'
            if group.mark is not None:
                title = escape(group.mark_title)
                marks += f'<i class="mark" title="{title}" style="left:{_percent(group.mark)}"></i>'
            rows.append(
                f'<span>{words(bar.name)}</span><span class="track" title="{escape(bar.title)}">{marks}</span>'
                f'<span class="rate">{100 * bar.value:.0f}&nbsp;%</span>'
            )
    rows.append('<span></span><span class="axis"><i>0</i><i>50</i><i>100&nbsp;%</i></span><span></span>')
    return f'<div class="bars">{"".join(rows)}</div>'


def stacked_bars(rows: Sequence[tuple[str, Sequence[tuple[str, int]]]], colours: dict[str, str]) -> str:
    """One bar a row, made of counted parts, each row filling the width. colours: part → CSS colour as #rrggbb."""
    out = []
    for name, parts in rows:
        total = sum(count for _, count in parts)
        out.append(f'<b class="group">{words(name)}</b><div class="stack">')
        for part, count in parts:
            if count:
                title = escape(f"{name}: {part}, {count} of {total}")
                style = f"flex:{count};background:{colours[part]};color:{ink_on(colours[part])}"
                out.append(f'<span title="{title}" style="{style}">{count} {escape(part)}</span>')
        out.append("</div>")
    return f'<div class="stacks">{"".join(out)}</div>'


def line_chart(title: str, series: Sequence[Series], x_name: str = "training step", points: int = 120) -> str:
    """Curves over one axis, 360×214. More than `points` values are averaged in bins; hovering names values.

    The vertical axis is logarithmic where the values span more than a factor of 30. The second curve is dashed. Without
    two points to join there is nothing to see, and "" is returned.
    """
    width, height, left, right, top, bottom = 360, 214, 46, 8, 8, 38
    shown = [Series(s.name, *_binned(s.x, s.y, points), s.colour) for s in series if len(s.x)]
    if all(len(s.x) < 2 for s in shown):
        return ""
    values = [y for s in shown for y in s.y]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > 30
    ticks = _log_ticks(low, high) if logarithmic else _ticks(min(0.0, low) if low > -high else low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    x_high = max(s.x[-1] for s in shown) or 1.0

    def place_x(x: float) -> float:
        return left + (width - left - right) * x / x_high

    def place_y(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return height - bottom - (height - top - bottom) * share

    out = []
    for tick in ticks:
        y = place_y(tick)
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in _ticks(0, x_high, 4):
        if tick <= x_high:
            anchor = "end" if place_x(tick) > width - 24 else "middle"
            place = f'x="{place_x(tick):.1f}" y="{height - bottom + 16}" text-anchor="{anchor}"'
            out.append(f'<text class="tick" {place}>{number(tick)}</text>')
    middle = (left + width - right) / 2
    out.append(f'<text class="tick" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_name)}</text>')
    for i, s in enumerate(shown):
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(s.x, s.y, strict=True))
        dashes = ' stroke-dasharray="6 4"' if i else ""
        out.append(f'<polyline class="curve" points="{path}" style="stroke:{s.colour}"{dashes}/>')
        for x, y in zip(s.x, s.y, strict=True):
            note = f"{x_name} {x:,.0f}: {s.name} {number(y, 4)}"
            out.append(
                f'<g class="point"><title>{escape(note)}</title>'
                f'<circle class="reach" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="7"/>'
                f'<circle class="dot" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3" style="fill:{s.colour}"/></g>'
            )
    label = f"{title}: " + ", ".join(f"{s.name} ends at {number(s.y[-1], 4)}" for s in shown)
    head = f'<svg class="curves" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
    return f"{head}{''.join(out)}</svg>"


def number(value: float, digits: int = 3) -> str:
    """A number as a person writes it: "0.02", "1 700", "2e-5"."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if abs(value) >= 1000 and value == round(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _binned(x: Sequence[float], y: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    if len(x) <= most:
        return list(x), list(y)
    edges = [round(i * len(x) / most) for i in range(most + 1)]
    bins = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    return [sum(x[b]) / len(x[b]) for b in bins], [sum(y[b]) / len(y[b]) for b in bins]


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that span low to high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 4)
    return [10.0**power for power in range(first, last + every, every)]


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
