"""Figure `similarity`: does what the server measures show what the clients hold?"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fedtsd.errors import RunFolderError
from fedtsd.report.marks import final_blocks, name_clusters, separate_clusters, strip_clusters
from fedtsd.report.style import COLUMN, new_figure, paper_style, settle
from fedtsd.report.tables import FloatArray, RunTables

PANELS = {
    "labels": "label laws\n(hidden from the server)",
    "outputs": "outputs on public data\n(measured by the server)",
}


def similarity(tables: RunTables) -> Figure:
    """Jensen-Shannon divergences between clients, ordered by final cluster, on one scale 0..1.

    Raises `RunFolderError` if the run folder has no `similarity.npz`.
    """
    if not tables.similarity:
        raise RunFolderError(f"{tables.folder}: similarity.npz is missing")
    with paper_style():
        names = [name for name in PANELS if name in tables.similarity]
        unknown = any(np.isnan(tables.similarity[name]).any() for name in names)
        clustered = len(final_blocks(tables)) > 1
        height = (1.82 if len(names) == 2 else 2.9) + 0.2 * clustered + 0.15 * unknown
        figure = new_figure(tables, COLUMN, height)
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for ax, name in zip(panels, names, strict=True):
            image = _panel(ax, tables, name)
        bar = figure.colorbar(image, cax=panels[-1].inset_axes((1.05, 0.0, 0.07, 1.0)))
        bar.set_label("JS divergence")
        if unknown:
            _explain_unknown(figure)
        if clustered:
            for ax in panels:
                strip_clusters(ax, tables, "top")
                name_clusters(ax, tables, "top")
        return settle(figure)


def ordered(tables: RunTables, name: str) -> FloatArray:
    """A similarity matrix `[N, N]` with rows and columns in the order of the figures."""
    return tables.similarity[name][np.ix_(tables.order, tables.order)]


def _panel(ax: Axes, tables: RunTables, name: str) -> AxesImage:
    # Cells without a value are transparent: the hatched ground shows through.
    ax.patch.set(facecolor="0.85", hatch="//////", edgecolor="0.55")
    matrix = np.ma.masked_invalid(ordered(tables, name))
    scale: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}
    image = ax.imshow(matrix, interpolation="none", **scale)
    ax.set_xlabel(PANELS[name])
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
    separate_clusters(ax, tables, "both")
    return image


def _explain_unknown(figure: Figure) -> None:
    figure.supxlabel("hatched grey: pair never measured", fontsize=6)
