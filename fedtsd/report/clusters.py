"""Figure `clusters`: who was with whom in which round, and the tests that decided it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtsd.report.layout import axes_points, text_width
from fedtsd.report.marks import final_blocks, name_clusters, note
from fedtsd.report.style import (
    BLUE,
    COLUMN,
    GREY,
    VERMILLION,
    cluster_colours,
    ink_on,
    new_figure,
    paper_style,
    round_axis,
    settle,
)
from fedtsd.report.tables import RunTables
from fedtsd.report.timeline import IntArray, named_blocks, timeline

TEXT_SIZE = 6.0  # points
MOST_NAMED_CLIENTS = 20
ROW = 0.092  # inches: a row that has room for the number of its client
STAGES = {1: ("o", BLUE, "stage 1: outputs"), 2: ("s", VERMILLION, "stage 2: updates")}
HOPKINS_THRESHOLD, SIGNIFICANCE = 0.75, 0.05  # where the config has none


def clusters(tables: RunTables) -> Figure:
    """Cluster of every client over the rounds; below it each Hopkins test the server made."""
    with paper_style():
        tested = len(tables.clustering) > 0
        band = min(max(len(tables.order) * ROW, 1.2), 1.85)  # inches
        figure = new_figure(tables, COLUMN, band + (2.2 if tested else 0.7))
        if tested:
            top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(band, 1.1))
            _tests(bottom, tables)
            bottom.set_xlabel("round")
            _legend(figure, tables)
        else:
            top = figure.subplots()
            top.set_xlabel("round\n(no clustering test in this run)")
        _timeline(top, tables)
        return settle(figure)


def _timeline(ax: Axes, tables: RunTables) -> None:
    first, members = timeline(tables)
    n, rounds = members.shape
    ax.imshow(
        _paint(members, cluster_colours(tables)),
        aspect="auto",
        interpolation="none",
        extent=(first - 0.5, first + rounds - 0.5, n - 0.5, -0.5),
    )
    ax.set_ylabel("client" if len(final_blocks(tables)) == 1 else "client, by final cluster")
    round_axis(ax)
    tested = tables.clustering["round"]
    last = max(first + rounds - 1, int(tested.max()) if len(tested) else 0)
    ax.set_xlim(first - 0.5, last + 0.5)
    _client_ticks(ax, tables.order)
    _name_blocks(ax, tables, first, members)
    name_clusters(ax, tables, "right", away=3)


def _paint(members: IntArray, colours: dict[int, str]) -> npt.NDArray[np.uint8]:
    """Colours `[N, rounds, 3]` of clusters `[N, rounds]`; white where a client has none."""
    image = np.full((*members.shape, 3), 255, dtype=np.uint8)
    for cluster, colour in colours.items():
        image[members == cluster] = np.round(np.multiply(to_rgb(colour), 255))
    return image


def _client_ticks(ax: Axes, order: list[int]) -> None:
    """Name every client where there is room for it, else none: their order is not their number."""
    ax.tick_params(axis="y", length=0)
    if len(order) > MOST_NAMED_CLIENTS:
        ax.set_yticks([])
    else:
        size = 6.0 if len(order) <= 16 else 5.0
        ax.set_yticks(range(len(order)), [str(client) for client in order], fontsize=size)


def _name_blocks(ax: Axes, tables: RunTables, first: int, members: IntArray) -> None:
    """Write the cluster into the blocks that have room for it."""
    width, height = axes_points(ax)
    n, rounds = members.shape
    colours = cluster_colours(tables)
    for block in named_blocks(members):
        name = f"C{block.cluster}"
        wide = (block.end - block.begin) * width / rounds > text_width(name, TEXT_SIZE) + 2
        tall = (block.bottom - block.top) * height / n > TEXT_SIZE + 2
        if wide and tall:
            ax.text(
                first + (block.begin + block.end - 1) / 2,
                (block.top + block.bottom - 1) / 2,
                name,
                fontsize=TEXT_SIZE,
                color=ink_on(colours[block.cluster]),
                ha="center",
                va="center_baseline",
                gid="cluster",
            )


def _tests(ax: Axes, tables: RunTables) -> None:
    tests = tables.clustering.dropna(subset=["hopkins"])
    ax.set_ylabel("Hopkins value")
    for at in sorted(set(_splits(tables))):
        ax.axvline(at, color=GREY, lw=0.9, ls=":", gid="split")
    ax.set_ylim(min(0.4, tests["hopkins"].min() - 0.05) if len(tests) else 0.0, 1.03)
    if tests.empty:
        note(ax, "no Hopkins test in this run")
        return
    ax.axhline(_threshold(tables), color="black", lw=0.8, ls="--", gid="threshold")
    for stage, (marker, colour, _) in STAGES.items():
        rows = tests[tests["stage"] == stage]
        filled = rows["hopkins_p"] < _significance(tables)
        for chosen, face in ((rows[filled], colour), (rows[~filled], "white")):
            if len(chosen):  # the layout takes an empty line that is not clipped for a huge one
                style: dict[str, Any] = {"ls": "", "marker": marker, "mec": colour, "mfc": face}
                rounds, values = chosen["round"], chosen["hopkins"]
                ax.plot(rounds, values, mew=0.8, clip_on=False, gid=f"stage{stage}", **style)


def _splits(tables: RunTables) -> "pd.Series[int]":
    return tables.clustering.loc[tables.clustering["split"] == 1, "round"]


def _threshold(tables: RunTables) -> float:
    return float(tables.option("clustering.hopkins_threshold", HOPKINS_THRESHOLD))


def _significance(tables: RunTables) -> float:
    return float(tables.option("clustering.significance", SIGNIFICANCE))


def _legend(figure: Figure, tables: RunTables) -> None:
    """Explain every mark that the lower panel has, and no other."""
    tests = tables.clustering.dropna(subset=["hopkins"])
    entries: list[tuple[Line2D, str]] = []
    for stage, (marker, colour, name) in STAGES.items():
        if (tests["stage"] == stage).any():
            entries.append((Line2D([], [], ls="", marker=marker, color=colour), name))
    if len(tests):
        level = _significance(tables)
        for face, sign in (("0.3", "<"), ("white", "≥")):
            disc = Line2D([], [], ls="", marker="o", mec="0.3", mfc=face, mew=0.8)
            entries.append((disc, f"{'filled' if sign == '<' else 'hollow'}: p {sign} {level:g}"))
        line = Line2D([], [], color="black", lw=0.8, ls="--")
        entries.append((line, f"threshold {_threshold(tables):g}"))
    if len(_splits(tables)):
        entries.append((Line2D([], [], color=GREY, lw=0.9, ls=":"), "split accepted"))
    if entries:
        handles, names = zip(*entries, strict=True)
        figure.legend(handles, names, loc="outside lower center", ncols=2)
