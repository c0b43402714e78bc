"""Figures `similarity` and `similarity_change`: what the server measures of its clients' likeness.

Does it show what the clients hold, and what do clusters and personal layers make of it?
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fedtsd.errors import RunFolderError
from fedtsd.report.marks import (
    final_blocks,
    name_clusters,
    separate_clusters,
    strip_clusters,
    strip_groups,
)
from fedtsd.report.style import COLUMN, PAGE, new_figure, paper_style, settle
from fedtsd.report.tables import FloatArray, RunTables

PANELS = {
    "labels": "label laws\n(hidden from the server)",
    "outputs": "outputs on public data\n(measured by the server)",
    "outputs_before": "before: one model\nfor everybody",
    "outputs_after": "after: last round, with\npersonal layers",
}
UNKNOWN = "hatched grey: pair never measured"
MOST_SINGLE_CLIENTS = 40  # of more, planted groups in the order of ids make no visible pattern
MOST_CELLS = 400  # a side; of more clients, blocks of cells are averaged


def similarity(tables: RunTables) -> Figure:
    """Jensen-Shannon divergences between clients, ordered by final cluster, on one scale 0..1.

    Planted groups stand beside the rows. Raises `RunFolderError` if the run folder has no
    `similarity.npz`.
    """
    if not tables.similarity:
        raise RunFolderError(f"{tables.folder}: similarity.npz is missing")
    with paper_style():
        names = [name for name in ("labels", "outputs") if name in tables.similarity]
        unknown = any(np.isnan(tables.similarity[name]).any() for name in names)
        clustered, planted = len(final_blocks(tables)) > 1, tables.groups is not None
        height = (1.82 if len(names) == 2 else 2.9) + 0.2 * clustered + 0.15 * (unknown + planted)
        figure = new_figure(tables, COLUMN, height)
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for ax, name in zip(panels, names, strict=True):
            image = _panel(ax, tables, name)
        _colour_bar(figure, panels[-1], image, away=1.12 if planted else 1.05)
        remarks = ["patterns: planted groups"] * planted + [UNKNOWN] * unknown
        figure.supxlabel("\n".join(remarks), fontsize=6)
        for ax in panels:
            _strips(ax, tables, by_id=False, name=False)
        return settle(figure)


def similarity_change(tables: RunTables) -> Figure:
    """Divergence of the clients' outputs before and after clustering, clusters and truth beside it.

    First by client id as the server meets them, then by final cluster. The truth is the planted
    group of each client, with the adjusted Rand index of the clusters (Hubert and Arabie 1985);
    where no groups were planted, the label laws. Raises `RunFolderError` if the run folder has no
    `similarity.npz`.
    """
    if not tables.similarity:
        raise RunFolderError(f"{tables.folder}: similarity.npz is missing")
    with paper_style():
        shown = _change_panels(tables)
        width = PAGE if len(shown) > 2 else COLUMN
        remarks = _remarks(tables, [name for name, _ in shown])
        side = (width - 0.75) / len(shown) - 0.2 * (tables.groups is not None)
        figure = new_figure(tables, width, min(side, 2.4) + 0.65 + 0.14 * len(remarks))
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, (name, by_id) in zip(panels, shown, strict=True):
            image = _panel(ax, tables, name, by_id)
            order = "client id" if by_id else _order(tables)
            ax.set_xlabel(f"{PANELS[name]}\nordered by {order}")
        _colour_bar(figure, panels[-1], image, away=1.05 if tables.groups is None else 1.2)
        figure.supxlabel("\n".join(remarks), fontsize=6)
        for ax, (_, by_id) in zip(panels, shown, strict=True):
            _strips(ax, tables, by_id)
        return settle(figure)


def _change_panels(tables: RunTables) -> list[tuple[str, bool]]:
    """Matrices to show, and whether by client id: alone where there is no other order."""
    wanted = [("outputs_before", True), ("outputs_before", False), ("outputs_after", False)]
    shown = [panel for panel in wanted if panel[0] in tables.similarity]
    if tables.groups is None or not shown:
        shown.append(("labels", False))
    if len(final_blocks(tables)) == 1 and tables.groups is None:
        shown = list(dict.fromkeys((name, True) for name, _ in shown))
    return shown


def _order(tables: RunTables) -> str:
    """What clients are ordered by; those of one cluster by what was planted."""
    return "final cluster" if len(final_blocks(tables)) > 1 else "planted group"


def _strips(ax: Axes, tables: RunTables, by_id: bool, name: bool = True) -> None:
    """Clusters on top and planted groups on the right (`name` them), in the order of the panel."""
    order = sorted(tables.order) if by_id else tables.order
    if len(final_blocks(tables)) > 1:
        strip_clusters(ax, tables, "top", order)
        if not by_id:
            separate_clusters(ax, tables, "both")
            name_clusters(ax, tables, "top")
    if tables.groups is not None and (not by_id or len(order) <= MOST_SINGLE_CLIENTS):
        strip_groups(ax, [tables.groups[client] for client in order], name=name and not by_id)


def _remarks(tables: RunTables, names: list[str]) -> list[str]:
    """Lines below the panels."""
    lines = []
    if tables.groups is not None:
        from sklearn.metrics import adjusted_rand_score  # lazily: a second to import

        final = tables.final_clusters
        index = adjusted_rand_score([tables.groups[client] for client in final.index], final)
        lines.append(f"patterns: planted groups; adjusted Rand index of the clusters {index:.2f}")
    if any(np.isnan(tables.similarity[name]).any() for name in names):
        lines.append(UNKNOWN)
    return lines


def ordered(tables: RunTables, name: str, by_id: bool = False) -> FloatArray:
    """A similarity matrix `[N, N]` with rows and columns in the order of the figures, or by id."""
    order = sorted(tables.order) if by_id else tables.order
    return tables.similarity[name][np.ix_(order, order)]


def coarser(matrix: FloatArray) -> FloatArray:
    """The matrix `[N, N]` with at most MOST_CELLS a side: means of what is known in blocks."""
    edges = np.linspace(0, len(matrix), min(len(matrix), MOST_CELLS) + 1).astype(int)[:-1]
    if len(edges) == len(matrix):
        return matrix
    known = ~np.isnan(matrix)

    def blocks(values: FloatArray) -> FloatArray:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, edges, 0), edges, 1))

    counts = blocks(known.astype(np.float64))
    sums = blocks(np.where(known, matrix, 0.0))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _panel(ax: Axes, tables: RunTables, name: str, by_id: bool = False) -> AxesImage:
    # Cells without a value are transparent: the hatched ground shows through.
    ax.patch.set(facecolor="0.85", hatch="//////", edgecolor="0.55")
    matrix = ordered(tables, name, by_id)
    n = len(matrix)
    scale: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}
    image = ax.imshow(
        np.ma.masked_invalid(coarser(matrix)),
        interpolation="none",
        extent=(-0.5, n - 0.5, n - 0.5, -0.5),
        **scale,
    )
    ax.set_xlabel(PANELS[name])
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
    return image


def _colour_bar(figure: Figure, ax: Axes, image: AxesImage, away: float = 1.05) -> None:
    bar = figure.colorbar(image, cax=ax.inset_axes((away, 0.0, 0.07, 1.0)))
    bar.set_label("JS divergence")
