"""Marks that several figures share: where clusters begin and end, and notes in empty panels."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import Transform, offset_copy

from fedtsd.report.layout import axes_points, blocks, spread, text_width
from fedtsd.report.style import cluster_colours
from fedtsd.report.tables import RunTables

Side = Literal["top", "right"]
LABEL_SIZE = 6.0  # points
STRIP = 2.5  # points: thickness of the coloured strip, and its distance from the axes


def final_blocks(tables: RunTables) -> list[tuple[int, int, int]]:
    """Final clusters as (cluster, first place, last place + 1) in the order of the clients."""
    return list(blocks([int(cluster) for cluster in tables.final_clusters]))


def separate_clusters(ax: Axes, tables: RunTables, axis: Literal["x", "y", "both"]) -> None:
    """Draw a line between neighbouring clusters; clients stand at 0, 1, ... on `axis`."""
    # The white rim keeps a line visible on dark cells.
    effects = [Stroke(linewidth=1.0, foreground="white"), Normal()]
    for _, _, stop in final_blocks(tables)[:-1]:
        if axis in ("x", "both"):
            ax.axvline(stop - 0.5, color="black", lw=0.4, path_effects=effects, gid="separator")
        if axis in ("y", "both"):
            ax.axhline(stop - 0.5, color="black", lw=0.4, path_effects=effects, gid="separator")


def strip_clusters(ax: Axes, tables: RunTables, side: Side) -> None:
    """Lay a strip in the clusters' colours along one side of the axes."""
    colours = cluster_colours(tables)
    transform = _beside(ax, side, STRIP)
    for cluster, start, stop in final_blocks(tables):
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
    names = final_blocks(tables)
    n = len(tables.order)
    length = axes_points(ax)[0 if side == "top" else 1]
    wide = max(text_width(f"C{k}", LABEL_SIZE) for k, _, _ in names) + 1.5
    upright = side == "top" and wide * len(names) > length
    need = wide if side == "top" and not upright else LABEL_SIZE + 1.5
    gap = need * n / length
    names = _largest(names, int(n / gap))
    places = spread([(a + b - 1) / 2 for _, a, b in names], gap, -0.5 + gap / 2, n - 0.5 - gap / 2)
    transform = _beside(ax, side, away)
    for (cluster, _, _), place in zip(names, places, strict=True):
        x, y = (place, 1.0) if side == "top" else (1.0, place)
        ax.text(
            x,
            y,
            f"C{cluster}",
            fontsize=LABEL_SIZE,
            rotation=90 if upright else 0,
            ha="center" if side == "top" else "left",
            va="bottom" if side == "top" else "center_baseline",
            transform=transform,
            gid="cluster",
        )


def _largest(names: list[tuple[int, int, int]], room: int) -> list[tuple[int, int, int]]:
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
