"""Figure `partition`: who holds how many training samples of which class.

Letters: `N` clients, `Y` classes.
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedtsd.report.layout import POINTS_PER_INCH, shortened, text_width
from fedtsd.report.marks import (
    GROUP_STRIP,
    STRIP,
    final_blocks,
    name_clusters,
    note,
    separate_clusters,
    strip_clusters,
    strip_groups,
)
from fedtsd.report.style import BLUE, COLUMN, PAGE, VERMILLION, new_figure, paper_style, settle
from fedtsd.report.tables import FloatArray, RunTables
from fedtsd.score import MAE

TICK_SIZE = 6.0  # points
MOST_BUBBLE_CLIENTS, MOST_BUBBLE_CLASSES = 40, 20
MOST_COLUMN_CLIENTS = 24  # more need both columns of a page
TALLEST = 4.2  # inches, axes
BARS = 0.3  # inches: height of the sizes above the classes
UNEQUAL = 1.1  # the largest size over the smallest from which sizes are drawn


def partition(tables: RunTables) -> Figure:
    """Clients x classes, area (or shade, where there are many) by number of training samples.

    Sizes stand above as bars if they differ, planted groups below as patterns if there are any.
    """
    with paper_style():
        counts = tables.train_counts
        n, y = counts.shape
        width = COLUMN if n <= MOST_COLUMN_CLIENTS else PAGE
        column = (width - _margin(tables)) * POINTS_PER_INCH / max(n, 1)  # points a client
        row = min(max(9.0, min(column, 13.0)), TALLEST * POINTS_PER_INCH / max(y, 1))
        tall = row * max(y, 4) / POINTS_PER_INCH
        names = _client_names(tables, column)
        extra = max((text_width(name, TICK_SIZE) for name in names), default=0.0) / POINTS_PER_INCH
        uneven = _uneven(counts)
        figure = new_figure(tables, width, tall + 0.9 + max(extra, 0.1) + (BARS + 0.05) * uneven)
        ax, top = _panels(figure, tall, uneven)
        if not counts.any():
            note(ax, "no training samples")
            return settle(figure)
        _axes(ax, tables, row)
        _client_ticks(ax, tables, column, names)
        if _crowded(counts):
            _shades([ax] if top is ax else [ax, top], counts)
        else:
            _bubbles(ax, tables, 0.94 * min(column, row))
        if top is not ax:
            _sizes(top, counts)
        if len(final_blocks(tables)) > 1:
            for panel in dict.fromkeys((ax, top)):
                separate_clusters(panel, tables, "x")
            strip_clusters(top, tables, "top")
            name_clusters(top, tables, "top")
        if tables.groups is not None:
            strip_groups(ax, [tables.groups[i] for i in tables.order], not names, "bottom")
        return settle(figure)


def _panels(figure: Figure, tall: float, uneven: bool) -> tuple[Axes, Axes]:
    """The axes of the classes, and those on top: a low panel for sizes if they differ."""
    if not uneven:
        ax = figure.subplots()
        return ax, ax
    grid = figure.add_gridspec(2, 1, height_ratios=(BARS, tall))
    ax = figure.add_subplot(grid[1])
    return ax, figure.add_subplot(grid[0], sharex=ax)


def _crowded(counts: FloatArray) -> bool:
    """Whether bubbles would be too small to be told apart."""
    n, y = counts.shape
    return bool(n > MOST_BUBBLE_CLIENTS or y > MOST_BUBBLE_CLASSES)


def _uneven(counts: FloatArray) -> bool:
    sizes = counts.sum(axis=1)
    return bool(sizes.max() > UNEQUAL * sizes.min()) if counts.any() else False


def _margin(tables: RunTables) -> float:
    """Inches beside the axes: class names, their axis label, and padding."""
    longest = max((text_width(name, TICK_SIZE) for name in _class_names(tables)), default=0.0)
    return longest / POINTS_PER_INCH + 0.35


def _class_names(tables: RunTables) -> list[str]:
    return [shortened(name) for name in tables.class_names]


def _axes(ax: Axes, tables: RunTables, row: float) -> None:
    """Clients left to right, classes top to bottom; `row` is points per class."""
    n, y = tables.train_counts.shape
    ax.set(xlim=(-0.5, n - 0.5), ylim=(y - 0.5, -0.5))
    ax.tick_params(length=0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    step = math.ceil((TICK_SIZE + 1) / row)
    ax.set_yticks(range(0, y, step), _class_names(tables)[::step])
    what = "interval of the target" if tables.score is MAE else "class"
    ax.set_ylabel(what if step == 1 else f"{what} (one in {step} named)")


def _client_names(tables: RunTables, column: float) -> list[str]:
    """Names for the ticks, in the order of the figures; none where there is no room for them."""
    room = len(tables.order) <= MOST_BUBBLE_CLIENTS or column > TICK_SIZE + 1
    return [shortened(tables.client_names[i]) for i in tables.order] if room else []


def _client_ticks(ax: Axes, tables: RunTables, column: float, names: list[str]) -> None:
    n, one = len(tables.order), len(final_blocks(tables)) == 1
    what = "client" if tables.sites is None else "site"
    sorts = [] if one else ["final cluster"]
    if tables.groups is not None:
        sorts.append("planted group (patterns)")
        ax.tick_params(axis="x", pad=GROUP_STRIP + STRIP + 2)
    lines = [f"{what}, by {' and '.join(sorts)}" if sorts else what]
    if tables.later_counts.any() and _crowded(tables.train_counts):
        moved = int((tables.later_counts.sum(axis=1) > 0).sum())
        lines.append(f"{what}s that hold other samples from round {tables.drift_round} on: {moved}")
    ax.set_xlabel("\n".join(lines))
    if names:
        tight = max(text_width(name, TICK_SIZE) for name in names) + 1 > column
        ax.set_xticks(range(n), names, rotation=90 if tight else 0)
    elif one and tables.order == list(range(n)):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.set_xticks([])
        if tables.groups is not None:  # room for the names of the groups
            ax.xaxis.labelpad = GROUP_STRIP + STRIP + TICK_SIZE + 4


def _sizes(ax: Axes, counts: FloatArray) -> None:
    """The number of training samples of each client, as bars."""
    sizes = counts.sum(axis=1)
    edges = np.arange(len(sizes) + 1) - 0.5
    ax.stairs(sizes, edges, fill=True, color="0.6", lw=0, gid="sizes")
    if len(sizes) <= MOST_BUBBLE_CLIENTS:
        ax.vlines(edges, 0, sizes.max(), color="white", lw=0.5)
    ax.set_ylim(0, sizes.max())
    ax.set_yticks([sizes.max()], [f"{sizes.max():g}"])
    ax.set_ylabel("samples", rotation=0, ha="right", va="center")
    ax.tick_params(length=0)
    ax.tick_params(axis="x", labelbottom=False)


def _bubbles(ax: Axes, tables: RunTables, diameter: float) -> None:
    """Discs with area in proportion to counts; the largest is `diameter` points wide.

    What a drifting client holds later is a ring on the same scale.
    """
    counts, later = tables.train_counts, tables.later_counts
    most = max(counts.max(), later.max())
    area = diameter**2 / most  # points squared per sample
    kinds: dict[str, tuple[FloatArray, dict[str, Any]]] = {
        "bubbles": (counts, {"color": BLUE, "lw": 0})
    }
    if later.any():
        kinds["later"] = (later, {"facecolor": "none", "edgecolor": VERMILLION, "lw": 0.7})
    for gid, (held, look) in kinds.items():
        client, label = np.nonzero(held)
        ax.scatter(client, label, s=held[client, label] * area, gid=gid, **look)
    ax.grid(True)
    sizes = _round_sizes(float(most))
    discs = [
        Line2D([], [], ls="", marker="o", mew=0, color=BLUE, ms=math.sqrt(size * area))
        for size in sizes
    ]
    texts = [f"{size:g}" for size in sizes]
    if later.any():
        ring: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": VERMILLION}
        discs.append(Line2D([], [], mew=0.7, ms=TICK_SIZE, **ring))
        texts.append(f"from round {tables.drift_round} on")
    figure = ax.get_figure(root=True)
    if figure is not None:
        figure.legend(
            [Line2D([], [], ls=""), *discs],
            ["training samples:", *texts],
            loc="outside lower center",
            ncols=len(discs) + 1,
            handlelength=max(1.2, math.sqrt(max(sizes) * area) / TICK_SIZE),
        )


def _round_sizes(largest: float) -> list[float]:
    """Up to three sizes with one digit that is not zero: near the largest, a quarter, a 16th."""
    sizes = set()
    for value in (largest, largest / 4, largest / 16):
        digit = 10.0 ** math.floor(math.log10(value))
        sizes.add(math.floor(value / digit) * digit)
    return sorted(size for size in sizes if size >= 1)


def _shades(panels: list[Axes], counts: FloatArray) -> None:
    """A heat map of counts `[N, Y]` in the first panel; what a client lacks stays white."""
    ax = panels[0]
    image = ax.imshow(
        np.ma.masked_equal(counts.T, 0),
        aspect="auto",
        interpolation="none",
        cmap="YlGnBu",
        # A square root keeps the few samples of a rare class visible beside the many.
        norm=PowerNorm(0.5, vmin=0, vmax=counts.max()),
    )
    figure = ax.get_figure(root=True)
    if figure is not None:
        bar = figure.colorbar(
            image, ax=panels, pad=0.01, fraction=0.05, aspect=30, ticks=MaxNLocator(5)
        )
        bar.set_label("samples (white: none)")
        bar.outline.set_linewidth(0.6)
