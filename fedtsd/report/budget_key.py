"""The list beside the panels of figure `budget`: methods with their marks and what they need."""

from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from fedtsd.report.across import LABEL_SIZE, LINE_STEP, SAMPLE
from fedtsd.report.layout import GLYPH_WIDTH, POINTS_PER_INCH, text_width
from fedtsd.report.results import Results
from fedtsd.report.style import MethodMark, darker

NAME = 100.0  # points: room for a method's name; longer ones take more lines
COLUMN_WIDTH = 28.0  # points: room for a number, right-aligned
# How the target and its first reaching look, in the panels too.
TARGET: dict[str, Any] = {"color": "0.55", "lw": 0.6, "zorder": 1}
RING: dict[str, Any] = {"ms": 6.5, "mfc": "none", "mew": 0.8}
HEAD = 2  # lines: what the numbers are, and their units


def key_height(costs: pd.DataFrame, labels: Mapping[str, str]) -> float:
    """Inches that the list of some methods takes."""
    lines = sum(len(_lines(labels[method])) for method in costs["method"])
    return (HEAD + 0.5 + lines) * LINE_STEP / POINTS_PER_INCH


def key_width(costs: pd.DataFrame, labels: Mapping[str, str], heads: Iterable[str]) -> float:
    """Points that the list takes under any of these heads."""
    head = max(text_width(head, LABEL_SIZE) for head in heads)
    return SAMPLE + 4 + max(_room(costs, labels) + 2 * COLUMN_WIDTH, head)


def write_key(
    ax: Axes,
    size: tuple[float, float],
    costs: pd.DataFrame,
    head: str,
    results: Results,
    marks: Mapping[str, MethodMark],
) -> None:
    """Write a line per method, the cheapest first: its mark, name, megabytes and seconds.

    `size` is that of the axes in points.
    """
    width, height = size
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    room = _room(costs, results.labels)
    right = [SAMPLE + 4 + room + COLUMN_WIDTH * i for i in (1, 2)]
    ax.plot([0, SAMPLE], [0.5 * LINE_STEP] * 2, gid="sample", **TARGET)
    ax.plot(SAMPLE / 2, 0.5 * LINE_STEP, "o", mec="black", gid="sample", **RING)
    _write(ax, SAMPLE + 4, 0.5, head)
    for x, unit in zip(right, ("MB", "s"), strict=True):
        _write(ax, x, 1.5, unit, ha="right")
    line = HEAD + 0.75
    for _, row in costs.sort_values(["megabytes", "simulated_seconds"], kind="stable").iterrows():
        method = str(row["method"])
        _sample(ax, line, marks[method])
        numbers = [row["megabytes"], row["simulated_seconds"]]
        words = [_short(float(number)) for number in numbers]
        for x, word in zip(right, words if words[0] != "never" else ["", "never"], strict=True):
            _write(ax, x, line, word, ha="right")
        for word in _lines(results.labels[method]):
            _write(ax, SAMPLE + 4, line, word, color=darker(marks[method].colour))
            line += 1


def _room(costs: pd.DataFrame, labels: Mapping[str, str]) -> float:
    """Points that the names take."""
    names = [line for method in costs["method"] for line in _lines(labels[method])]
    return min(NAME, max(text_width(name, LABEL_SIZE) for name in names))


def _write(ax: Axes, x: float, line: float, word: str, **more: Any) -> None:
    ax.text(x, line * LINE_STEP, word, fontsize=LABEL_SIZE, va="center_baseline", **more)


def _sample(ax: Axes, line: float, mark: MethodMark) -> None:
    xs, y = [0, SAMPLE / 2, SAMPLE], line * LINE_STEP
    ax.plot(xs, [y] * 3, markevery=[1], clip_on=False, gid="sample", **mark.keywords)


def _lines(label: str) -> list[str]:
    most = int(NAME / (GLYPH_WIDTH * LABEL_SIZE))
    return wrap(label, most, break_on_hyphens=False) or [""]


def _short(value: float) -> str:
    """Three digits that count; thousands in full; `never` for NaN."""
    if value != value:
        return "never"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
