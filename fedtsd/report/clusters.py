"""Figure `clusters`: who was with whom in which round, and the tests that decided it."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fedtsd.report.hopkins import hopkins_legend, hopkins_panel
from fedtsd.report.layout import axes_points, shortened, text_width
from fedtsd.report.marks import final_blocks, name_clusters
from fedtsd.report.style import (
    COLUMN,
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


def clusters(tables: RunTables) -> Figure:
    """Cluster of every client over the rounds; below it each Hopkins test the server made."""
    with paper_style():
        tested = len(tables.clustering) > 0
        band = min(max(len(tables.order) * ROW, 1.2), 1.85)  # inches
        figure = new_figure(tables, COLUMN, band + (2.2 if tested else 0.7))
        if tested:
            top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(band, 1.1))
            hopkins_panel(bottom, tables)
            bottom.set_xlabel("round")
            hopkins_legend(figure, tables)
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
    _client_ticks(ax, [tables.client_names[client] for client in tables.order])
    _name_blocks(ax, tables, first, members)
    name_clusters(ax, tables, "right", away=3)


def _paint(members: IntArray, colours: dict[int, str]) -> npt.NDArray[np.uint8]:
    """Colours `[N, rounds, 3]` of clusters `[N, rounds]`; white where a client has none."""
    image = np.full((*members.shape, 3), 255, dtype=np.uint8)
    for cluster, colour in colours.items():
        image[members == cluster] = np.round(np.multiply(to_rgb(colour), 255))
    return image


def _client_ticks(ax: Axes, names: list[str]) -> None:
    """Name every client where there is room for it, else none: their order is not their number."""
    ax.tick_params(axis="y", length=0)
    if len(names) > MOST_NAMED_CLIENTS:
        ax.set_yticks([])
    else:
        size = 6.0 if len(names) <= 16 else 5.0
        ax.set_yticks(range(len(names)), [shortened(name) for name in names], fontsize=size)


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
