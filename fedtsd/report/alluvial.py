"""Figure `alluvial`: how clusters part and join, and how many clients go which way.

Lengths are points, upwards down, so that a block keeps room for its name. Letters: `N` clients.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import Normal, Stroke

from fedtsd.report.layout import POINTS_PER_INCH
from fedtsd.report.marks import group_face
from fedtsd.report.style import (
    COLUMN,
    PAGE,
    cluster_colours,
    darker,
    new_figure,
    paper_style,
    settle,
)
from fedtsd.report.tables import RunTables
from fedtsd.report.timeline import NOBODY, IntArray, changes, timeline

LABEL_SIZE = 6.0
PITCH, GAP = 8.0, 3.0  # the least height of a named block with its room, and the space between two
BLOCK = 7.0  # width of a block
BESIDE = 36.0  # room for a name beside the last block
MOST_NAMED = 25  # blocks in a column with names
MOST_CHANGES = 7  # columns of a change; of more, those that moved most clients
NARROW = 5  # columns that fit one column of a paper


@dataclass(frozen=True)
class Column:
    """Where each client is, `values` [N] in the order of the figures, at a round or in truth."""

    title: str
    values: IntArray
    planted: bool = False

    def sizes(self) -> dict[int, int]:
        """Cluster -> clients, from top to bottom: by the mean place of its members."""
        places = {k: np.flatnonzero(self.values == k) for k in np.unique(self.values).tolist()}
        ranked = sorted(places, key=lambda k: (float(places[k].mean()), k))
        return {k: len(places[k]) for k in ranked}


@dataclass(frozen=True)
class Block:
    """One cluster in one column: its upper edge and height."""

    top: float
    height: float


def alluvial(tables: RunTables) -> Figure:
    """Clusters at each round of a change as blocks by number of clients, with flows between them.

    Planted groups, where there are any, stand at the right end.
    """
    with paper_style():
        columns, left_out = _columns(tables)
        n = len(tables.order)
        unit = min(max(6.0 * n, 100.0), 150.0) / n  # points a client
        stacks = [_stack(column, unit) for column in columns]
        total = max(_bottom(stack) for stack in stacks)
        stacks = [_centred(stack, total) for stack in stacks]
        width = COLUMN if len(columns) <= NARROW else PAGE
        figure = new_figure(tables, width, total / POINTS_PER_INCH + 0.65)
        ax = figure.subplots()
        step = (width * POINTS_PER_INCH - 20 - BESIDE) / max(len(columns) - 1, 1)
        _frame(ax, columns, total, step)
        ax.set_xlabel(_remark(tables, columns, left_out))
        for j, (column, stack) in enumerate(zip(columns, stacks, strict=True)):
            if j:
                _flows(ax, tables, columns, stacks, j, unit)
            _blocks(ax, tables, column, stack, j * step)
        return settle(figure)


def _columns(tables: RunTables) -> tuple[list[Column], int]:
    """The columns to draw, and how many rounds of a change were left out."""
    first, members = timeline(tables)
    begins = [begin for begin, _ in changes(members)][1:]
    moved = {b: int((members[:, b] != members[:, b - 1]).sum()) for b in begins}
    kept = sorted(sorted(begins, key=lambda b: (-moved[b], b))[:MOST_CHANGES])
    end = members.shape[1] - 1
    shown = [0, *kept] + ([end] if kept and kept[-1] != end else [])
    words = {0: "\n(start)"} | ({end: "\n(end)"} if end else {})
    columns = [Column(f"round {first + c}{words.get(c, '')}", members[:, c]) for c in shown]
    if tables.groups is not None:
        planted = np.array([tables.groups[client] for client in tables.order], dtype=np.int64)
        columns.append(Column("planted\ngroups", planted, planted=True))
    return columns, len(begins) - len(kept)


def _remark(tables: RunTables, columns: Sequence[Column], left_out: int) -> str:
    if left_out:
        return f"{left_out} more rounds with smaller changes are not shown"
    if sum(not column.planted for column in columns) > 1:
        return ""
    many = len(tables.cluster_ids) > 1
    return "the clusters never changed" if many else "one cluster in every round"


def _stack(column: Column, unit: float) -> dict[int, Block]:
    """Blocks of one column from the top down; small ones stand in the middle of their room."""
    sizes = column.sizes()
    named = len(sizes) <= MOST_NAMED
    blocks, y = {}, 0.0
    for cluster, size in sizes.items():
        height = size * unit
        room = max(height, PITCH) if named else height
        blocks[cluster] = Block(y + (room - height) / 2, height)
        y += room + (GAP if named else 0.5)
    return blocks


def _bottom(stack: dict[int, Block]) -> float:
    last = list(stack.values())[-1]
    return last.top + last.height + max(PITCH - last.height, 0) / 2


def _centred(stack: dict[int, Block], total: float) -> dict[int, Block]:
    shift = (total - _bottom(stack)) / 2
    return {k: Block(block.top + shift, block.height) for k, block in stack.items()}


def _frame(ax: Axes, columns: Sequence[Column], total: float, step: float) -> None:
    last = (len(columns) - 1) * step
    margin = BLOCK if last else 2 * BESIDE  # one block alone stands in the middle
    ax.set(xlim=(-margin, last + max(margin, BLOCK + BESIDE)), ylim=(total + 1, -1), yticks=[])
    ax.set_xticks([j * step for j in range(len(columns))], [c.title for c in columns])
    ax.tick_params(axis="x", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _blocks(ax: Axes, tables: RunTables, column: Column, stack: dict[int, Block], x: float) -> None:
    sizes = column.sizes()
    for cluster, block in stack.items():
        ax.add_patch(
            Rectangle(
                (x - BLOCK / 2, block.top),
                BLOCK,
                block.height,
                lw=0.4,
                zorder=3,
                gid=f"{'planted' if column.planted else 'block'} {cluster}",
                **_face(tables, column, cluster),
            )
        )
        if len(stack) <= MOST_NAMED:
            name = "absent" if cluster == NOBODY else f"{'CG'[column.planted]}{cluster}"
            ax.text(
                x + BLOCK / 2 + 2,
                block.top + block.height / 2,
                f"{name} ({sizes[cluster]})",
                fontsize=LABEL_SIZE,
                va="center_baseline",
                zorder=4,
                path_effects=[Stroke(linewidth=1.8, foreground="white"), Normal()],
                gid="name",
            )


def _face(tables: RunTables, column: Column, cluster: int) -> dict[str, Any]:
    """How a block is filled: as the cluster everywhere, or hatched as a planted group."""
    if column.planted:
        return group_face(cluster)
    if cluster == NOBODY:
        return {"facecolor": "white", "edgecolor": "black", "linestyle": "--"}
    return {"facecolor": cluster_colours(tables)[cluster], "edgecolor": "black"}


def _flows(
    ax: Axes,
    tables: RunTables,
    columns: Sequence[Column],
    stacks: Sequence[dict[int, Block]],
    right: int,
    unit: float,
) -> None:
    """Ribbons from one column to the next, as wide as the clients that go that way are many."""
    was, now = columns[right - 1], columns[right]
    pairs = Counter(zip(was.values.tolist(), now.values.tolist(), strict=True))
    leaving = {k: block.top for k, block in stacks[right - 1].items()}
    coming = {k: block.top for k, block in stacks[right].items()}
    begin, end = (ax.get_xticks()[j] for j in (right - 1, right))
    for a in stacks[right - 1]:
        for b in stacks[right]:
            width = pairs[a, b] * unit
            if not width:
                continue
            colour = cluster_colours(tables).get(a if now.planted else b, "#FFFFFF")
            path = _ribbon(begin + BLOCK / 2, leaving[a], end - BLOCK / 2, coming[b], width)
            ax.add_patch(
                PathPatch(
                    path, fc=colour, ec=darker(colour), lw=0.3, alpha=0.45, gid=f"flow {a} {b}"
                )
            )
            leaving[a] += width
            coming[b] += width


def _ribbon(x0: float, y0: float, x1: float, y1: float, width: float) -> Path:
    """A band of constant height from (x0, y0) to (x1, y1), its upper corners."""
    middle = (x0 + x1) / 2
    there = [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
    back = [(x, y + width) for x, y in reversed(there)]
    curve = [Path.CURVE4] * 3
    codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
    return Path([*there, *back, there[0]], codes)
