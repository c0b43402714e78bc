"""Figure and table `budget`: scores against what was sent and how long it would have taken."""

from collections.abc import Iterable, Mapping
from math import isfinite

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fedtsd.errors import InputError
from fedtsd.report.across import (
    NotApplicableError,
    curve,
    data_words,
    marks_of,
    num_seeds,
    pick,
    score_limits,
    setting_words,
)
from fedtsd.report.budget_key import RING, TARGET, key_height, key_width, write_key
from fedtsd.report.cost import Site, megabytes, simulated_seconds
from fedtsd.report.layout import POINTS_PER_INCH, axes_points
from fedtsd.report.results import Results, Run
from fedtsd.report.style import (
    PAGE,
    MethodMark,
    fold,
    paper_style,
    settle,
    titled_figure,
)
from fedtsd.score import Score

OFFICE = Site(upload=10, download=50, slowdown=4)  # an office's line and an old PC
SLACK = 0.05  # how much worse than the best last score the target is if none is given
MOST_SETTINGS = 5  # rows of panels that a page has room for
LOG_FROM = 10.0  # the largest total over the smallest from which an axis is logarithmic
AXES = {
    "megabytes": "megabytes, both ways, all clients",
    "simulated_seconds": "simulated seconds",
}

Spendings = dict[str, pd.DataFrame]  # method -> round, mean, std, megabytes, simulated_seconds


def budget(results: Results, site: Site = OFFICE, target: float | None = None) -> Figure:
    """Scores against cumulative megabytes and against seconds on `site`; a row per setting.

    A ring marks where a method's mean first reaches `target` (as stored; unless given, what is 5 %
    worse than the best last score in the setting), and a list says at what cost. A method that
    sends nothing is a level line. More than five settings are thinned evenly. Raises
    NotApplicableError if no run has traffic.csv and an evaluated round.
    """
    spent = {name: spendings(results, name, site) for name in results.settings}
    shown = pick([name for name, found in spent.items() if found], MOST_SETTINGS)
    if not shown:
        raise NotApplicableError("budget: needs a run with traffic.csv and an evaluated round")
    goals = {name: _goal(spent[name], target, results.score) for name in shown}
    costs = _costs(results, spent, target)
    marks = marks_of(results)
    keys = {
        name: costs[(costs["setting"] == name) & costs["method"].isin(list(spent[name]))]
        for name in shown
    }
    heads = {name: _head(results, goals[name], target is None) for name in shown}
    height = max(key_height(key, results.labels) for key in keys.values())
    title = fold(_title(results, shown, site), PAGE)
    with paper_style():
        figure = titled_figure(title, PAGE, 0.2 + len(shown) * max(1.5, height + 0.45))
        ratios = {"width_ratios": _widths(costs, results, heads.values())}
        grid = figure.subplots(len(shown), 3, squeeze=False, gridspec_kw=ratios)
        for row, name in zip(grid, shown, strict=True):
            _row(
                list(row[:2]), spent[name], results.score.scale * goals[name], marks, results.score
            )
            if len(shown) > 1:
                row[0].set_title(results.titles[name], loc="left")
        for column, (key, label) in enumerate(AXES.items()):
            grid[-1, column].set_xlabel(label)
            _scale(list(grid[:, column]), [spent[name] for name in shown], key)
        size = axes_points(grid[0, 2])
        for row, name in zip(grid, shown, strict=True):
            write_key(row[2], size, keys[name], heads[name], results, marks)
        return settle(figure)


def budget_table(
    results: Results, site: Site = OFFICE, target: float | None = None
) -> pd.DataFrame:
    """What it takes until a method's mean over seeds first reaches the target, per setting.

    Columns: method, setting, target (as stored), megabytes, simulated_seconds, rounds; the last
    three NaN where it is never reached, or the run has no traffic.csv. Counted is up to the first
    evaluated round at the target.
    """
    spent = {name: spendings(results, name, site) for name in results.settings}
    return _costs(results, spent, target)


def _costs(results: Results, spent: Mapping[str, Spendings], target: float | None) -> pd.DataFrame:
    rows, score = [], results.score
    for setting, found in spent.items():
        goal = _goal(found, target, score)
        for method in dict.fromkeys(run.method for run in results.find(setting=setting)):
            there = _reached(found[method], score.scale * goal, score) if method in found else None
            cost = [np.nan] * 3 if there is None else [there[key] for key in (*AXES, "round")]
            rows.append((method, setting, goal, *cost))
    columns = ["method", "setting", "target", *AXES, "rounds"]
    return pd.DataFrame(rows, columns=columns)


def spendings(results: Results, setting: str, site: Site) -> Spendings:
    """Method -> its curve with the means over seeds of what was spent up to each round.

    Methods without an evaluated round or without traffic.csv are left out.
    """
    found = {}
    for method in dict.fromkeys(run.method for run in results.find(setting=setting)):
        rows = curve(results, method, setting)
        runs = [run for run in results.find(method, setting) if len(run.tables.traffic)]
        if len(rows) and runs:
            found[method] = rows.assign(**_spent(runs, rows["round"], site))
    return found


def _spent(runs: list[Run], at: "pd.Series[int]", site: Site) -> dict[str, "pd.Series[float]"]:
    each = [
        {
            "megabytes": megabytes(run.tables),
            "simulated_seconds": simulated_seconds(run.tables, site),
        }
        for run in runs
    ]
    totals = {
        key: np.mean([np.interp(at, s[key].index, s[key].cumsum()) for s in each], axis=0)
        for key in AXES
    }
    return {key: pd.Series(values, index=at.index) for key, values in totals.items()}


def _goal(spent: Spendings, target: float | None, score: Score) -> float:
    """The target as stored; by default NaN where no method was evaluated."""
    if target is not None:
        if not 0 < target <= score.limit:
            most = f" and at most {score.limit:g}" if isfinite(score.limit) else ""
            raise InputError(f"target: must be above 0{most}, got {target}")
        return target
    last = [float(rows["mean"].iloc[-1]) for rows in spent.values()]
    best = max(last, key=score.merit, default=float("nan"))
    return best * (1 - score.sign * SLACK) / score.scale


def _head(results: Results, goal: float, by_default: bool) -> str:
    """What the list beside the panels tells the cost of."""
    score = results.score
    share = f" ({100 * (1 - score.sign * SLACK):g} % of the best)" if by_default else ""
    unit = f" {score.unit}" if score.unit else f" {score.noun}"
    return f"to reach {score.scale * goal:.{results.decimals}f}{unit}{share}"


def _reached(rows: pd.DataFrame, goal: float, score: Score) -> "pd.Series[float] | None":
    """The first evaluated round at which the mean is there, `goal` as printed."""
    there = rows[score.merit(rows["mean"]) >= score.merit(goal)]
    return there.iloc[0] if len(there) else None


def _title(results: Results, shown: list[str], site: Site) -> str:
    words = [*data_words(results), *setting_words(results, shown)]
    words.append(
        num_seeds(results) if num_seeds(results) == "one seed" else f"mean of {num_seeds(results)}"
    )
    words.append(f"{site.upload:g} Mbit/s up, {site.download:g} down")
    words.append(f"machines {site.slowdown:g} × slower")
    if len(shown) < len(results.settings):
        words.append(f"{len(shown)} of {len(results.settings)} settings")
    return ", ".join(dict.fromkeys(words))


def _widths(costs: pd.DataFrame, results: Results, heads: Iterable[str]) -> list[float]:
    """Points for two panels and the list; a tenth of the page is for what is between them."""
    key = key_width(costs, results.labels, heads)
    panel = (0.9 * PAGE * POINTS_PER_INCH - key) / 2
    return [panel, panel, key]


def _row(
    axes: list[Axes],
    spent: Spendings,
    goal: float,
    marks: Mapping[str, MethodMark],
    score: Score,
) -> None:
    """Both panels of a setting, with the same heights."""
    for ax, key in zip(axes, AXES, strict=True):
        _panel(ax, spent, key, goal, marks, score)
    axes[1].set_ylim(axes[0].get_ylim())
    axes[0].set_ylabel(score.axis(f"test {score.noun}"))


def _panel(
    ax: Axes,
    spent: Spendings,
    key: str,
    goal: float,
    marks: Mapping[str, MethodMark],
    score: Score,
) -> None:
    ax.grid(True, axis="y")
    ax.axhline(goal, gid="target", **TARGET)
    for method, rows in spent.items():
        style = marks[method].keywords
        if not rows[key].iloc[-1] > 0:  # nothing spent: level with where it ends
            del style["marker"]
            ax.axhline(rows["mean"].iloc[-1], gid=f"level {method}", **style)
            continue
        style |= {"markersize": 2.0, "markevery": max(1, len(rows) // 10)}
        ax.plot(rows[key], rows["mean"], gid=f"{key} {method}", **style)
        there = _reached(rows, goal, score)
        if there is not None:
            at, mec = (there[key], there["mean"]), marks[method].colour
            ax.plot(*at, "o", mec=mec, gid=f"reached {method}", **RING)
    ax.set_ylim(score_limits(ax, score))


def _scale(axes: list[Axes], spent: list[Spendings], key: str) -> None:
    """One kind of scale for a column: logarithmic where totals differ by a factor of ten."""
    totals = [float(rows[key].iloc[-1]) for found in spent for rows in found.values()]
    totals = [total for total in totals if total > 0]
    log = bool(totals) and max(totals) >= LOG_FROM * min(totals)
    for ax in axes:
        if log:
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            steps = (1, 2, 5) if high < 100 * low else (1,)
            ax.xaxis.set_major_locator(LogLocator(subs=steps))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_xlim(left=0)
