"""From numbers to places, and the numbers that axes show."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Linear:
    """Maps [low, high] to [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        if self.high <= self.low:
            return self.start
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def step(span: float, most: int) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that cuts a span into `most` parts or fewer."""
    if span <= 0:
        return 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 5, 10):
        if factor * power >= raw * (1 - 1e-9):
            return factor * power
    return 10 * power


def ticks(high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers from 0 to at most `high`, `most` + 1 of them or fewer; with `whole` integers only."""
    each = max(step(high, most), 1.0) if whole else step(high, most)
    return [index * each for index in range(int(high / each + 1e-9) + 1)]


def si(value: float) -> str:
    """Return a number as an axis shows it: 1500 is 1.5k."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def seconds(value: float, unit: float) -> str:
    """Return a time in a unit that `time_unit` gave."""
    return f"{value / unit:.6g}"


def time_unit(span: float) -> tuple[float, str]:
    """Return the unit in which a span of seconds is best told, and its name."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if span >= 2 * unit:
            return unit, name
    return 1e-6, "µs"


def size(count: float) -> str:
    """Return bytes as an axis shows them."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count:.4g} B"
