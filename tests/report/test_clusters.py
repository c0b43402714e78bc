from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fedtsd.report.clusters import clusters
from fedtsd.report.style import cluster_colours
from fedtsd.report.tables import RunTables
from tests.report.drawn import group, words

Page = Callable[[str, str], Figure]


def test_every_cell_has_the_colour_of_its_cluster(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    (image,) = page("clusters", "typical").axes[0].images
    pixels = np.asarray(image.get_array())
    colours = cluster_colours(run)
    assert pixels.shape == (20, 21, 3)
    for row in run.assignments.itertuples(index=False):
        expected = np.round(np.multiply(to_rgb(colours[row.cluster]), 255))
        assert (pixels[run.order.index(row.client), row.round] == expected).all()
    assert image.get_extent() == [-0.5, 20.5, 19.5, -0.5]


def test_a_client_without_a_row_is_white(tables: dict[str, RunTables]) -> None:
    run = tables["ten"]
    rows = run.assignments
    late = rows[~((rows["client"] == 4) & (rows["round"] < 3))]
    (image,) = clusters(replace(run, assignments=late)).axes[0].images
    pixels = np.asarray(image.get_array())
    assert (pixels[run.order.index(4), :3] == 255).all()
    assert not (pixels[run.order.index(4), 3] == 255).all()


def test_rows_are_named_and_so_is_every_cluster(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    figure = page("clusters", "typical")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [str(client) for client in run.order]
    names = [text.get_text() for text in group(figure, "cluster")]
    assert sorted(names) == [f"C{k}" for k in range(7)]


def points(figure: Figure, gid: str, filled: bool) -> set[tuple[int, float]]:
    return {
        (int(x), float(y))
        for line in group(figure, gid)
        if (line.get_markerfacecolor() != "white") is filled
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("filled", [True, False])
def test_markers_are_the_tests_and_filled_where_significant(
    tables: dict[str, RunTables], page: Page, stage: int, filled: bool
) -> None:
    run = tables["typical"]
    rows = run.clustering[run.clustering["stage"] == stage]
    rows = rows[(rows["hopkins_p"] < 0.05) == filled]
    assert len(rows) > 0
    expected = set(zip(rows["round"], rows["hopkins"], strict=True))
    assert points(page("clusters", "typical"), f"stage{stage}", filled) == expected


def test_the_two_stages_have_their_own_markers(page: Page) -> None:
    figure = page("clusters", "typical")
    markers = [{line.get_marker() for line in group(figure, f"stage{s}")} for s in (1, 2)]
    assert markers == [{"o"}, {"s"}]


def test_lines_stand_where_a_split_was_accepted(page: Page) -> None:
    figure = page("clusters", "typical")
    assert [line.get_xdata()[0] for line in group(figure, "split")] == [4, 5]


@pytest.mark.parametrize(("config", "level"), [({}, 0.75), ({"hopkins_threshold": 0.6}, 0.6)])
def test_the_threshold_is_the_one_of_the_config(
    tables: dict[str, RunTables], config: dict[str, float], level: float
) -> None:
    run = tables["typical"]
    run = replace(run, config={**run.config, "clustering": config})
    figure = clusters(run)
    (line,) = group(figure, "threshold")
    assert set(line.get_ydata()) == {level}
    assert f"threshold {level:g} (stage 2)" in words(figure)


def test_the_legend_explains_what_is_there_and_nothing_else(page: Page) -> None:
    shown = words(page("clusters", "typical"))
    for text in ("stage 1: outputs", "stage 2: updates", "filled: p < 0.05", "split accepted"):
        assert text in shown
    shown = words(page("clusters", "one_round"))
    assert "stage 1: outputs" in shown
    assert "stage 2: updates" not in shown
    assert "split accepted" not in shown


def test_both_panels_share_the_rounds(page: Page) -> None:
    top, bottom = page("clusters", "typical").axes
    assert top.get_xlim() == bottom.get_xlim() == (-0.5, 20.5)


def test_a_method_that_never_tests_has_one_panel_and_a_note(page: Page) -> None:
    figure = page("clusters", "fedavg")
    assert len(figure.axes) == 1
    assert "round\n(no clustering test in this run)" in words(figure)


def test_splits_without_a_hopkins_test_are_still_shown(copy: Callable[[str], Path]) -> None:
    folder = copy("typical")
    rows = pd.read_csv(folder / "clustering.csv")
    rows.assign(hopkins=np.nan, hopkins_p=np.nan).to_csv(folder / "clustering.csv", index=False)
    figure = clusters(RunTables.read(folder))
    assert "no Hopkins test in this run" in words(figure)
    assert [line.get_xdata()[0] for line in group(figure, "split")] == [4, 5]
    assert not group(figure, "stage1")


def test_rounds_are_whole_even_when_there_is_only_one(page: Page) -> None:
    ax = page("clusters", "just_started").axes[0]
    assert [tick for tick in ax.get_xticks() if -0.5 <= tick <= 0.5] == [0]
