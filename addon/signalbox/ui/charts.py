"""Geometry of the charts, which templates/charts.html draws as inline SVG.

A drawing has two coordinate systems. Bars and lines are in a plot that is stretched to the width of the page:
x from 0 to WIDTH, y from 0 (top) to HEIGHT. Labels are placed in percent of the width, and are not stretched.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH = 1000
HEIGHT = 100
_GAP = 0.22
"""Part of the place of a bar that is left free beside it."""
_STEPS = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)

type Unit = Callable[[float | None], str]
"""Formats a value of the chart."""


class Series(NamedTuple):
    name: str
    style: str
    """CSS class, which gives the colour."""
    values: Sequence[float | None]
    """One for each place on the x axis; None is a gap."""


class AxisLabel(NamedTuple):
    at: float
    """Percent of the width."""
    text: str


class Path(NamedTuple):
    style: str
    d: str
    """As SVG writes a path."""


class Hover(NamedTuple):
    """The tooltip of a place on the x axis."""

    x: float
    width: float
    text: str


class Dot(NamedTuple):
    """The end of a line: percent of the width and of the height."""

    style: str
    x: float
    y: float


class Key(NamedTuple):
    """An entry of the legend."""

    name: str
    style: str
    value: str


class Table(NamedTuple):
    """The same figures as text: the first cell of each row is its heading."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Chart(NamedTuple):
    id: str
    title: str
    description: str
    """What the chart shows, for screen readers."""
    areas: Sequence[Path]
    lines: Sequence[Path]
    dots: Sequence[Dot]
    hovers: Sequence[Hover]
    ticks: Sequence[AxisLabel]
    top: str
    """The value at the upper edge."""
    middle: str
    """The value in the middle; empty where it is no round one, because values are negative."""
    bottom: str
    """The value at the lower edge, where it is not zero."""
    zero: float
    """The part of the height above the line at zero."""
    legend: Sequence[Key]
    table: Table

    @property
    def is_empty(self) -> bool:
        return not (self.areas or self.lines)


class Axis(NamedTuple):
    """Names of the places on the x axis, and which of them are written below it."""

    heading: str
    labels: Sequence[str]
    ticks: Sequence[tuple[int, str]]


def bars(id: str, title: str, description: str, axis: Axis, series: Sequence[Series], unit: Unit) -> Chart:
    """Bars, the values of one place upon each other; negative ones below the line at zero."""
    places = len(axis.labels)
    by_place = [[one.values[place] or 0 for one in series] for place in range(places)]
    top = nice(max((sum(max(value, 0) for value in values) for values in by_place), default=0))
    lowest = min((sum(min(value, 0) for value in values) for values in by_place), default=0)
    bottom = -nice(-lowest) if lowest < 0 else 0.0
    scale = HEIGHT / (top - bottom)
    step = WIDTH / max(places, 1)
    width = step * (1 - _GAP)
    base = [[0.0, 0.0] for _ in by_place]
    """Of each place, where its bars end above the line and below it."""
    areas = []
    for one in series:
        drawn = []
        for place, value in enumerate(one.values):
            if not value:
                continue
            begin = base[place][value < 0]
            base[place][value < 0] = end = begin + value
            y, height = (top - max(begin, end)) * scale, abs(value) * scale
            x = place * step + (step - width) / 2
            drawn.append(f"M{x:.1f} {y:.2f}h{width:.1f}v{height:.2f}h-{width:.1f}z")
        if drawn:
            areas.append(Path(one.style, "".join(drawn)))
    legend = [Key(one.name, one.style, unit(sum(v or 0 for v in one.values))) for one in series]
    sums = [sum(values) for values in by_place]
    return _chart(id, title, description, axis, series, unit, (top, bottom), areas, [], [], legend, sums)


def lines(
    id: str,
    title: str,
    description: str,
    axis: Axis,
    series: Sequence[Series],
    unit: Unit,
    *,
    top: float | None = None,
) -> Chart:
    """Lines; the legend has the last value of each. `top` is the value at the upper edge, where that is
    given."""
    highest = top or nice(max((v for one in series for v in one.values if v is not None), default=0))
    step = WIDTH / max(len(axis.labels), 1)
    paths, dots, legend = [], [], []
    for one in series:
        d, pen_is_up = [], True
        last: tuple[float, float] | None = None
        for place, value in enumerate(one.values):
            if value is None:
                pen_is_up = True
                continue
            last = ((place + 0.5) * step, HEIGHT - min(value / highest, 1) * HEIGHT)
            d.append(f"{'M' if pen_is_up else 'L'}{last[0]:.1f} {last[1]:.2f}")
            pen_is_up = False
        if last is not None:
            paths.append(Path(one.style, "".join(d)))
            dots.append(Dot(one.style, last[0] / WIDTH * 100, last[1] / HEIGHT * 100))
        known = [value for value in one.values if value is not None]
        legend.append(Key(one.name, one.style, unit(known[-1] if known else None)))
    return _chart(id, title, description, axis, series, unit, (highest, 0.0), [], paths, dots, legend, None)


def _chart(
    id: str,
    title: str,
    description: str,
    axis: Axis,
    series: Sequence[Series],
    unit: Unit,
    edges: tuple[float, float],
    areas: Sequence[Path],
    drawn: Sequence[Path],
    dots: Sequence[Dot],
    legend: Sequence[Key],
    sums: Sequence[float] | None,
) -> Chart:
    top, bottom = edges
    places = len(axis.labels)
    step = WIDTH / max(places, 1)
    hovers, rows = [], []
    has_sum = sums is not None and len(series) > 1
    for place, label in enumerate(axis.labels):
        values = [(one.name, one.values[place]) for one in series]
        parts = [f"{name} {unit(value)}" for name, value in values if value]
        if parts:
            total = f" · {unit(sums[place])}" if has_sum and sums is not None and len(parts) > 1 else ""
            hovers.append(
                Hover(round(place * step, 1), round(step, 1), f"{label}{total}\n" + "\n".join(parts))
            )
        cells = [label, *(unit(value) for _, value in values)]
        rows.append([*cells, unit(sums[place])] if has_sum and sums is not None else cells)
    head = [axis.heading, *(one.name for one in series), *(["all"] if has_sum else [])]
    ticks = [AxisLabel(round((place + 0.5) / max(places, 1) * 100, 2), text) for place, text in axis.ticks]
    return Chart(
        id,
        title,
        description,
        areas,
        drawn,
        dots,
        hovers,
        ticks,
        unit(top),
        unit((top + bottom) / 2) if not bottom else "",
        unit(bottom) if bottom else "",
        round(top / (top - bottom), 3),
        legend,
        Table(head, rows),
    )


class BarPart(NamedTuple):
    """A part of a bar that lies on its side, in percent of the width."""

    style: str
    x: float
    width: float


def bar_parts(parts: Sequence[tuple[str, float]], whole: float) -> list[BarPart]:
    """Parts (style, size) of a whole, side by side."""
    spans, x = [], 0.0
    for style, size in parts:
        if size > 0 and whole > 0:
            width = min(size / whole * 100, 100 - x)
            spans.append(BarPart(style, round(x, 2), round(width, 2)))
            x += width
    return spans


def nice(value: float) -> float:
    """The upper edge of a chart: the next round number that is no smaller."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * 0.9999)
