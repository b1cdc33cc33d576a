"""Curves as inline SVG: pure functions from numbers to text, coloured by the page's own classes.

The viewBox is as wide as a narrow phone, so that letters keep their size there; on a wide page two
stand side by side.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
MINUS = "\N{MINUS SIGN}"
MOST = 240  # points of a line; more would not be seen


@dataclass(frozen=True)
class Series:
    """A line through (x, y), with (x, low, high) around it if it has a spread; `hue` in degrees."""

    name: str
    points: Sequence[tuple[float, float]]
    hue: int
    spread: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Dot:
    """A point of two measures with their intervals; `kind` is "base", "step" or "exported"."""

    label: str
    x: tuple[float, float, float]  # value, low, high
    y: tuple[float, float, float]
    kind: str = "step"


@dataclass(frozen=True)
class Scale:
    """Values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def thinned(points: Sequence[tuple[float, float]], most: int = MOST) -> list[tuple[float, float]]:
    """At most so many points, each the mean of a stretch; what is not finite is left out."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(finite) // most) or 1
    parts = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers within [low, high], about so many: 1, 2, 2.5 or 5 times 10^n apart."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def number(value: float) -> str:
    """A number as an axis shows it: short, thousands apart."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace("-", MINUS)
    return f"{value:.4g}".replace("-", MINUS)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than what the values span; never empty."""
    low, high = min(values), max(values)
    # Values that hardly differ are one: there are no ticks between neighbouring numbers.
    spread = high - low if high - low > max(abs(high), abs(low)) * 1e-9 else 0.0
    room = spread * 0.08 or abs(high) * 0.05
    room = room if room > 1e-99 else 1.0
    return low - room, high + room


def _along(values: Sequence[float]) -> tuple[float, float]:
    """What the values span; of a single one, from zero to it."""
    low, high = min(0.0, *values) if len(set(values)) == 1 else min(values), max(values)
    return (low, high) if low < high else _range(values)


def line_chart(series: Sequence[Series], title: str, x: str, y: str) -> str:
    """Lines over one axis, with a legend below if there are several; "" where there is no point."""
    drawn = [(s, thinned(s.points)) for s in series]
    drawn = [(s, points) for s, points in drawn if points]
    if not drawn:
        return ""
    spreads = [row for s, _ in drawn for row in s.spread if all(map(math.isfinite, row))]
    xs = [px for _, points in drawn for px, _ in points]
    ys = [py for _, points in drawn for _, py in points] + [v for r in spreads for v in r[1:]]
    across, up = _scales(_along(xs), _range(ys))
    marks = []
    for s, points in drawn:
        area = [r for r in s.spread if all(map(math.isfinite, r))]
        if len(area) > 1:
            there = [f"{across(px)},{up(high)}" for px, _, high in area]
            back = [f"{across(px)},{up(low)}" for px, low, _ in reversed(area)]
            fill = f'style="--hue:{s.hue}" class="area"'
            marks.append(f'<polygon {fill} points="{" ".join([*there, *back])}"/>')
        path = " ".join(f"{across(px)},{up(py)}" for px, py in points)
        marks.append(f'<polyline style="--hue:{s.hue}" class="line" points="{path}"/>')
        if len(points) <= 40:
            marks += [_point(across(px), up(py), s, px, py) for px, py in points]
    legend = "".join(
        f'<li><span class="key" style="--hue:{s.hue}"></span>{html.escape(s.name)}</li>'
        for s, _ in drawn
    )
    below = f'<ul class="legend">{legend}</ul>' if len(drawn) > 1 else ""
    return _figure(title, _axes(across, up, x, y), marks, below)


def _point(x: float, y: float, series: Series, step: float, value: float) -> str:
    told = html.escape(f"{series.name}, step {number(step)}: {value:.5g}")
    radius = f'<circle style="--hue:{series.hue}" class="point" cx="{x}" cy="{y}" r="2.4">'
    return f"{radius}<title>{told}</title></circle>"


def dot_chart(dots: Sequence[Dot], title: str, x: str, y: str) -> str:
    """Points of two measures, joined in their order, each with a cross of its intervals."""
    known = [d for d in dots if all(map(math.isfinite, (*d.x, *d.y)))]
    if not known:
        return ""
    xs, ys = [v for d in known for v in d.x], [v for d in known for v in d.y]
    across, up = _scales(_range(xs), _range(ys))
    path = " ".join(f"{across(d.x[0])},{up(d.y[0])}" for d in known)
    marks = [f'<polyline class="way" points="{path}"/>']
    for d in known:
        cx, cy = across(d.x[0]), up(d.y[0])
        marks.append(
            f'<path class="cross" d="M{across(d.x[1])} {cy}H{across(d.x[2])}'
            f'M{cx} {up(d.y[1])}V{up(d.y[2])}"/>'
        )
    named = {0, len(known) - 1} | {n for n, d in enumerate(known) if d.kind == "exported"}
    for n, d in enumerate(known):
        cx, cy = across(d.x[0]), up(d.y[0])
        told = html.escape(f"{d.label}: {x} {d.x[0]:.4f}, {y} {d.y[0]:.4f}")
        circle = f'<circle class="dot {d.kind}" cx="{cx}" cy="{cy}" r="5">'
        marks.append(f"{circle}<title>{told}</title></circle>")
        if n in named:
            # Away from the way that led there: a good run comes from the left and goes down.
            anchor, right, down = ("end", -9, 17) if cx > WIDTH * 0.7 else ("start", 9, -7)
            marks.append(_words(cx + right, cy + down, d.label, anchor, "name"))
    return _figure(title, _axes(across, up, x, y), marks, "")


def _words(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    where = f'class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f"<text {where}>{html.escape(text)}</text>"


def _scales(x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
    return Scale(*x, LEFT, WIDTH - RIGHT), Scale(*y, HEIGHT - BOTTOM, TOP)


def _axes(across: Scale, up: Scale, x: str, y: str) -> list[str]:
    marks = []
    foot, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in ticks(up.low, up.high):
        marks.append(f'<path class="grid" d="M{LEFT} {up(value)}H{end}"/>')
        marks.append(_words(LEFT - 6, up(value) + 4, number(value), "end"))
    for value in ticks(across.low, across.high):
        marks.append(_words(across(value), foot + 16, number(value)))
    marks.append(f'<path class="axis" d="M{LEFT} {foot}H{end}"/>')
    marks.append(_words((LEFT + end) / 2, HEIGHT - 6, x))
    turned = f'transform="translate(11 {(TOP + foot) / 2:g}) rotate(-90)" text-anchor="middle"'
    marks.append(f"<text {turned}>{html.escape(y)}</text>")
    return marks


def _figure(title: str, axes: list[str], marks: list[str], below: str) -> str:
    told = html.escape(title)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}"'
    inner = "".join([*axes, *marks])
    head = f"<figcaption>{told}</figcaption>"
    return f'<figure class="chart">{head}<svg {box}>{inner}</svg>{below}</figure>'
