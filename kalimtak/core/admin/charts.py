"""Line charts as plain SVG coordinates: they need no script, print well and follow the page's colours."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 28

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where (SVG units) and what it says."""

    at: str
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: its name, the `points` of its polyline, its last value, and its number for the colour."""

    name: str
    points: str
    dots: tuple[tuple[str, str, str], ...]
    last: str
    number: int


@dataclass(frozen=True)
class Mark:
    """One point of a curve that is pointed out: where, its value, and the number of its curve."""

    x: str
    y: str
    text: str
    number: int


@dataclass(frozen=True)
class Chart:
    """Everything a template draws; coordinates are strings, so that no locale puts a comma into them."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    mark: Mark | None = None


def line_chart(curves: Mapping[str, Points], mark: tuple[str, float] | None = None) -> Chart | None:
    """Curves over one x axis and one y axis that begins at 0; None without a single point.

    `mark` names a curve and the x of its point that is pointed out.
    """
    drawn = {name: sorted(points) for name, points in curves.items() if points}
    if not drawn:
        return None
    xs = [x for points in drawn.values() for x, _ in points]
    y_ticks = round_ticks(0.0, max(max(y for points in drawn.values() for _, y in points), 1e-9))
    top, low, high = y_ticks[-1], min(xs), max(xs)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> tuple[str, str]:
        across = LEFT + (x - low) / span * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - max(y, 0.0) / top * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f}", f"{up:.1f}"

    lines = []
    for number, (name, points) in enumerate(drawn.items()):
        places = [place(x, y) for x, y in points]
        dots = tuple((*at, f"{y:.4g}") for at, (_, y) in zip(places, points, strict=True)) if len(points) <= 60 else ()
        lines.append(Line(name, " ".join(",".join(at) for at in places), dots, short(points[-1][1]), number))
    return Chart(
        tuple(lines),
        mark=_mark(drawn, mark, place),
        x_ticks=tuple(Tick(place(x, 0)[0], f"{x:.3g}") for x in round_ticks(low, high) if low <= x <= high),
        y_ticks=tuple(Tick(place(low, y)[1], f"{y:.3g}") for y in y_ticks),
    )


def _mark(
    drawn: Mapping[str, Points], mark: tuple[str, float] | None, place: Callable[[float, float], tuple[str, str]]
) -> Mark | None:
    for number, (name, points) in enumerate(drawn.items()):
        for x, y in points:
            if mark == (name, x):
                return Mark(*place(x, y), short(y), number)
    return None


def short(value: float) -> str:
    """A figure beside a curve: three decimals, or as many as tell a small number from 0."""
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"


def round_ticks(low: float, high: float) -> list[float]:
    """At most seven round numbers, equally far apart, the first at or under `low` and the last at or over `high`."""
    rough = ((high - low) or abs(high) or 1.0) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Bar:
    """One bar: its place and size in SVG units, what stands under and over it, and where it leads ("": nowhere)."""

    x: str
    y: str
    width: str
    height: str
    middle: str
    name: str
    value: str
    url: str


@dataclass(frozen=True)
class BarChart:
    """Everything a template draws of a histogram."""

    bars: tuple[Bar, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def bar_chart(values: Sequence[tuple[str, int, str]]) -> BarChart | None:
    """Upright bars from 0 for (name, count, address) in their order; None where all counts are 0."""
    most = max((count for _, count, _ in values), default=0)
    if not most:
        return None
    y_ticks = [tick for tick in round_ticks(0.0, float(most)) if tick == int(tick)]
    top, step = max(y_ticks[-1], most), (WIDTH - LEFT - RIGHT) / len(values)
    bars = []
    for number, (name, count, url) in enumerate(values):
        high = count / top * (HEIGHT - TOP - BOTTOM)
        x, y = LEFT + number * step, HEIGHT - BOTTOM - high
        places = (f"{x + step * 0.1:.1f}", f"{y:.1f}", f"{step * 0.8:.1f}", f"{high:.1f}", f"{x + step / 2:.1f}")
        bars.append(Bar(*places, name, f"{count:,}", url if count else ""))
    return BarChart(
        tuple(bars),
        tuple(Tick(f"{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}", f"{y:,.0f}") for y in y_ticks),
    )
