"""Figure `severity`: scores and worst decile of all methods against how skewed the data are."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtsd.report.across import (
    NotApplicableError,
    data_words,
    legend_below,
    marks_of,
    method_samples,
    score_limits,
    seed_words,
)
from fedtsd.report.places import Place, axes_of
from fedtsd.report.results import Results
from fedtsd.report.severity_axis import frame, pieces, steps_per_point
from fedtsd.report.style import (
    COLUMN,
    PAGE,
    MethodMark,
    fold,
    paper_style,
    settle,
    titled_figure,
)
from fedtsd.report.tables import FloatArray

MOST_AXES = 3  # columns of panels: data sets, models, ... that the runs do not share
ROWS = ("score", "worst10")
MOST_NARROW = 7  # places that one column of a paper has room for
DODGE = 2.2  # points between the marks of two methods at one place, where there is room


def severity(results: Results) -> Figure:
    """Mean score and mean worst decile over seeds, whiskers of one std, against severity.

    A column of panels per data set, model, ...; three at most. Raises NotApplicableError without
    two settings that differ in nothing but the partition.
    """
    axes = found_axes(results, "severity")
    marks = marks_of(results)
    with paper_style():
        figure = severity_figure(results, axes, seed_words(results), 3.6)
        grid = figure.subplots(2, len(axes), sharex="col", sharey="row", squeeze=False)
        for column, (name, places) in enumerate(axes.items()):
            if len(axes) > 1:
                grid[0, column].set_title(fold(name, 0.85 * PAGE / len(axes)))
            for row, key in enumerate(ROWS):
                ax = grid[row, column]
                ax.grid(True, axis="y")
                frame(ax, places, bottom=row == 1, top=row == 0)
                _methods(ax, results, places, key, marks)
                if column == 0:
                    words = f"test {results.score.noun}" if key == "score" else "worst decile"
                    ax.set_ylabel(results.score.axis(words))
        for row in grid:
            limits = [score_limits(ax, results.score) for ax in row]
            row[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        settings = [place.setting for places in axes.values() for place in places]
        legend_below(figure, method_samples(results, marks, results.only(settings).methods))
        return settle(figure)


def found_axes(results: Results, figure: str) -> dict[str, list[Place]]:
    """The axes of severity, three at most; raises NotApplicableError if there is none."""
    axes = dict(list(axes_of(results).items())[:MOST_AXES])
    if not axes:
        raise NotApplicableError(f"{figure}: needs settings that differ in the partition alone")
    return axes


def severity_figure(
    results: Results, axes: dict[str, list[Place]], what: str, height: float
) -> Figure:
    """A page for panels against severity, titled by what all of them share and what they show."""
    words = [*data_words(results), *(axes if len(axes) == 1 else []), what]
    if (total := len(axes_of(results))) > len(axes):
        words.append(f"{len(axes)} of {total} kinds of data")
    narrow = len(axes) == 1 and all(len(places) <= MOST_NARROW for places in axes.values())
    width = COLUMN if narrow else PAGE
    title = ", ".join(dict.fromkeys(word for word in words if word))
    return titled_figure(fold(title, width), width, height)


def dodges(ax: Axes, places: Sequence[Place], methods: int) -> FloatArray:
    """Steps by which each method is moved aside, so that equal values do not hide each other."""
    xs = np.array([place.x for place in places])
    room = 0.5 * float(np.diff(xs).min()) if len(xs) > 1 else 0.5
    step = min(DODGE * steps_per_point(ax), room / max(methods - 1, 1))
    middle = (methods - 1) / 2
    return np.array([(i - middle) * step for i in range(methods)], dtype=np.float64)


def _methods(
    ax: Axes, results: Results, places: list[Place], key: str, marks: dict[str, MethodMark]
) -> None:
    table = results.table[results.table["setting"].isin([place.setting for place in places])]
    printed = table.set_index(["method", "setting"])[key] * results.score.scale
    known = printed.groupby(level=[0, 1])
    values = pd.DataFrame({"mean": known.mean(), "std": known.std()})
    methods = [method for method in results.methods if method in values.index.get_level_values(0)]
    for method, aside in zip(methods, dodges(ax, places, len(methods)), strict=True):
        most = results.score.most
        draw_places(ax, places, values, float(aside), marks[method], method, most)


def draw_places(
    ax: Axes,
    places: list[Place],
    values: pd.DataFrame,
    aside: float,
    mark: MethodMark,
    method: str,
    most: float,
) -> None:
    """Draw `mean` and `std` of a method at the places, joined along the log axis alone.

    `values` is indexed by method and setting and lies in 0..`most`, so the whiskers end there.
    """
    rows = values.reindex([(method, place.setting) for place in places])
    xs = np.array([place.x for place in places]) + aside
    mean, std = rows["mean"].to_numpy(float), rows["std"].to_numpy(float)
    low, high = np.clip(mean - std, 0, most), np.clip(mean + std, 0, most)
    ax.vlines(xs, low, high, color=mark.colour, lw=0.7, alpha=0.7, gid=f"std {method}")
    for piece in pieces(places):
        ax.plot(xs[piece], mean[piece], gid=f"mean {method}", **mark.keywords)
