"""The axis of severity as it is drawn: ticks, breaks, and the measured skew along the top."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isnan
from textwrap import fill

from matplotlib.axes import Axes

from fedtsd.report.layout import axes_points, text_width
from fedtsd.report.places import APART, MEASURES, Place

TICK_SIZE = 6.0  # points
LETTER = 4.0  # points: mean width of a letter of an axis label


def pieces(places: Sequence[Place]) -> Iterator[list[int]]:
    """Numbers of the places that one line may join: those on the scale; any other alone."""
    on_scale = [i for i, place in enumerate(places) if place.on_scale]
    if on_scale:
        yield on_scale
    yield from ([i] for i, place in enumerate(places) if not place.on_scale)


def frame(ax: Axes, places: Sequence[Place], bottom: bool, top: bool) -> None:
    """Set limits, ticks and breaks; settings along the bottom, measured skew along the top."""
    xs = [place.x for place in places]
    ax.set_xlim(min(xs) - 0.5, max(xs) + 0.5)
    _breaks(ax, places)
    ax.set_xticks(xs, [""] * len(xs))
    point = steps_per_point(ax)
    if bottom:
        _bottom(ax, places, point)
    if top:
        second = ax.secondary_xaxis("top")
        words = ["" if isnan(place.skew) else f"{place.skew:.2f}" for place in places]
        second.set_xticks(xs, _thinned(xs, words, point))
        second.set_xlabel(MEASURES[places[0].measure])
        second.tick_params(length=1.5)


def _bottom(ax: Axes, places: Sequence[Place], point: float) -> None:
    """Write the ticks; those that are on no scale stand upright where they have no room to lie."""
    xs, words = [place.x for place in places], [place.tick for place in places]
    scale = [i for i, place in enumerate(places) if place.on_scale]
    names = [i for i, x in enumerate(xs) if i not in scale and x >= 0]
    kept = _thinned([xs[i] for i in scale], [words[i] for i in scale], point)
    for i, word in zip(scale, kept, strict=True):
        words[i] = word
    ax.set_xticks(xs, words)
    room = APART / point
    if any(text_width(line, TICK_SIZE) > room for i in names for line in words[i].split("\n")):
        for i in names:
            ax.get_xticklabels()[i].set_rotation(90)
    ax.set_xlabel(fill(places[0].axis, int(axes_points(ax)[0] / LETTER)))


def steps_per_point(ax: Axes) -> float:
    """How many steps of the axis a point is."""
    low, high = ax.get_xlim()
    return (high - low) / axes_points(ax)[0]


def _thinned(xs: Sequence[float], words: Sequence[str], point: float) -> list[str]:
    """Blank the words that have no room beside the first, the last and those already written."""
    kept: list[int] = []
    for i in dict.fromkeys([0, len(xs) - 1, *range(len(xs))] if xs else []):
        need = [(text_width(words[i] + words[k], TICK_SIZE) / 2 + 2) * point for k in kept]
        if all(abs(xs[i] - xs[k]) >= gap for k, gap in zip(kept, need, strict=True)):
            kept.append(i)
    return [word if i in kept else "" for i, word in enumerate(words)]


def _breaks(ax: Axes, places: Sequence[Place]) -> None:
    """Cut the axis where the scale begins and ends, in the middle between two places."""
    for left, right in pairwise(places):
        if left.on_scale == right.on_scale:
            continue
        ax.plot(
            [(left.x + right.x) / 2],
            [0],
            transform=ax.get_xaxis_transform(),
            marker=[(-0.6, -1), (0.6, 1)],
            ms=6,
            mec="black",
            ls="none",
            clip_on=False,
            scalex=False,
            scaley=False,
            gid="break",
        )
