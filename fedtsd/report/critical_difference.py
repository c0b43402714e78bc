"""Figure `critical_difference`: mean ranks of all methods, and which of them do not differ.

The diagram of Demsar (2006), JMLR 7:1-30. Everything is placed in points from the upper left.
"""

from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtsd.report.across import LABEL_SIZE, LINE_STEP, NotApplicableError, data_words, marks_of
from fedtsd.report.layout import POINTS_PER_INCH, text_width
from fedtsd.report.pairs import p_text
from fedtsd.report.ranks import (
    ALPHA,
    MIN_BLOCKS,
    MIN_METHODS,
    FriedmanResult,
    cells,
    complete,
    friedman,
)
from fedtsd.report.results import Results
from fedtsd.report.style import COLUMN, fold, paper_style, settle, titled_figure

PAGE_WIDTH = (COLUMN - 2 * 0.03) * POINTS_PER_INCH  # less the padding of the style
RANK_SIZE = 5.0  # points: mean ranks and the ticks of the axis
NAME_LETTERS = 13  # longer names take more lines
ELBOW = 17.0  # between a name and the axis: room for its mean rank
BAR, AXIS, CLIQUES, CLIQUE_STEP = 11.0, 30.0, 38.0, 5.0  # heights


def critical_difference(results: Results) -> Figure:
    """Mean ranks over the cells (setting, seed) of all methods; bars join what is not told apart.

    Raises NotApplicableError below 3 methods or 6 cells in which each has a run.
    """
    test = friedman(results)
    if test is None:
        blocks, methods = complete(cells(results)).shape
        raise NotApplicableError(
            f"critical_difference: needs {MIN_METHODS} methods and {MIN_BLOCKS} cells (setting, "
            f"seed) in which each has a run, got {methods} and {blocks}"
        )
    names = [
        fill(results.labels[m], NAME_LETTERS, break_long_words=False) for m in test.ranks.index
    ]
    levels = clique_levels(test)
    top = CLIQUES + CLIQUE_STEP * max(levels, default=-1) + 13
    sides = _sides(names, top)
    height = max(y + _extent(name) / 2 for side in sides for _, name, y in side) + 12
    with paper_style():
        figure = titled_figure(_title(results, test), COLUMN, height / POINTS_PER_INCH + 0.25)
        ax = figure.subplots()
        ax.set(xlim=(0, PAGE_WIDTH), ylim=(height, 0))
        ax.set_axis_off()
        scale = _Scale(names, len(test.ranks))
        _axis(ax, scale, test)
        _cliques(ax, scale, test, levels)
        _methods(ax, scale, results, test, sides)
        _note(ax, test)
        return settle(figure)


class _Scale:
    """Where ranks 1..k stand across the page: between the names on both sides."""

    def __init__(self, names: Sequence[str], k: int) -> None:
        half = ceil(k / 2)
        self.k = k
        self.name_left = max(map(_width, names[:half]))
        self.name_right = PAGE_WIDTH - max(map(_width, names[half:]))
        self.left = self.name_left + 3 + ELBOW
        self.right = self.name_right - 3 - ELBOW

    def at(self, rank: float) -> float:
        return self.left + (rank - 1) / (self.k - 1) * (self.right - self.left)


def clique_levels(test: FriedmanResult) -> list[int]:
    """The line on which each clique's bar is drawn; bars on one line do not touch."""
    ends: list[float] = []
    levels = []
    for clique in test.cliques:
        first, last = test.ranks[clique[0]], test.ranks[clique[-1]]
        free = [level for level, end in enumerate(ends) if end < first - 0.05 * len(test.ranks)]
        level = free[0] if free else len(ends)
        ends[level : level + 1] = [last]
        levels.append(level)
    return levels


def _sides(names: Sequence[str], top: float) -> list[list[tuple[int, str, float]]]:
    """Place the better half on the left and the others on the right: (index, name, height).

    The outermost method of a side stands highest, so that no line crosses another.
    """
    half = ceil(len(names) / 2)
    sides = []
    for indices in (range(half), range(len(names) - 1, half - 1, -1)):
        side, y = [], top
        for i in indices:
            y += _extent(names[i]) / 2
            side.append((i, names[i], y))
            y += _extent(names[i]) / 2
        sides.append(side)
    return sides


def _extent(name: str) -> float:
    """How much height a name takes."""
    return LINE_STEP * (1 + name.count("\n")) + 1.5


def _width(name: str) -> float:
    return max(text_width(line, LABEL_SIZE) for line in name.split("\n"))


def _axis(ax: Axes, scale: _Scale, test: FriedmanResult) -> None:
    """The axis of ranks, and above it a bar as long as the critical difference."""
    k = scale.k
    ax.plot([scale.left, scale.right], [AXIS, AXIS], color="black", lw=0.6)
    step = max(1, ceil(9 * (k - 1) / (scale.right - scale.left)))
    for rank in range(1, k + 1):
        x = scale.at(rank)
        ax.plot([x, x], [AXIS, AXIS - 2.5], color="black", lw=0.6)
        if (rank - 1) % step == 0:
            ax.text(x, AXIS - 4, str(rank), fontsize=RANK_SIZE, ha="center", va="bottom")
    start, stop = scale.left, scale.at(1 + test.critical_difference)
    ax.plot([start, stop], [BAR, BAR], color="black", lw=0.8, marker="|", ms=4, gid="difference")
    words = f"CD = {test.critical_difference:.2f}"
    ax.text((start + stop) / 2, BAR - 3, words, fontsize=LABEL_SIZE, ha="center", va="bottom")


def _cliques(ax: Axes, scale: _Scale, test: FriedmanResult, levels: Sequence[int]) -> None:
    for clique, level in zip(test.cliques, levels, strict=True):
        xs = [scale.at(test.ranks[clique[0]]) - 2, scale.at(test.ranks[clique[-1]]) + 2]
        y = CLIQUES + CLIQUE_STEP * level
        ax.plot(xs, [y, y], color="0.25", lw=2.2, solid_capstyle="butt", zorder=3, gid="clique")


def _methods(
    ax: Axes,
    scale: _Scale,
    results: Results,
    test: FriedmanResult,
    sides: Sequence[Sequence[tuple[int, str, float]]],
) -> None:
    """Lead a line from each method's rank on the axis to its name; its mark stands on the axis."""
    marks = marks_of(results)
    for on_left, side in zip((True, False), sides, strict=True):
        edge = scale.name_left + 3 if on_left else scale.name_right - 3
        sign, align = (1, "left") if on_left else (-1, "right")
        for i, name, y in side:
            method, rank = str(test.ranks.index[i]), float(test.ranks.iloc[i])
            x = scale.at(rank)
            ax.plot([x, x, edge], [AXIS, y, y], color="0.45", lw=0.5, gid="leader")
            mark: dict[str, Any] = {"color": marks[method].colour, "marker": marks[method].marker}
            ax.plot([x], [AXIS], **mark, ms=4, mec="white", mew=0.3, zorder=4, gid="rank")
            away = "right" if on_left else "left"
            ax.text(
                edge - 3 * sign, y, name, fontsize=LABEL_SIZE, ha=away, va="center", linespacing=1
            )
            ax.text(edge, y - 0.5, f"{rank:.2f}", fontsize=RANK_SIZE, ha=align, va="bottom")


def _note(ax: Axes, test: FriedmanResult) -> None:
    found = f"Friedman p = {p_text(test.p)}".replace("= <", "< ")
    bars = f"bars: not told apart (Nemenyi, {ALPHA})" if test.significant else "no difference found"
    ax.text(0.5, 0.0, f"{found}; {bars}", transform=ax.transAxes, ha="center", fontsize=LABEL_SIZE)


def _title(results: Results, test: FriedmanResult) -> str:
    words = [*data_words(results), f"mean rank over {test.blocks} cells (setting, seed)"]
    return fold(", ".join(words), COLUMN)
