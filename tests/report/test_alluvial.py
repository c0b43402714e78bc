from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fedtsd.report.alluvial import MOST_CHANGES, alluvial
from fedtsd.report.style import cluster_colours
from fedtsd.report.tables import RunTables
from tests.report.drawn import overlaps, texts, words

Page = Callable[[str, str], Figure]


def blocks(figure: Figure, kind: str) -> list[tuple[int, float, int, float]]:
    """Column, top, cluster and height of each block."""
    ax = figure.axes[0]
    ticks = np.array(ax.get_xticks())
    return [
        (
            int(np.abs(ticks - patch.get_x() - patch.get_width() / 2).argmin()),
            patch.get_y(),
            int(patch.get_gid().split()[1]),
            patch.get_height(),
        )
        for patch in ax.patches
        if str(patch.get_gid()).startswith(kind)
    ]


@pytest.mark.parametrize(
    ("variant", "rounds"),
    [("typical", [0, 4, 5, 20]), ("large", [0, 4, 5, 60]), ("one_client", [0])],
)
def test_heights_are_numbers_of_clients_at_the_start_each_change_and_the_end(
    tables: dict[str, RunTables], page: Page, variant: str, rounds: list[int]
) -> None:
    run = tables[variant]
    found = blocks(page("alluvial", variant), "block")
    unit = max(height for *_, height in found) / len(run.order)
    sizes = {(column, k): round(height / unit, 6) for column, _, k, height in found}
    assert sizes == {
        (column, k): n
        for column, at in enumerate(rounds)
        for k, n in run.assignments.query("round == @at")["cluster"].value_counts().items()
    }


def test_blocks_of_a_column_do_not_overlap(page: Page) -> None:
    for variant in ("twelve_clusters", "unequal"):
        figure = page("alluvial", variant)
        found = sorted(blocks(figure, "block") + blocks(figure, "planted"))
        for (column, top, _, height), (other, below, *_) in pairwise(found):
            assert column != other or top + height <= below


def test_a_flow_is_as_wide_as_the_clients_that_take_it_are_many(
    tables: dict[str, RunTables], page: Page
) -> None:
    run, ax = tables["typical"], page("alluvial", "typical").axes[0]
    unit = max(height for *_, height in blocks(ax.figure, "block")) / len(run.order)
    wide = {}
    for patch in ax.patches:
        kind, *ends = str(patch.get_gid()).split()
        if kind == "flow":
            corners = patch.get_path().vertices
            wide[tuple(map(int, ends))] = round((corners[7, 1] - corners[0, 1]) / unit, 6)
    at = run.assignments.pivot_table(index="client", columns="round", values="cluster")
    truth = at[20].groupby([at[20], np.array(run.groups)]).size()
    expected = dict(truth.items()) | dict(at[4].groupby([at[4], at[5]]).size().items())
    expected |= {(0, k): n for k, n in at[4].value_counts().items()}
    expected |= {(k, k): n for k, n in at[5].value_counts().items()}
    assert wide == expected


def test_blocks_have_names_sizes_and_the_colours_of_their_clusters(
    tables: dict[str, RunTables], page: Page
) -> None:
    figure = page("alluvial", "typical")
    shown = words(figure)
    assert shown.count("C3 (5)") == 2
    assert {"C0 (20)", "C1 (10)", "G0 (5)", "G3 (5)", "planted\ngroups"} <= set(shown)
    colours = cluster_colours(tables["typical"])
    for patch in figure.axes[0].patches:
        kind, k, *_ = str(patch.get_gid()).split()
        if kind == "block":
            assert patch.get_facecolor()[:3] == pytest.approx(to_rgb(colours[int(k)]))


def test_planted_groups_have_patterns_and_stand_only_where_there_are_any(page: Page) -> None:
    patches = [
        patch
        for patch in page("alluvial", "twelve_clusters").axes[0].patches
        if str(patch.get_gid()).startswith("planted")
    ]
    looks = {(patch.get_hatch(), patch.get_facecolor()) for patch in patches}
    assert len(looks) == len(patches) == 12
    assert blocks(page("alluvial", "fedavg"), "planted") == []


def test_one_cluster_for_ever_is_one_block_and_a_note(page: Page) -> None:
    figure = page("alluvial", "fedavg")
    assert len(blocks(figure, "block")) == 1
    assert "one cluster in every round" in words(figure)
    assert "one cluster in every round" not in words(page("alluvial", "typical"))


def test_the_greatest_changes_are_kept_when_there_are_many(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    rows = run.assignments
    # One client wanders in every round; at round 15 all change.
    wanders = np.where(rows["client"] == 0, rows["round"] % 2, 0)
    odd = rows.assign(cluster=np.where(rows["round"] < 15, wanders, wanders + 2))
    figure = alluvial(replace(run, assignments=odd))
    assert f"{20 - MOST_CHANGES} more rounds with smaller changes are not shown" in words(figure)
    assert "round 15" in words(figure)


def test_who_is_absent_has_a_block_of_its_own(tables: dict[str, RunTables]) -> None:
    run = tables["ten"]
    rows = run.assignments
    figure = alluvial(replace(run, assignments=rows[(rows["client"] != 4) | (rows["round"] > 4)]))
    assert "absent (1)" in words(figure)


def test_hundred_clusters_still_fit(
    tables: dict[str, RunTables], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tables["large"]
    rows = run.assignments
    lonely = rows.assign(cluster=np.where(rows["round"] < 9, rows["cluster"], rows["client"]))
    figure = alluvial(replace(run, assignments=lonely))
    assert figure.get_figheight() < 5
    assert overlaps(texts(figure, monkeypatch)) == []
