"""Scales of charts: limits and ticks at numbers that people count in."""

from dataclasses import dataclass
from math import ceil, floor, log10

from fedtsd.report.printed import number
from fedtsd.score import Score

LEAST_SPAN = 10  # hundredths: a chart does not blow up smaller differences
TINY = 1e-290  # below this, a step of the scale could not be told from 0


@dataclass(frozen=True)
class ScoreScale:
    """Ascending ticks as stored, the first and the last at the limits; their decimals in print."""

    score: Score
    ticks: tuple[float, ...]
    decimals: int

    @property
    def low(self) -> float:
        """The lower limit."""
        return self.ticks[0]

    @property
    def high(self) -> float:
        """The upper limit."""
        return self.ticks[-1]

    def place(self, value: float) -> float:
        """Where a value is: 0 at the lower limit, 1 at the upper one."""
        return (value - self.low) / (self.high - self.low)

    def label(self, tick: float) -> str:
        """A tick as it is printed."""
        return f"{number(self.score.scale * tick, f'.{self.decimals}f')}{self.score.unit}"


def score_scale(score: Score, low: float, high: float, most: int) -> ScoreScale:
    """Return a scale for stored scores from `low` to `high` with at most `most` steps (from 2)."""
    span = max(high - low, LEAST_SPAN * score.hundredth(high))
    if span < TINY:
        span = 1.0
    low = max(0.0, min(low, high - span))
    high = max(high, low + span)
    size = next(step for step in _steps(span / most) if _count(step, low, high) <= most)
    first, last = _first(size, low), _last(size, high)
    ticks = tuple(min(step * size, score.limit) for step in range(first, last + 1))
    return ScoreScale(score, ticks, max(0, -floor(log10(size * score.scale) + 1e-9)))


def _steps(least: float) -> list[float]:
    """Steps of 1, 2 or 5 times a power of ten from `least` on."""
    power = floor(log10(least))
    steps = [digit * 10.0 ** (power + more) for more in range(3) for digit in (1, 2, 5)]
    return [step for step in steps if step >= least * (1 - 1e-9)]


def _first(step: float, low: float) -> int:
    return floor(low / step + 1e-9)


def _last(step: float, high: float) -> int:
    return ceil(high / step - 1e-9)


def _count(step: float, low: float, high: float) -> int:
    return max(_last(step, high) - _first(step, low), 1)
