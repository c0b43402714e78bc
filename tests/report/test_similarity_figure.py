from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedtsd.errors import RunFolderError
from fedtsd.report.figures import FIGURES, draw, save
from fedtsd.report.similarity import MOST_CELLS, coarser, similarity, similarity_change
from fedtsd.report.style import cluster_colours
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
    assert any("hatched grey: pair never measured" in word for word in words(figure))


def test_a_full_matrix_needs_no_note(page: Page) -> None:
    shown = words(page("similarity", "ten"))
    assert not any("hatched grey: pair never measured" in word for word in shown)


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
    assert {path.stem for path in draw(folder)} == set(FIGURES) - {
        "similarity",
        "similarity_change",
    }
    for name in ("similarity", "similarity_change"):
        with pytest.raises(RunFolderError, match=r"similarity\.npz is missing"):
            draw(folder, [name])


def shown(figure: Figure) -> list[tuple[str, np.ma.MaskedArray]]:
    """Caption and matrix of each panel."""
    return [(ax.get_xlabel(), ax.images[0].get_array()) for ax in figure.axes if ax.images]


def distinct(run: RunTables) -> RunTables:
    """The run with matrices that cannot be taken for one another."""
    outputs = run.similarity["outputs"]
    halves = {"outputs_before": outputs, "outputs_after": outputs / 2}
    return replace(run, similarity={**run.similarity, **halves})


def test_change_shows_before_by_id_and_by_cluster_and_after(tables: dict[str, RunTables]) -> None:
    run = distinct(tables["typical"])
    panels = shown(similarity_change(run))
    assert [caption.splitlines()[-1] for caption, _ in panels] == [
        "ordered by client id",
        "ordered by final cluster",
        "ordered by final cluster",
    ]
    assert [caption.partition(":")[0] for caption, _ in panels] == ["before", "before", "after"]
    grid = np.ix_(run.order, run.order)
    before, after = run.similarity["outputs_before"], run.similarity["outputs_after"]
    for (_, matrix), truth in zip(panels, (before, before[grid], after[grid]), strict=True):
        np.testing.assert_array_equal(np.ma.filled(matrix, np.nan), truth)


def test_label_laws_are_the_truth_where_no_groups_were_planted(
    tables: dict[str, RunTables],
) -> None:
    run = replace(tables["typical"], groups=None)
    caption, matrix = shown(similarity_change(run))[-1]
    assert caption.startswith("label laws\n(hidden from the server)")
    np.testing.assert_array_equal(matrix, run.similarity["labels"][np.ix_(run.order, run.order)])
    assert not any("Rand" in word for word in words(similarity_change(run)))


@pytest.mark.parametrize(
    ("groups", "index"),
    [(None, "1.00"), (tuple([0] * 20), "0.00")],  # as found; all planted together
)
def test_the_rand_index_is_told(
    tables: dict[str, RunTables], groups: tuple[int, ...] | None, index: str
) -> None:
    run = tables["typical"]
    figure = similarity_change(replace(run, groups=groups or run.groups))
    caption = f"patterns: planted groups; adjusted Rand index of the clusters {index}"
    assert any(caption in word for word in words(figure))


def test_planted_groups_stand_beside_each_row(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    assert run.groups is not None
    figure = page("similarity_change", "typical")
    for ax, order in zip(figure.axes, (range(20), run.order, run.order), strict=False):
        rows: dict[int, int] = {}
        for patch in ax.patches:
            for row in range(round(patch.get_height())):
                rows[round(patch.get_y() + 0.5) + row] = int(patch.get_gid().split()[1])
        assert [rows[row] for row in range(20)] == [run.groups[client] for client in order]
    assert {text.get_text() for text in group(figure, "group")} == {"G0", "G1", "G2", "G3"}


def test_clusters_are_coloured_in_the_order_of_each_panel(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    colours = cluster_colours(run)
    figure = page("similarity_change", "typical")
    for ax, order in zip(figure.axes, (range(20), run.order), strict=False):
        strip = [line for line in ax.lines if line.get_gid() == "strip"]
        for line in strip:
            low, high = line.get_xdata()
            for place in range(round(low + 0.5), round(high + 0.5)):
                assert line.get_color() == colours[run.final_clusters[order[place]]]
        assert sum(line.get_xdata()[1] - line.get_xdata()[0] for line in strip) == 20


def test_some_matrices_are_enough(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    only = {"labels": run.similarity["labels"], "outputs_after": run.similarity["outputs_after"]}
    (panel,) = shown(similarity_change(replace(run, similarity=only)))
    assert panel[0].startswith("after")
    (panel,) = shown(similarity_change(tables["fedavg"]))  # nothing measured, one cluster
    assert panel[0] == "label laws\n(hidden from the server)\nordered by client id"
    with pytest.raises(RunFolderError, match=r"similarity\.npz is missing"):
        similarity_change(replace(run, similarity={}))


def test_planted_groups_stand_beside_the_label_laws(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    assert run.groups is not None
    figure = page("similarity", "typical")
    for ax in figure.axes[:2]:
        shown: dict[int, int] = {}
        for patch in ax.patches:
            first = round(patch.get_y() + 0.5)
            rows = range(first, first + round(patch.get_height()))
            shown |= {row: int(patch.get_gid().split()[1]) for row in rows}
        assert [shown[row] for row in range(20)] == [run.groups[i] for i in run.order]
    assert any("patterns: planted groups" in word for word in words(figure))


def test_a_large_matrix_becomes_means_of_blocks() -> None:
    matrix = np.arange(1000.0 * 1000).reshape(1000, 1000)
    matrix[0, :3] = np.nan
    small = coarser(matrix)
    assert small.shape == (MOST_CELLS, MOST_CELLS)
    # Blocks are two or three cells wide: 1000 / 400.
    assert small[0, 0] == np.nanmean(matrix[:2, :2])
    assert small[-1, -1] == matrix[-3:, -3:].mean()
    assert np.isnan(coarser(np.full((1000, 1000), np.nan))).all()
    np.testing.assert_array_equal(coarser(matrix[:400, :400]), matrix[:400, :400])


def test_the_figure_of_a_thousand_clients_is_a_small_file(
    tables: dict[str, RunTables], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).random((1000, 1000))
    rows = pd.DataFrame({"round": 0, "client": range(1000), "cluster": 0})
    counts = pd.DataFrame({"client": range(1000), "split": "train", "label": 0, "count": 5})
    run = replace(
        tables["ten"],
        assignments=rows,
        partition=counts,
        groups=tuple(i % 4 for i in range(1000)),
        similarity={"labels": noise},
    )
    path, _ = save(similarity(run), tmp_path, "similarity")
    assert path.stat().st_size < 2_000_000


def test_one_cluster_is_ordered_by_planted_group(tables: dict[str, RunTables]) -> None:
    run = distinct(tables["typical"])
    run = replace(run, assignments=run.assignments.assign(cluster=0))
    captions = [caption.splitlines()[-1] for caption, _ in shown(similarity_change(run))]
    assert captions == ["ordered by client id", *["ordered by planted group"] * 2]
