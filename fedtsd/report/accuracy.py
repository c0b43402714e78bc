"""Figure `accuracy`: how well the clients are served over the rounds of one run."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtsd.report.across import score_limits
from fedtsd.report.layout import axes_points, spread
from fedtsd.report.marks import drift_line, note
from fedtsd.report.style import (
    COLUMN,
    darker,
    method_colour,
    new_figure,
    paper_style,
    round_axis,
    settle,
)
from fedtsd.report.tables import RunTables

LABEL_SIZE = 6.0  # points
MOST_MARKERS = 30  # more evaluated rounds than this make a plain line

Label = tuple[float, str, str]  # (height as printed, text, colour)


def accuracy(tables: RunTables) -> Figure:
    """Score on test data: mean and std over clients, worst decile; validation mean beside it.

    In regression the score is the mean absolute error. A line marks where the data drift.
    """
    with paper_style():
        figure = new_figure(tables, COLUMN, 2.2)
        ax = figure.subplots()
        ax.set(xlabel="round", ylabel=tables.score.axis(tables.score.noun))
        round_axis(ax)
        ax.grid(True, axis="y")
        ax.set_xlim(_round_limits(tables))
        test = _printed(tables)
        if test.empty:
            ax.set_ylim(score_limits(ax, tables.score))
            note(ax, "no round was evaluated")
        else:
            _curves(ax, tables, test)
        if tables.drift_round is not None:
            drift_line(ax, tables.drift_round)
        return settle(figure)


def _printed(tables: RunTables) -> pd.DataFrame:
    """Evaluated rounds: round, mean, std, worst10; the last three as they are printed."""
    rows = tables.rounds.dropna(subset=["score_mean"]).sort_values("round")
    scores = rows[["score_mean", "score_std", "score_worst10"]] * tables.score.scale
    return scores.set_axis(["mean", "std", "worst10"], axis=1).assign(round=rows["round"])


def headline_stage(tables: RunTables) -> str:
    """The stage of `clients.csv` that `rounds.csv` averages: the one with the nearest test mean."""
    test = tables.clients[tables.clients["split"] == "test"]
    means = test.groupby(["stage", "round"])["score"].mean().unstack("stage")
    stated = tables.rounds.set_index("round")["score_mean"]
    distance = means.sub(stated, axis=0).abs().mean().dropna()
    return "personalized" if distance.empty else str(distance.idxmin())


def validation_mean(tables: RunTables) -> "pd.Series[float]":
    """Round -> mean printed validation score over clients, in the stage of the headline."""
    rows = tables.clients
    rows = rows[(rows["split"] == "val") & (rows["stage"] == headline_stage(tables))]
    return rows.groupby("round")["score"].mean().dropna() * tables.score.scale


def _round_limits(tables: RunTables) -> tuple[float, float]:
    rounds = tables.rounds["round"]
    last = int(rounds.max()) if len(rounds) else 0
    return (0.0, max(last, 1) * 1.01)


def _curves(ax: Axes, tables: RunTables, test: pd.DataFrame) -> None:
    colour = method_colour(str(tables.option("method.name", "")))
    val = validation_mean(tables)
    val = val[val.index.isin(test["round"])]  # a run that was killed may be a round ahead here
    mark = "o" if len(test) <= MOST_MARKERS else ""
    labels = [_band(ax, test, colour, tables.score.most)]
    ax.plot(test["round"], test["mean"], color=colour, marker=mark, clip_on=False, gid="mean")
    labels.append((float(test["mean"].iloc[-1]), "test mean", colour))
    worst = test.dropna(subset=["worst10"])
    if len(worst):
        small: dict[str, Any] = {"marker": mark, "ms": 2.0, "clip_on": False}
        ax.plot(
            worst["round"], worst["worst10"], color=colour, lw=0.9, ls="--", gid="worst", **small
        )
        labels.append((float(worst["worst10"].iloc[-1]), "worst 10 %", colour))
    if len(val):
        style: dict[str, Any] = {
            "color": "black",
            "lw": 0.8,
            "ls": ":",
            "marker": mark,
            "ms": 1.5,
            "clip_on": False,
        }
        ax.plot(val.index, val, gid="validation", **style)
        labels.append((float(val.iloc[-1]), "val. mean", "black"))
    ax.set_ylim(score_limits(ax, tables.score))
    _name_ends(ax, labels, tables.score.decimals_of(test["mean"]))


def _band(ax: Axes, test: pd.DataFrame, colour: str, most: float) -> Label:
    """Shade mean ± std, clipped to what a score can be."""
    std = test["std"].fillna(0.0)
    low, high = (test["mean"] - std).clip(0, most), (test["mean"] + std).clip(0, most)
    if len(test) == 1:  # a band over one round has no area
        ax.vlines(test["round"], low, high, color=colour, alpha=0.35, lw=3, gid="band")
    else:
        ax.fill_between(test["round"], low, high, color=colour, alpha=0.18, lw=0, gid="band")
    return float(high.iloc[-1]), "± 1 std", colour


def _name_ends(ax: Axes, labels: list[Label], decimals: int) -> None:
    """Name each line at its right end, with its last value; none over another."""
    low, high = ax.get_ylim()
    _, height = axes_points(ax)
    gap = (LABEL_SIZE + 2) * (high - low) / height
    places = spread([y for y, _, _ in labels], gap, low, high)
    for (value, name, colour), place in zip(labels, places, strict=True):
        text = name if name.startswith("±") else f"{name} {value:.{decimals}f}"
        ax.annotate(
            text,
            (1.0, place),
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=LABEL_SIZE,
            color=darker(colour),
            va="center_baseline",
            annotation_clip=False,
        )
