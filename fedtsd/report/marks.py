"""Marks that several figures share: where clusters begin and end, and notes in empty panels."""

from collections.abc import Sequence
from typing import Any, Literal, cast

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import (
    Affine2D,
    Affine2DBase,
    ScaledTranslation,
    Transform,
    blended_transform_factory,
    offset_copy,
)

from fedtsd.report.layout import POINTS_PER_INCH, axes_points, blocks, spread, text_width
from fedtsd.report.style import cluster_colours
from fedtsd.report.tables import RunTables

Side = Literal["top", "right", "bottom"]
LABEL_SIZE = 6.0  # points
STRIP = 2.5  # points: thickness of the coloured strip, and its distance from the axes
GROUP_STRIP = 6.0  # points: wide enough to show a pattern
HATCHES = ("", "/////", ".....", "xxxxx", "-----", "\\\\\\\\\\", "ooooo", "|||||", "+++++", "*****")


Blocks = list[tuple[int, int, int]]  # (value, first place, last place + 1)


def final_blocks(tables: RunTables, order: Sequence[int] | None = None) -> Blocks:
    """Final clusters as blocks, the clients in `order`; by default that of the figures."""
    final = tables.final_clusters
    return list(blocks([int(final[client]) for client in order or tables.order]))


def separate_clusters(ax: Axes, tables: RunTables, axis: Literal["x", "y", "both"]) -> None:
    """Draw a line between neighbouring clusters; clients stand at 0, 1, ... on `axis`."""
    # The white rim keeps a line visible on dark cells.
    effects = [Stroke(linewidth=1.0, foreground="white"), Normal()]
    for _, _, stop in final_blocks(tables)[:-1]:
        if axis in ("x", "both"):
            ax.axvline(stop - 0.5, color="black", lw=0.4, path_effects=effects, gid="separator")
        if axis in ("y", "both"):
            ax.axhline(stop - 0.5, color="black", lw=0.4, path_effects=effects, gid="separator")


def strip_clusters(
    ax: Axes, tables: RunTables, side: Side, order: Sequence[int] | None = None
) -> None:
    """Lay a strip in the clusters' colours along one side of the axes, the clients in `order`."""
    colours = cluster_colours(tables)
    transform = _beside(ax, side, STRIP)
    for cluster, start, stop in final_blocks(tables, order):
        along, across = (start - 0.5, stop - 0.5), (1.0, 1.0)
        xs, ys = (along, across) if side == "top" else (across, along)
        ax.plot(
            xs,
            ys,
            color=colours[cluster],
            lw=STRIP,
            solid_capstyle="butt",
            transform=transform,
            clip_on=False,
            scalex=False,
            scaley=False,
            gid="strip",
        )


def name_clusters(ax: Axes, tables: RunTables, side: Side, away: float = 2 * STRIP) -> None:
    """Write final cluster ids along one side, `away` points from the axes, none over another.

    Names along the top stand upright where they have no room to lie. Where there is no room at all,
    the smallest clusters go without.
    """
    named = [(f"C{cluster}", a, b) for cluster, a, b in final_blocks(tables)]
    _name(ax, named, len(tables.order), side, away, "cluster")


def strip_groups(
    ax: Axes, groups: Sequence[int], name: bool, side: Literal["right", "bottom"] = "right"
) -> None:
    """Lay a strip of the planted groups along one side; `name` them where there is room."""
    transform = _from_edge(ax, side)
    found = list(blocks(groups))
    for group, start, stop in found:
        across, along = (STRIP, GROUP_STRIP), (start - 0.5, stop - start)  # (from, length)
        if side == "bottom":
            across = (-STRIP - GROUP_STRIP, GROUP_STRIP)
        (x, width), (y, height) = (across, along) if side == "right" else (along, across)
        ax.add_patch(
            Rectangle(
                (x, y),
                width,
                height,
                transform=transform,
                clip_on=False,
                lw=0.3,
                gid=f"planted {group}",
                **group_face(group),
            )
        )
    if name:
        named = [(f"G{group}", a, b) for group, a, b in found]
        _name(ax, named, len(groups), side, GROUP_STRIP + 2 * STRIP, "group")


def _from_edge(ax: Axes, side: Literal["right", "bottom"]) -> Transform:
    """Points across from one side of the axes, data units along it."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    points = Affine2D().scale(1 / POINTS_PER_INCH) + figure.dpi_scale_trans
    corner = (1.0, 0.0) if side == "right" else (0.0, 0.0)
    from_edge = points + ScaledTranslation(*corner, cast(Affine2DBase, ax.transAxes))
    if side == "right":
        return blended_transform_factory(from_edge, ax.transData)
    return blended_transform_factory(ax.transData, from_edge)


def _name(
    ax: Axes, named: list[tuple[str, int, int]], n: int, side: Side, away: float, gid: str
) -> None:
    """Write a name beside each block of the `n` places along one side."""
    along = side != "right"
    length = axes_points(ax)[0 if along else 1]
    wide = max(text_width(name, LABEL_SIZE) for name, _, _ in named) + 1.5
    upright = along and wide * len(named) > length
    need = wide if along and not upright else LABEL_SIZE + 1.5
    gap = need * n / length
    named = _largest(named, int(n / gap))
    places = spread([(a + b - 1) / 2 for _, a, b in named], gap, -0.5 + gap / 2, n - 0.5 - gap / 2)
    transform = _beside(ax, side, away)
    for (name, _, _), place in zip(named, places, strict=True):
        x, y = {"top": (place, 1.0), "bottom": (place, 0.0), "right": (1.0, place)}[side]
        ax.text(
            x,
            y,
            name,
            fontsize=LABEL_SIZE,
            rotation=90 if upright else 0,
            ha="center" if along else "left",
            va={"top": "bottom", "bottom": "top", "right": "center_baseline"}[side],
            transform=transform,
            gid=gid,
        )


def _largest(names: list[tuple[str, int, int]], room: int) -> list[tuple[str, int, int]]:
    kept = sorted(names, key=lambda block: block[1] - block[2])[: max(room, 1)]
    return sorted(kept, key=lambda block: block[1])


def _beside(ax: Axes, side: Side, points: float) -> Transform:
    """Data units along one side of the axes, `points` outside it."""
    figure = ax.get_figure(root=True)
    if side != "right":
        away = points if side == "top" else -points
        return offset_copy(ax.get_xaxis_transform(), fig=figure, y=away, units="points")
    return offset_copy(ax.get_yaxis_transform(), fig=figure, x=points, units="points")


def note(ax: Axes, text: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.35")


def drift_line(ax: Axes, at: int) -> None:
    """Mark the round from which the data are others; `at` is the first round that has them."""
    ax.axvline(at - 0.5, color="0.45", lw=0.8, ls=(0, (2, 1.5)), zorder=0.5, gid="drift")
    ax.annotate(
        "drift", (at - 0.5, 1.0), xycoords=ax.get_xaxis_transform(), xytext=(2, -1),
        textcoords="offset points", fontsize=LABEL_SIZE, color="0.35", va="top",
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def group_face(group: int) -> dict[str, Any]:
    """How a planted group is filled, unlike any cluster: white or grey with a pattern."""
    again = group // len(HATCHES) % 2  # after ten patterns the ground turns grey
    return {
        "facecolor": "0.8" if again else "white",
        "edgecolor": "black",
        "hatch": HATCHES[group % len(HATCHES)],
    }
