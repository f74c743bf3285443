"""Draw a curve in a terminal: axes, ticks and labels in 80 columns of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ("draw",)

_BRAILLE = 0x2800
_BRAILLE_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LIMIT = 1e15  # beyond this neighbouring floats are whole numbers apart and ticks make no sense


@dataclass(frozen=True)
class _Style:
    """The characters a curve is drawn with; `dots` is how many points fit across and down one character."""

    dots: tuple[int, int]
    wall: str
    wall_tick: str
    floor: str
    floor_tick: str
    corner: str


_UNICODE = _Style((2, 4), "│", "┤", "─", "┬", "└")
_ASCII = _Style((1, 1), "|", "+", "-", "+", "+")


@dataclass(frozen=True)
class _Scale:
    """Maps values between `low` and `high` onto the dots 0..`size - 1`."""

    low: float
    high: float
    size: int

    def dot(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return min(self.size - 1, max(0, round(share * (self.size - 1))))

    def row(self, value: float, style: _Style) -> int:
        """Return the row of text, counted from the top, that `value` is in."""
        return (self.size - 1 - self.dot(value)) // style.dots[1]


def draw(
    points: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
    width: int = 80,
    height: int = 14,
    unicode: bool = True,
    x_until: float | None = None,
) -> str:
    """Return the curve through `points` as text without colour codes, at most `width` characters a line.

    `height` counts the rows between title and axis. With `unicode=False` only ASCII is used. The x axis goes
    on to `x_until` at least, to leave room for what is to come. Points that are not finite are left out;
    without any point left the text says so. The last value is written beside its end of the curve.
    """
    finite = [(x, y) for x, y in points if abs(x) < _LIMIT and abs(y) < _LIMIT]  # false for nan too
    if not finite:
        return f"{y_label} by {x_label}: no points to draw\n"
    style = _UNICODE if unicode else _ASCII
    y_ticks = _ticks(*_widened(y for _, y in finite), wanted=max(2, height // 3))
    labels = [_number(tick, y_ticks) for tick in y_ticks]
    ending = _short(finite[-1][1])
    margin = max(map(len, labels)) + 2
    columns = max(10, width - margin - max(len(ending), len(x_label)) - 1)
    whole = all(x == int(x) for x, _ in finite)
    xs = [*(x for x, _ in finite), *([] if x_until is None else [x_until])]
    x_scale = _Scale(*_widened(xs, room=1.0 if whole else None), columns * style.dots[0])
    y_scale = _Scale(y_ticks[0], y_ticks[-1], height * style.dots[1])
    names = {y_scale.row(tick, style): name for tick, name in zip(y_ticks, labels, strict=True)}
    endings = {y_scale.row(finite[-1][1], style): f" {ending}"}
    lines = [f"{' ' * margin}{y_label}"]
    for index, row in enumerate(_plotted(finite, x_scale, y_scale, style)):
        wall = style.wall_tick if index in names else style.wall
        lines.append(f"{names.get(index, ''):>{margin - 2}} {wall}{row}{endings.get(index, '')}".rstrip())
    lines += _x_axis(x_scale, columns, margin, x_label, style, least=1.0 if whole else 0.0)
    return "\n".join(lines) + "\n"


def _plotted(points: Sequence[tuple[float, float]], x_scale: _Scale, y_scale: _Scale, style: _Style) -> list[str]:
    """Return the rows of the plot, top first: the points joined by straight lines."""
    dots = [(x_scale.dot(x), y_scale.dot(y)) for x, y in points]
    marked = set(dots)
    for (x0, y0), (x1, y1) in pairwise(dots):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        marked.update((round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)) for i in range(steps))
    across, down = style.dots
    columns, height = x_scale.size // across, y_scale.size // down
    cells = [[0] * columns for _ in range(height)]
    for x, y in marked:
        bit = _BRAILLE_BITS[x % across][down - 1 - y % down] if across > 1 else 1
        cells[height - 1 - y // down][x // across] |= bit
    return ["".join(_cell(bits, across) for bits in row) for row in cells]


def _cell(bits: int, across: int) -> str:
    if not bits:
        return " "
    return chr(_BRAILLE + bits) if across > 1 else "*"


def _x_axis(scale: _Scale, columns: int, margin: int, label: str, style: _Style, *, least: float) -> list[str]:
    """Return the two lines below the plot: the axis with its ticks, their numbers followed by the label."""
    ticks = _ticks(scale.low, scale.high, wanted=max(2, columns // 12), least=least)
    ticks = [scale.low, *(tick for tick in ticks if scale.low < tick <= scale.high)]
    axis, numbers = [style.floor] * columns, [" "] * columns
    free_from = 0
    for tick in ticks:
        column = scale.dot(tick) // style.dots[0]
        text = _number(tick, ticks)
        begin = min(max(0, column - len(text) // 2), columns - len(text))
        if begin >= free_from:
            axis[column] = style.floor_tick
            numbers[begin : begin + len(text)] = text
            free_from = begin + len(text) + 1
    pad = " " * (margin - 1)
    return [f"{pad}{style.corner}{''.join(axis)}", f"{pad} {''.join(numbers)} {label}"]


def _widened(values: Iterable[float], room: float | None = None) -> tuple[float, float]:
    """Return lowest and highest value, moved `room` apart where they are equal, to scale by."""
    listed = list(values)
    low, high = min(listed), max(listed)
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-300):
        return low, high
    room = room or abs(low) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, wanted: int, least: float = 0.0) -> list[float]:
    """Return about `wanted` round numbers, evenly spaced by at least `least`.

    The first is at or below `low`, the last at or above `high`.
    """
    rough = max((high - low) / wanted, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10, 20) if power * nice >= rough * 0.999)
    if least and step % least:
        step *= 2  # 2.5 is no number of rounds
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _number(value: float, among: Sequence[float]) -> str:
    """Write `value` with just the decimals that tell it from its neighbours among the ticks."""
    evenly = among[1:] if len(among) > 2 else among  # the first tick of an x axis may be an odd one
    step = min((abs(b - a) for a, b in pairwise(evenly)), default=abs(value) or 1.0)
    largest = max(abs(tick) for tick in among)
    if largest >= 1e6 or (0 < step < 1e-4):
        return f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals and round(step * 10**decimals, 6) % 1:
        decimals += 1  # steps of 0.25 need two
    elif not decimals and step % 1:
        decimals = 1  # steps of 2.5 need one
    return f"{value + 0.0:.{decimals}f}"


def _short(value: float) -> str:
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
