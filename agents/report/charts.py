"""Small charts as inline SVG, in plain Python: no network, no script, in the page's light or dark colours.

Colours are the page's CSS variables `--series-0` … and `--ink`, `--muted`, `--grid`. Every mark has a `<title>`, which
browsers show on hovering and screen readers read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Bar:
    """One bar of a rate. value: 0 to 1. low, high: whisker, or None. text: written behind it. series: colour index."""

    value: float
    text: str
    series: int
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
    series: int = 0


def rate_bars(groups: Sequence[Group], description: str) -> str:
    """Horizontal bars on an axis from 0 to 100 %, with whiskers, each with its text behind it.

    Horizontal positions are percentages and vertical ones pixels, so that the chart fills any width and its text keeps
    its size.
    """
    bar, label, pause = 22, 24, 14
    height = sum(label + len(group.bars) * bar + pause for group in groups)
    out: list[str] = []
    for tick in range(0, 101, 20):
        x, anchor = _rate_x(tick / 100), "middle" if tick else "start"
        out.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
        out.append(f'<text class="tick" x="{x}" y="{height + 16}" text-anchor="{anchor}">{tick} %</text>')
    y = 0
    for group in groups:
        out.append(f'<text class="label" x="2" y="{y + 16}">{escape(group.label)}</text>')
        top = y + label
        y = top
        for item in group.bars:
            out.append(_rate_bar(item, y, bar, group.mark))
            y += bar
        if group.mark is not None:
            x = _rate_x(group.mark)
            out.append(
                f'<g><title>{escape(group.mark_title)}</title><line class="mark" x1="{x}" x2="{x}" y1="{top - 3}" '
                f'y2="{y - 1}"/><line class="hit" x1="{x}" x2="{x}" y1="{top - 3}" y2="{y - 1}"/></g>'
            )
        y += pause
    return _full_width(out, height + 22, description)


def _rate_bar(item: Bar, y: int, bar: int, mark: float | None) -> str:
    middle, thick = y + bar / 2, bar - 6
    right = max(item.value, item.high or 0.0)
    if mark is not None and right - 0.01 < mark < right + 0.12:  # the text goes behind the dashed line, not onto it
        right = mark
    parts = [
        f"<g><title>{escape(item.title)}</title>",
        f'<rect x="0" y="{y + 3}" width="{_rate_x(max(item.value, 0.003))}" height="{thick}" rx="2" '
        f'style="fill:var(--series-{item.series})"/>',
    ]
    if item.low is not None and item.high is not None:
        low, high = _rate_x(item.low), _rate_x(item.high)
        parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>')
        parts += [f'<line class="whisker" x1="{x}" x2="{x}" y1="{middle - 4}" y2="{middle + 4}"/>' for x in (low, high)]
    parts.append(f'<text class="value" x="{_rate_x(right)}" dx="7" y="{middle + 4}">{escape(item.text)}</text></g>')
    return "".join(parts)


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[tuple[str, int]]]], colours: dict[str, str], description: str
) -> str:
    """One bar a row, made of counted parts, each row filling the width. colours: part → CSS colour."""
    bar, label, pause = 24, 24, 14
    out: list[str] = []
    y = 0
    for name, parts in rows:
        total = sum(count for _, count in parts)
        out.append(f'<text class="label" x="2" y="{y + 16}">{escape(name)}</text>')
        y += label
        left = 0.0
        for part, count in parts:
            if not count:
                continue
            share = count / total
            out.append(
                f"<g><title>{escape(f'{name}: {part}, {count} of {total}')}</title>"
                f'<rect class="part" x="{_percent(left)}" y="{y}" width="{_percent(share)}" height="{bar}" '
                f'style="fill:{colours[part]}"/>'
            )
            if share > 0.035:
                out.append(f'<text class="count" x="{_percent(left + share / 2)}" y="{y + bar / 2 + 4}">{count}</text>')
            out.append("</g>")
            left += share
        y += bar + pause
    return _full_width(out, y, description)


def line_chart(title: str, series: Sequence[Series], x_name: str = "step", points: int = 120) -> str:
    """Curves over one axis, about 360×200. More than `points` values are averaged in bins; hovering names values.

    The vertical axis is logarithmic where the values span more than a factor of 30.
    """
    width, height, left, right, top, bottom = 360, 200, 46, 8, 26, 22
    shown = [Series(s.name, *_binned(s.x, s.y, points), s.series) for s in series if len(s.x)]
    if not shown:
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

    out = [f'<text class="title" x="{left}" y="14">{escape(title)}</text>']
    for tick in ticks:
        y = place_y(tick)
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in _ticks(0, x_high, 4):
        if tick <= x_high:
            anchor = "end" if place_x(tick) > width - 24 else "middle"
            place = f'x="{place_x(tick):.1f}" y="{height - 6}" text-anchor="{anchor}"'
            out.append(f'<text class="tick" {place}>{_number(tick)}</text>')
    for s in shown:
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(s.x, s.y, strict=True))
        out.append(f'<polyline class="curve" points="{path}" style="stroke:var(--series-{s.series})"/>')
        for x, y in zip(s.x, s.y, strict=True):
            note = f"{x_name} {x:,.0f}: {s.name} {_number(y, 4)}"
            out.append(
                f'<g class="point"><title>{escape(note)}</title>'
                f'<circle class="reach" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="7"/>'
                f'<circle class="dot" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3" '
                f'style="fill:var(--series-{s.series})"/></g>'
            )
    label = f"{title}: " + ", ".join(f"{s.name} ends at {_number(s.y[-1], 4)}" for s in shown)
    head = f'<svg class="curves" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
    return f"{head}{''.join(out)}</svg>"


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


def _number(value: float, digits: int = 3) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if abs(value) >= 1000 and value == round(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _full_width(parts: Sequence[str], height: float, description: str) -> str:
    head = f'<svg class="bars" role="img" aria-label="{escape(description)}" width="100%" height="{height}">'
    return f"{head}{''.join(parts)}</svg>"


def _rate_x(share: float) -> str:
    return _percent(0.88 * min(1.0, share))  # the rest of the width is for the text behind a full bar


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
