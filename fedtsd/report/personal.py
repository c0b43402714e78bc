"""Figure `personal_layers`: how many layers adaptive methods keep private, against severity."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedtsd.report.across import (
    NotApplicableError,
    legend_below,
    marks_of,
    method_samples,
    num_seeds,
)
from fedtsd.report.naming import IDLE, SETTING
from fedtsd.report.places import Place
from fedtsd.report.results import Results, Run
from fedtsd.report.severity import dodges, draw_places, found_axes, severity_figure
from fedtsd.report.severity_axis import frame
from fedtsd.report.style import PAGE, fold, paper_style, settle

# Policies that give every client the same number of personal layers, counted from the output.
FIXED = ("Nothing", "LastLayers", "Everything")
NOT_ADAPTIVE = (*FIXED, "FirstLayers", "")
# What two runs may differ in and still be compared for their number of personal layers alone.
FREE = (*SETTING, *IDLE, "personalization", "method")
BAR_WIDTH = 9.0  # points
BAR, BEST = "0.85", "0.25"


@dataclass(frozen=True)
class BestFixed:
    """The fixed number of personal layers with the best mean score in a setting.

    `close` holds every number within one standard error (of the best, over seeds) of it.
    """

    best: int
    close: tuple[int, ...]


def personal_layers(results: Results) -> Figure:
    """Personal layers that adaptive methods chose: mean and std over clients, against severity.

    Beside them the best fixed number and those within one standard error of it, from runs that
    differ in nothing else. Raises NotApplicableError without an adaptive method or without two
    settings that differ in the partition alone.
    """
    adaptive = [run.method for run in results.runs if _policy(run) not in NOT_ADAPTIVE]
    methods = list(dict.fromkeys(adaptive))
    if not methods:
        raise NotApplicableError("personal_layers: needs a method that adapts its personal layers")
    axes = found_axes(results, "personal_layers")
    fixed = best_fixed(results)
    with paper_style():
        figure = severity_figure(results, axes, _what(results), 2.4)
        grid = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
        for ax, (name, places) in zip(grid, axes.items(), strict=True):
            if len(axes) > 1:
                ax.set_title(fold(name, 0.85 * PAGE / len(axes)))
            ax.set_ylim(-0.5, results.table["num_layers"].max() + 0.5)
            ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            frame(ax, places, bottom=True, top=True)
            _fixed(ax, places, fixed)
            _chosen(ax, results, places, methods)
        grid[0].set_ylabel("personal layers")
        handles = method_samples(results, marks_of(results), methods)
        legend_below(figure, [*handles, *_keys(axes.values(), fixed)])
        return settle(figure)


def best_fixed(results: Results) -> dict[str, BestFixed]:
    """Setting -> the best fixed number of personal layers, where at least two were run.

    Compared are runs that differ in nothing else; of several such families the one that shares
    most with an adaptive method, then the one with most numbers.
    """
    families: dict[str, list[Run]] = {}
    for run in results.runs:
        if _policy(run) in FIXED:
            families.setdefault(_rest(run), []).append(run)
    like = {_rest(run) for run in results.runs if _policy(run) not in NOT_ADAPTIVE}
    wide = [name for name, runs in families.items() if len({_number(run) for run in runs}) > 1]
    if not wide:
        return {}
    most = {name: len({_number(run) for run in families[name]}) for name in wide}
    chosen = families[max(wide, key=lambda name: (name in like, most[name]))]
    merit = results.score.merit
    rows = [(r.setting, _number(r), merit(results.scores_of(r)["mean"])) for r in chosen]
    table = pd.DataFrame(rows, columns=["setting", "layers", "merit"])
    found = {str(name): _best(frame) for name, frame in table.groupby("setting")}
    return {name: best for name, best in found.items() if best is not None}


def unlike_in_layers(results: Results, method: str) -> tuple[Run, ...]:
    """Return the runs of a method, and those that differ from it in their personal layers alone."""
    alike = {_rest(run) for run in results.find(method=method)}
    return tuple(run for run in results.runs if _rest(run) in alike)


def _best(rows: pd.DataFrame) -> BestFixed | None:
    groups = rows.groupby("layers")["merit"]
    numbers = [int(number) for number in sorted(rows["layers"].unique())]
    means, errors = groups.mean(), groups.sem().fillna(0.0)
    if len(numbers) < 2:
        return None
    best = max(numbers, key=lambda number: float(means[number]))
    close = [number for number in numbers if means[number] >= means[best] - errors[best]]
    return BestFixed(best, tuple(close))


def _policy(run: Run) -> str:
    target = str((run.config.get("personalization") or {}).get("_target_", ""))
    return target.rpartition(".")[2]


def _number(run: Run) -> int:
    """How many layers a fixed policy keeps."""
    kind = _policy(run)
    if kind == "Everything":
        return len(run.summary.get("layers") or [])
    return int(run.config["personalization"]["layers"]) if kind == "LastLayers" else 0


def _rest(run: Run) -> str:
    """What must be equal between runs that are compared for their personal layers alone."""
    rest = {key: value for key, value in run.config.items() if key not in FREE}
    if isinstance(rest.get("evaluation"), dict):
        rest["evaluation"] = {k: v for k, v in rest["evaluation"].items() if k != "local_run"}
    return json.dumps(rest, sort_keys=True, default=str)


def _what(results: Results) -> str:
    return f"mean ± 1 std over clients, {num_seeds(results)}"


def _chosen(ax: Axes, results: Results, places: list[Place], methods: list[str]) -> None:
    """Draw the mean over clients and seeds with a whisker of one std."""
    marks = marks_of(results)
    rows = [
        (run.method, run.setting, layers)
        for run in results.runs
        for layers in run.summary.get("personal_layers") or []
    ]
    table = pd.DataFrame(rows, columns=["method", "setting", "layers"])
    groups = table.groupby(["method", "setting"])["layers"]
    values = pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=0)})
    for method, aside in zip(methods, dodges(ax, places, len(methods)), strict=True):
        most = float(results.table["num_layers"].max())
        draw_places(ax, places, values, float(aside), marks[method], method, most)


def _fixed(ax: Axes, places: list[Place], fixed: dict[str, BestFixed]) -> None:
    """Shade the numbers close to the best fixed one; a dash marks the best."""
    for place in places:
        if place.setting not in fixed:
            continue
        found = fixed[place.setting]
        low, high = np.array(found.close) - 0.4, np.array(found.close) + 0.4
        xs = [place.x] * len(found.close)
        gid = f"close {place.setting}"
        ax.vlines(xs, low, high, color=BAR, lw=BAR_WIDTH, zorder=0.6, gid=gid)
        ax.plot(place.x, found.best, "_", ms=BAR_WIDTH, mew=1.5, color=BEST, zorder=1.5, gid="best")


def _keys(axes: Iterable[list[Place]], fixed: dict[str, BestFixed]) -> list[Artist]:
    shown = {place.setting for places in axes for place in places}
    if not shown & set(fixed):
        return []
    best: dict[str, Any] = {"ls": "none", "marker": "_", "ms": BAR_WIDTH, "mew": 1.5, "color": BEST}
    return [
        Line2D([], [], label="best fixed number", **best),
        Line2D([], [], label="within 1 std. error of it", ls="none", marker="s", ms=7, color=BAR),
    ]
