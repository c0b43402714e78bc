from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedtsd.errors import RunFolderError
from fedtsd.report.figures import draw
from fedtsd.report.similarity import similarity
from fedtsd.report.tables import RunTables
from tests.report.drawn import group, words

Page = Callable[[str, str], Figure]


@pytest.mark.parametrize(("panel", "name"), [(0, "labels"), (1, "outputs")])
def test_matrices_stand_in_the_order_of_the_clusters(
    tables: dict[str, RunTables], page: Page, panel: int, name: str
) -> None:
    run = tables["typical"]
    (image,) = page("similarity", "typical").axes[panel].images
    shown = np.ma.asarray(image.get_array())
    for row, i in enumerate(run.order):
        for column, j in enumerate(run.order):
            value = run.similarity[name][i, j]
            if np.isnan(value):
                assert np.ma.getmaskarray(shown)[row, column]
            else:
                assert shown[row, column] == value
    assert image.get_clim() == (0, 1)
    assert image.cmap.name == "viridis"


def test_cells_without_a_value_show_the_hatched_ground(page: Page) -> None:
    figure = page("similarity", "typical")
    (image,) = figure.axes[1].images
    colours = image.to_rgba(image.get_array())
    hidden = np.ma.getmaskarray(image.get_array())
    assert hidden.any()
    assert (colours[hidden][:, 3] == 0).all()
    assert (colours[~hidden][:, 3] == 1).all()
    assert figure.axes[1].patch.get_hatch()
    assert "hatched grey: pair never measured" in words(figure)


def test_a_full_matrix_needs_no_note(page: Page) -> None:
    assert "hatched grey: pair never measured" not in words(page("similarity", "ten"))


def test_boundaries_are_drawn_both_ways_in_both_panels(page: Page) -> None:
    figure = page("similarity", "typical")
    lines = group(figure, "separator")
    across = [line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1]
    down = [line.get_ydata()[0] for line in lines if len(set(line.get_ydata())) == 1]
    assert across == down == [4.5, 9.5, 14.5] * 2


def test_only_label_laws_where_nothing_was_measured(page: Page) -> None:
    shown = words(page("similarity", "fedavg"))
    assert "label laws\n(hidden from the server)" in shown
    assert not any(word.startswith("outputs") for word in shown)


def test_twelve_clusters_are_all_named(page: Page) -> None:
    names = [text.get_text() for text in group(page("similarity", "twelve_clusters"), "cluster")]
    assert names == [f"C{k}" for k in range(3, 15)] * 2


def test_without_matrices_the_figure_is_refused_and_left_out(
    tables: dict[str, RunTables], copy: Callable[[str], Path]
) -> None:
    with pytest.raises(RunFolderError, match=r"similarity\.npz is missing"):
        similarity(replace(tables["ten"], similarity={}))
    folder = copy("one_client")
    (folder / "similarity.npz").unlink()
    assert {path.stem for path in draw(folder)} == {"accuracy", "partition", "clusters"}
    with pytest.raises(RunFolderError, match=r"similarity\.npz is missing"):
        draw(folder, ["similarity"])
