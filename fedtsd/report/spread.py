"""Figure `clients`: how scores spread over the clients, method by method."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedtsd.report.across import (
    NotApplicableError,
    data_words,
    legend_below,
    marks_of,
    method_samples,
    num_seeds,
    pick,
    setting_words,
)
from fedtsd.report.layout import text_width
from fedtsd.report.results import RULES, Results
from fedtsd.report.style import (
    COLUMN,
    PAGE,
    MethodMark,
    darker,
    fold,
    paper_style,
    settle,
    titled_figure,
)
from fedtsd.report.tables import FloatArray
from fedtsd.score import Score

MOST_SETTINGS = 6
NAME_SIZE, NAME_ROOM = 6.0, 75.0  # points: longer names of rows give way to the method's mark
ROW, SHARES = 0.24, 1.15  # inches: a violin, and the panel of shares
WORST = 0.1  # the tenth of the clients that fares worst
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread evenly (Weyl)

Panels = tuple[Axes, Axes]


def clients(results: Results) -> Figure:
    """Score of each client by method: violins with dots, and the share of clients below.

    One pair of panels per setting, the clients of all seeds pooled; more than six settings are
    thinned evenly. Raises NotApplicableError without a finished run.
    """
    if not results.runs:
        raise NotApplicableError("clients: needs a finished run")
    shown = pick(results.settings, MOST_SETTINGS)
    marks = marks_of(results)
    rows = results.clients
    width = COLUMN if len(shown) == 1 else PAGE
    with paper_style():
        upper = ROW * len(results.methods) + 0.1
        words = [*data_words(results), *setting_words(results, shown), RULES[results.rule]]
        title = ", ".join(words)
        height = (upper + SHARES + 0.55) * panel_rows(len(shown)) + 0.15
        figure = titled_figure(fold(f"{title}, {pooled(results)}", width), width, height)
        pairs = stacked_panels(figure, len(shown), (upper, SHARES))
        for (top, bottom), setting in zip(pairs, shown, strict=True):
            values = _values(rows[rows["setting"] == setting], results.score)
            _violins(top, values, results, marks)
            _shares(bottom, values, marks, results.score)
            if len(shown) > 1:
                room = 0.85 * width / panel_columns(len(shown))
                top.set_title(fold(results.titles[setting], room))
        _frame(pairs, rows, results, marks)
        legend_below(figure, [*method_samples(results, marks, results.methods), *_explanations()])
        return settle(figure)


def pooled(results: Results) -> str:
    """Whose clients are shown together."""
    seeds = num_seeds(results)
    return "clients of one seed" if seeds == "one seed" else f"clients of {seeds} pooled"


def panel_columns(count: int) -> int:
    """How many settings stand side by side, so that few places stay empty."""
    return 2 if count == 4 else min(count, 3)


def panel_rows(count: int) -> int:
    """How many rows of settings that makes."""
    return ceil(count / panel_columns(count))


def stacked_panels(figure: Figure, count: int, heights: tuple[float, float]) -> list[Panels]:
    """For each of `count` settings two axes, one over the other, as high as `heights` tell."""
    columns, rows = panel_columns(count), panel_rows(count)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights * rows)
    places = [divmod(i, columns) for i in range(rows * columns)]
    pairs = [(grid[2 * row, column], grid[2 * row + 1, column]) for row, column in places]
    for pair in pairs[count:]:
        for ax in pair:
            ax.axis("off")
    return pairs[:count]


def _values(rows: pd.DataFrame, score: Score) -> dict[str, FloatArray]:
    """Method -> printed scores of all clients and seeds, ascending."""
    return {
        str(method): np.sort(part["score"].dropna().to_numpy(float)) * score.scale
        for method, part in rows.groupby("method")
    }


def _violins(
    ax: Axes,
    values: Mapping[str, FloatArray],
    results: Results,
    marks: Mapping[str, MethodMark],
) -> None:
    """A violin per method, its clients as dots, the median, and the mean of the worst tenth."""
    for row, method in enumerate(results.methods):
        found = values.get(method, np.array([]))
        if not len(found):
            continue
        colour = marks[method].colour
        if len(np.unique(found)) > 2:  # fewer have no density
            parts: Any = ax.violinplot(
                [found], [row], orientation="horizontal", widths=0.85, showextrema=False
            )
            (body,) = parts["bodies"]
            body.set(facecolor=colour, edgecolor=darker(colour), alpha=0.3, linewidth=0.5)
            body.set_gid("violin")
        jitter = (np.arange(1, len(found) + 1) * GOLDEN) % 1 - 0.5
        dots: dict[str, Any] = {"ls": "", "ms": 1.8 if len(found) <= 100 else 1.0}
        dots |= {"marker": "o", "color": darker(colour), "mew": 0, "clip_on": False}
        ax.plot(found, row + 0.5 * jitter, gid=f"clients {method}", **dots)
        ax.plot([np.median(found)] * 2, [row - 0.4, row + 0.4], gid="median", **_MEDIAN)
        worst = float(np.mean(results.score.worst_tenth(found.tolist())))
        ax.plot(worst, row, gid="worst", clip_on=False, **_TENTH)


_MEDIAN: dict[str, Any] = {"color": "black", "lw": 1.2, "ls": "-"}
_TENTH: dict[str, Any] = {
    "color": "white", "marker": "D", "ms": 3.6, "ls": "", "mec": "black", "mew": 0.8,
}  # fmt: skip


def _shares(
    ax: Axes, values: Mapping[str, FloatArray], marks: Mapping[str, MethodMark], score: Score
) -> None:
    """For each method the share of clients (%) at or below a score; the worst end is grey."""
    worst = 0.0 if score.higher_is_better else 100 * (1 - WORST)
    ax.axhspan(worst, worst + 100 * WORST, color="0.88", lw=0, gid="tenth")
    ax.axhline(50, color="0.6", lw=0.5)
    for method, found in values.items():
        if len(found):
            every = max(len(found) // 6, 1)
            style = {**marks[method].keywords, "markevery": (every // 2, every), "linewidth": 1.0}
            steps = np.arange(len(found) + 1) / len(found) * 100
            places = np.concatenate([found[:1], found])
            ax.plot(places, steps, drawstyle="steps-post", gid=f"share {method}", **style)
    ax.set_ylim(0, 102)
    ax.set_yticks([0, 10 if score.higher_is_better else 90, 50, 100])


def _frame(
    pairs: Sequence[Panels],
    rows: pd.DataFrame,
    results: Results,
    marks: Mapping[str, MethodMark],
) -> None:
    """Put the same scores on every horizontal axis, and names at the left."""
    score = results.score
    low, high = rows["score"].min() * score.scale, rows["score"].max() * score.scale
    least = score.scale * score.hundredth(high / score.scale)
    pad = max(0.04 * (high - low), least)
    columns = panel_columns(len(pairs))
    for i, (top, bottom) in enumerate(pairs):
        for ax in (top, bottom):
            ax.set_xlim(max(low - pad, -1.5 * least), min(high + pad, score.most + 1.5 * least))
            ax.grid(True, axis="x")
        top.set_ylim(len(results.methods) - 0.5, -0.5)
        top.tick_params(labelbottom=False, axis="x")
        top.tick_params(length=0, axis="y")
        top.set_yticks(range(len(results.methods)), [""] * len(results.methods))
        bottom.set_xlabel(score.heading(f"{score.noun} of a client"))
        if i % columns == 0:
            bottom.set_ylabel("clients (%)")
            _name_rows(top, results, marks)


def _name_rows(ax: Axes, results: Results, marks: Mapping[str, MethodMark]) -> None:
    names = [results.labels[method] for method in results.methods]
    if max(text_width(name, NAME_SIZE) for name in names) <= NAME_ROOM:
        ax.set_yticks(range(len(names)), names, fontsize=NAME_SIZE)
        return
    for row, method in enumerate(results.methods):
        place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False}
        xs = [-0.16, -0.1, -0.04]
        ax.plot(xs, [row] * 3, markevery=[1], scalex=False, **place, **marks[method].keywords)


def _explanations() -> list[Line2D | Patch]:
    dot: dict[str, Any] = {"ls": "", "marker": "o", "color": "0.3", "mew": 0, "ms": 1.8}
    upright = {**_MEDIAN, "ls": "", "marker": "|", "ms": 6, "mew": 1.2}
    return [
        Line2D([], [], label="one client", **dot),
        Line2D([], [], label="median", **upright),
        Line2D([], [], label="mean of worst tenth", **_TENTH),
        Patch(color="0.88", label="worst tenth"),
    ]
