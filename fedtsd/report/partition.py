"""Figure `partition`: who holds how many training samples of which class.

Letters: `N` clients, `Y` classes.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedtsd.report.layout import POINTS_PER_INCH, text_width
from fedtsd.report.marks import final_blocks, name_clusters, note, separate_clusters, strip_clusters
from fedtsd.report.style import BLUE, COLUMN, PAGE, new_figure, paper_style, settle
from fedtsd.report.tables import FloatArray, RunTables

TICK_SIZE = 6.0  # points
MOST_BUBBLE_CLIENTS, MOST_BUBBLE_CLASSES = 40, 20
MOST_COLUMN_CLIENTS = 24  # more need both columns of a page
TALLEST = 4.2  # inches, axes


def partition(tables: RunTables) -> Figure:
    """Clients x classes, area (or shade, where there are many) by number of training samples."""
    with paper_style():
        counts = tables.train_counts
        n, y = counts.shape
        width = COLUMN if n <= MOST_COLUMN_CLIENTS else PAGE
        column = (width - _margin(tables)) * POINTS_PER_INCH / max(n, 1)  # points a client
        row = min(max(9.0, min(column, 13.0)), TALLEST * POINTS_PER_INCH / max(y, 1))
        figure = new_figure(tables, width, row * max(y, 4) / POINTS_PER_INCH + 1.0)
        ax = figure.subplots()
        if not counts.any():
            note(ax, "no training samples")
            return settle(figure)
        _axes(ax, tables, column, row)
        if n > MOST_BUBBLE_CLIENTS or y > MOST_BUBBLE_CLASSES:
            _shades(ax, counts)
        else:
            _bubbles(ax, counts, 0.94 * min(column, row))
        if len(final_blocks(tables)) > 1:
            separate_clusters(ax, tables, "x")
            strip_clusters(ax, tables, "top")
            name_clusters(ax, tables, "top")
        return settle(figure)


def _margin(tables: RunTables) -> float:
    """Inches beside the axes: class names, their axis label, and padding."""
    longest = max((text_width(name, TICK_SIZE) for name in tables.class_names), default=0.0)
    return longest / POINTS_PER_INCH + 0.35


def _axes(ax: Axes, tables: RunTables, column: float, row: float) -> None:
    """Clients left to right, classes top to bottom; `column` and `row` are points per cell."""
    n, y = tables.train_counts.shape
    ax.set(xlim=(-0.5, n - 0.5), ylim=(y - 0.5, -0.5))
    ax.tick_params(length=0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    step = math.ceil((TICK_SIZE + 1) / row)
    ax.set_yticks(range(0, y, step), tables.class_names[::step])
    ax.set_ylabel("class" if step == 1 else f"class (one in {step} named)")
    _client_ticks(ax, tables, column)


def _client_ticks(ax: Axes, tables: RunTables, column: float) -> None:
    ids = [str(client) for client in tables.order]
    one = len(final_blocks(tables)) == 1
    ax.set_xlabel("client" if one else "client, by final cluster")
    if len(ids) <= MOST_BUBBLE_CLIENTS:
        tight = max(text_width(name, TICK_SIZE) for name in ids) + 1 > column
        ax.set_xticks(range(len(ids)), ids, rotation=90 if tight else 0)
    elif one and tables.order == list(range(len(ids))):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.set_xticks([])


def _bubbles(ax: Axes, counts: FloatArray, diameter: float) -> None:
    """Discs with area in proportion to counts `[N, Y]`; the largest is `diameter` points wide."""
    client, label = np.nonzero(counts)
    held = counts[client, label]
    area = diameter**2 / held.max()  # points squared per sample
    ax.scatter(client, label, s=held * area, color=BLUE, lw=0, gid="bubbles")
    ax.grid(True)
    sizes = _round_sizes(float(held.max()))
    discs = [
        Line2D([], [], ls="", marker="o", mew=0, color=BLUE, ms=math.sqrt(size * area))
        for size in sizes
    ]
    figure = ax.get_figure(root=True)
    if figure is not None:
        figure.legend(
            [Line2D([], [], ls=""), *discs],
            ["training samples:", *(f"{size:g}" for size in sizes)],
            loc="outside lower center",
            ncols=len(sizes) + 1,
            handlelength=max(1.2, math.sqrt(max(sizes) * area) / TICK_SIZE),
        )


def _round_sizes(largest: float) -> list[float]:
    """Up to three sizes with one digit that is not zero: near the largest, a quarter, a 16th."""
    sizes = set()
    for value in (largest, largest / 4, largest / 16):
        digit = 10.0 ** math.floor(math.log10(value))
        sizes.add(math.floor(value / digit) * digit)
    return sorted(size for size in sizes if size >= 1)


def _shades(ax: Axes, counts: FloatArray) -> None:
    """A heat map of counts `[N, Y]`; what a client lacks stays white."""
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
            image, ax=ax, pad=0.01, fraction=0.05, aspect=30, ticks=MaxNLocator(5)
        )
        bar.set_label("samples (white: none)")
        bar.outline.set_linewidth(0.6)
