"""Figure `rounds`: how well clients are served over rounds, all methods, one panel per setting."""

from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtsd.report.across import (
    MOST_MARKERS,
    NotApplicableError,
    curve,
    data_words,
    fits_beside,
    legend_below,
    marks_of,
    method_samples,
    name_ends,
    pick,
    score_limits,
    seed_words,
    setting_words,
)
from fedtsd.report.layout import POINTS_PER_INCH
from fedtsd.report.marks import drift_line, note
from fedtsd.report.results import Results
from fedtsd.report.style import (
    COLUMN,
    PAGE,
    MethodMark,
    fold,
    paper_style,
    round_axis,
    settle,
    titled_figure,
)
from fedtsd.score import Score

MOST_PANELS = 12
PANEL = 1.75  # inches: height of a panel with its axis

Curves = dict[str, pd.DataFrame]  # method -> round, mean, std


def rounds(results: Results) -> Figure:
    """Mean score over seeds with a band of one std, against rounds; a line where the data drift.

    More than twelve settings are thinned evenly. Raises NotApplicableError without a finished run.
    """
    if not results.runs:
        raise NotApplicableError("rounds: needs a finished run")
    shown = pick(results.settings, MOST_PANELS)
    marks = marks_of(results)
    width = COLUMN if len(shown) == 1 else PAGE
    columns = _columns(len(shown))
    rows = ceil(len(shown) / columns)
    with paper_style():
        height = 2.2 if len(shown) == 1 else 0.2 + PANEL * rows
        figure = titled_figure(fold(_title(results, shown), width), width, height)
        grid = figure.subplots(rows, columns, sharey=True, sharex=False, squeeze=False)
        panels = dict(zip(shown, grid.flat, strict=False))
        curves = {name: _curves(results, name) for name in shown}
        for setting, ax in panels.items():
            _panel(ax, curves[setting], marks, results.score)
            for at in drift_rounds(results, setting):
                drift_line(ax, at)
            if len(shown) > 1:
                ax.set_title(fold(results.titles[setting], 0.85 * width / columns))
        _frame(list(grid.flat), len(shown), columns, results.score)
        _name(figure, results, marks, curves, panels)
        return settle(figure)


def _columns(panels: int) -> int:
    """Two to four panels in a row, so that few places stay empty."""
    if panels <= 4:
        return panels
    return 3 if panels in (5, 6, 9) else 4


def _title(results: Results, shown: list[str]) -> str:
    words = [*data_words(results), *setting_words(results, shown)]
    words.append(seed_words(results, " (band)"))
    if len(shown) < len(results.settings):
        words.append(f"{len(shown)} of {len(results.settings)} settings")
    return ", ".join(dict.fromkeys(words))


def _curves(results: Results, setting: str) -> Curves:
    methods = dict.fromkeys(run.method for run in results.find(setting=setting))
    found = {method: curve(results, method, setting) for method in methods}
    return {method: frame for method, frame in found.items() if len(frame)}


def drift_rounds(results: Results, setting: str) -> list[int]:
    """The rounds from which the data of a setting's runs are others."""
    found = {run.tables.drift_round for run in results.find(setting=setting)}
    return sorted(at for at in found if at is not None)


def _panel(ax: Axes, curves: Curves, marks: dict[str, MethodMark], score: Score) -> None:
    round_axis(ax)
    ax.grid(True, axis="y")
    if not curves:
        note(ax, "no round was evaluated")
        return
    for method, rows in curves.items():
        _band(ax, rows, marks[method].colour, method, score.most)
    for method, rows in curves.items():
        style = marks[method].keywords
        if len(rows) > MOST_MARKERS:  # a few markers still tell the lines apart in grey
            style["markevery"] = max(1, len(rows) // 8)
        ax.plot(rows["round"], rows["mean"], clip_on=False, gid=f"mean {method}", **style)
    last = max(float(rows["round"].max()) for rows in curves.values())
    ax.set_xlim(0, max(last, 1) * 1.01)


def _band(ax: Axes, rows: pd.DataFrame, colour: str, method: str, most: float) -> None:
    """Shade mean ± std over seeds, clipped to what a score can be."""
    known = rows.dropna(subset=["std"])
    low = (known["mean"] - known["std"]).clip(0, most)
    high = (known["mean"] + known["std"]).clip(0, most)
    gid = f"band {method}"
    if len(known) == 1:  # a band over one round has no area
        ax.vlines(known["round"], low, high, color=colour, alpha=0.35, lw=3, gid=gid)
    elif len(known):
        ax.fill_between(known["round"], low, high, color=colour, alpha=0.15, lw=0, gid=gid)


def _frame(axes: list[Axes], panels: int, columns: int, score: Score) -> None:
    """Name the axes once, share the limits, hide the places without a panel."""
    used = axes[:panels]
    limits = [score_limits(ax, score) for ax in used if ax.lines] or [score_limits(used[0], score)]
    used[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for i, ax in enumerate(axes):
        ax.set_visible(i < panels)
        if i % columns == 0:
            ax.set_ylabel(score.axis(f"test {score.noun}"))
        if i + columns >= panels:
            ax.set_xlabel("round")


def _name(
    figure: Figure,
    results: Results,
    marks: dict[str, MethodMark],
    curves: dict[str, Curves],
    panels: dict[str, Axes],
) -> None:
    """Name the lines at their ends if there is one panel and room; below otherwise."""
    methods = {method for found in curves.values() for method in found}
    if not methods:
        return
    labels = results.labels
    only = next(iter(panels))
    ends = [
        (value, f"{labels[method]} {value:.{results.decimals}f}", marks[method])
        for method, rows in curves[only].items()
        for value in [float(rows["mean"].iloc[-1])]
    ]
    height = 1.6 * POINTS_PER_INCH
    if len(panels) == 1 and fits_beside([label for _, label, _ in ends], height):
        name_ends(panels[only], ends)
    else:
        legend_below(figure, method_samples(results, marks, methods))
