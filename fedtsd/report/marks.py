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

Side = Literal["top", "right"]
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


def strip_groups(ax: Axes, groups: Sequence[int], name: bool) -> None:
    """Lay a strip of the planted groups along the right side; `name` them where there is room."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure")
    points = Affine2D().scale(1 / POINTS_PER_INCH) + figure.dpi_scale_trans
    from_edge = points + ScaledTranslation(1.0, 0.0, cast(Affine2DBase, ax.transAxes))
    transform = blended_transform_factory(from_edge, ax.transData)
    found = list(blocks(groups))
    for group, start, stop in found:
        corner, height = (STRIP, start - 0.5), stop - start
        ax.add_patch(
            Rectangle(
                corner,
                GROUP_STRIP,
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
        _name(ax, named, len(groups), "right", GROUP_STRIP + 2 * STRIP, "group")


def _name(
    ax: Axes, named: list[tuple[str, int, int]], n: int, side: Side, away: float, gid: str
) -> None:
    """Write a name beside each block of the `n` places along one side."""
    length = axes_points(ax)[0 if side == "top" else 1]
    wide = max(text_width(name, LABEL_SIZE) for name, _, _ in named) + 1.5
    upright = side == "top" and wide * len(named) > length
    need = wide if side == "top" and not upright else LABEL_SIZE + 1.5
    gap = need * n / length
    named = _largest(named, int(n / gap))
    places = spread([(a + b - 1) / 2 for _, a, b in named], gap, -0.5 + gap / 2, n - 0.5 - gap / 2)
    transform = _beside(ax, side, away)
    for (name, _, _), place in zip(named, places, strict=True):
        x, y = (place, 1.0) if side == "top" else (1.0, place)
        ax.text(
            x,
            y,
            name,
            fontsize=LABEL_SIZE,
            rotation=90 if upright else 0,
            ha="center" if side == "top" else "left",
            va="bottom" if side == "top" else "center_baseline",
            transform=transform,
            gid=gid,
        )


def _largest(names: list[tuple[str, int, int]], room: int) -> list[tuple[str, int, int]]:
    kept = sorted(names, key=lambda block: block[1] - block[2])[: max(room, 1)]
    return sorted(kept, key=lambda block: block[1])


def _beside(ax: Axes, side: Side, points: float) -> Transform:
    """Data units along one side of the axes, `points` outside it."""
    figure = ax.get_figure(root=True)
    if side == "top":
        return offset_copy(ax.get_xaxis_transform(), fig=figure, y=points, units="points")
    return offset_copy(ax.get_yaxis_transform(), fig=figure, x=points, units="points")


def note(ax: Axes, text: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.35")


def group_face(group: int) -> dict[str, Any]:
    """How a planted group is filled, unlike any cluster: white or grey with a pattern."""
    again = group // len(HATCHES) % 2  # after ten patterns the ground turns grey
    return {
        "facecolor": "0.8" if again else "white",
        "edgecolor": "black",
        "hatch": HATCHES[group % len(HATCHES)],
    }
