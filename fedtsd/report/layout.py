"""Where things go on a page: labels that keep apart, runs of equal values, texts that fit."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from matplotlib.axes import Axes

GLYPH_WIDTH = 0.66  # mean width of a DejaVu Sans glyph over its font size, rounded up
POINTS_PER_INCH = 72.0
MOST_LETTERS = 18  # of the name of a client or class beside an axis


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions as little as possible (least squares) until neighbours are `gap` apart.

    Keeps the order of `wanted` (the first of equals ends up highest), stays in `low..high` where
    that much room is there, and returns one position per wanted one, all in one unit.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], -i))
    slack = _isotonic([wanted[i] - rank * gap for rank, i in enumerate(order)])
    top = max(low, high - (len(wanted) - 1) * gap)
    placed = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        placed[i] = min(max(slack[rank], low), top) + rank * gap
    return placed


def _isotonic(values: Sequence[float]) -> list[float]:
    """The nearest non-decreasing sequence, by pooling adjacent violators."""
    pools: list[tuple[float, int]] = []  # (mean, size)
    for value in values:
        pool = (float(value), 1)
        while pools and pools[-1][0] > pool[0]:
            mean, size = pools.pop()
            both = size + pool[1]
            pool = ((mean * size + pool[0] * pool[1]) / both, both)
        pools.append(pool)
    return [mean for mean, size in pools for _ in range(size)]


def blocks(values: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Runs of equal neighbours as (value, start, stop), `stop` excluded."""
    start = 0
    for value, run in groupby(values):
        stop = start + sum(1 for _ in run)
        yield value, start, stop
        start = stop


def axes_points(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes in points, after the layout has settled."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    box = ax.get_position()
    return box.width * width * POINTS_PER_INCH, box.height * height * POINTS_PER_INCH


def text_width(text: str, size: float) -> float:
    """A safe estimate of the width of one line of text in points, `size` in points."""
    return len(text) * GLYPH_WIDTH * size


def shortened(name: str, most: int = MOST_LETTERS) -> str:
    """A name of at most `most` letters; what is longer ends in dots."""
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"
