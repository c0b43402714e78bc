import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from fedtsd.report.layout import axes_points
from fedtsd.report.partition import partition
from fedtsd.report.tables import RunTables
from fedtsd.score import MAE
from tests.report.drawn import group, words

Page = Callable[[str, str], Figure]


def bubbles(figure: Figure) -> PathCollection:
    (artist,) = group(figure, "bubbles")
    assert isinstance(artist, PathCollection)
    return artist


def held(run: RunTables) -> dict[tuple[int, int], int]:
    """(client, label) -> training samples, straight from the file."""
    rows = pd.read_csv(run.folder / "partition.csv")
    rows = rows[rows["split"] == "train"]
    return {(r.client, r.label): r.count for r in rows.itertuples(index=False)}


def test_every_bubble_has_the_area_of_its_count(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    discs = bubbles(page("partition", "typical"))
    places = np.asarray(discs.get_offsets()).astype(int)
    shown = {
        (run.order[x], int(y)): size for (x, y), size in zip(places, discs.get_sizes(), strict=True)
    }
    expected = held(run)
    assert shown.keys() == expected.keys()
    ratios = {size / expected[key] for key, size in shown.items()}
    assert max(ratios) == pytest.approx(min(ratios))


@pytest.mark.parametrize("name", ["typical", "ten", "twelve_clusters", "unequal", "one_client"])
def test_no_bubble_reaches_into_the_next_cell(
    tables: dict[str, RunTables], page: Page, name: str
) -> None:
    run = tables[name]
    figure = page("partition", name)
    width, height = axes_points(figure.axes[0])
    n, y = run.train_counts.shape
    largest = math.sqrt(max(bubbles(figure).get_sizes()))
    assert 3 < largest <= min(width / n, height / y)


def test_the_legend_draws_its_sizes_on_the_same_scale(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    figure = page("partition", "typical")
    area = max(bubbles(figure).get_sizes()) / run.train_counts.max()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()][1:]
    discs = [disc for disc in legend.legend_handles if isinstance(disc, Line2D)][1:]
    assert len(labels) == 3
    for disc, label in zip(discs, labels, strict=True):
        assert disc.get_markersize() ** 2 == pytest.approx(float(label) * area)


def test_clients_stand_in_the_order_of_their_clusters(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    figure = page("partition", "typical")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(i) for i in run.order]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(run.class_names)
    edges = [line.get_xdata()[0] for line in group(figure, "separator")]
    assert edges == [4.5, 9.5, 14.5] * 2  # below, and among the sizes above
    names = [text.get_text() for text in group(figure, "cluster")]
    assert names == ["C3", "C4", "C5", "C6"]


@pytest.mark.parametrize(("name", "angle"), [("ten", 0), ("typical", 90)])
def test_client_numbers_stand_upright_where_they_would_touch(
    page: Page, name: str, angle: int
) -> None:
    labels = page("partition", name).axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {angle}


def test_one_cluster_has_no_separators(page: Page) -> None:
    figure = page("partition", "fedavg")
    assert not group(figure, "separator")
    assert not group(figure, "cluster")


def test_many_clients_and_classes_become_a_heat_map(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["large"]
    figure = page("partition", "large")
    assert not group(figure, "bubbles")
    (image,) = figure.axes[0].images
    shown = np.ma.asarray(image.get_array())
    np.testing.assert_array_equal(shown.filled(0), run.train_counts.T)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), run.train_counts.T == 0)
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert named == list(run.class_names[:: 100 // (len(named) - 1)])
    assert figure.axes[0].get_ylabel() == "class (one in 3 named)"
    assert "samples (white: none)" in words(figure)


@pytest.mark.parametrize(
    ("name", "width"), [("ten", 3.3), ("typical", 3.3), ("twelve_clusters", 7.0), ("large", 7.0)]
)
def test_few_clients_fit_one_column(page: Page, name: str, width: float) -> None:
    assert page("partition", name).get_size_inches()[0] == pytest.approx(width)


def test_a_partition_without_training_samples_says_so(tables: dict[str, RunTables]) -> None:
    run = tables["ten"]
    empty = replace(run, partition=run.partition.iloc[:0])
    assert "no training samples" in words(partition(empty))
    assert "no training samples" in words(partition(replace(empty, classes=())))


def test_sizes_that_differ_stand_above_as_bars_and_equal_ones_do_not(
    tables: dict[str, RunTables], page: Page
) -> None:
    run = tables["typical"]
    (bars,) = group(page("partition", "typical"), "sizes")
    assert isinstance(bars, StepPatch)
    np.testing.assert_array_equal(bars.get_data().values, run.train_counts.sum(axis=1))
    equal = run.partition.assign(count=30).drop_duplicates(["client", "split"])
    assert not group(partition(replace(run, partition=equal)), "sizes")


def test_planted_groups_stand_below_as_patterns(tables: dict[str, RunTables], page: Page) -> None:
    run = tables["typical"]
    assert run.groups is not None
    figure = page("partition", "typical")
    shown: dict[int, int] = {}
    for patch in figure.axes[0].patches:
        start, width = round(patch.get_x() + 0.5), round(patch.get_width())
        shown |= {place: int(patch.get_gid().split()[1]) for place in range(start, start + width)}
    assert [shown[place] for place in range(20)] == [run.groups[i] for i in run.order]
    assert figure.axes[0].get_xlabel() == "client, by final cluster and planted group (patterns)"


def test_clients_of_one_cluster_are_ordered_by_planted_group(tables: dict[str, RunTables]) -> None:
    run = tables["ten"]
    together = run.assignments.assign(cluster=0)
    run = replace(run, assignments=together)
    assert run.groups is not None
    assert [run.groups[i] for i in run.order] == sorted(run.groups)
    figure = partition(run)
    assert figure.axes[0].get_xlabel() == "client, by planted group (patterns)"
    assert not group(figure, "separator")


def test_sites_are_called_by_their_names(tables: dict[str, RunTables]) -> None:
    names = (*"abcdefgh", "a hospital with a long name", "x")
    run = replace(tables["ten"], sites=names)
    ax = partition(run).axes[0]
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert [tick for tick in ticks if len(tick) == 1] == [
        names[i] for i in run.order if len(names[i]) == 1
    ]
    assert "a hospital with a…" in ticks
    assert ax.get_xlabel().startswith("site, by")


def test_what_drifting_clients_hold_later_are_rings_on_the_same_scale(
    tables: dict[str, RunTables],
) -> None:
    run = tables["ten"]
    most = int(run.train_counts.max())
    later = pd.DataFrame(
        {"client": [3, 3], "split": ["train", "test"], "label": [1, 1], "count": [2 * most, 99]}
    )
    drifted = replace(run, later=later, summary={**run.summary, "drift": {"round": 5}})
    figure = partition(drifted)
    (rings,) = group(figure, "later")
    assert isinstance(rings, PathCollection)
    assert np.asarray(rings.get_offsets()).tolist() == [[run.order.index(3), 1]]
    assert max(rings.get_sizes()) == pytest.approx(2 * max(bubbles(figure).get_sizes()))
    assert "from round 5 on" in [text.get_text() for text in figure.legends[0].get_texts()]
    large = tables["large"]
    crowded = replace(large, later=later, summary={**large.summary, "drift": {"round": 5}})
    said = partition(crowded).axes[0].get_xlabel()
    assert "clients that hold other samples from round 5 on: 1" in said


def test_a_regression_has_intervals_of_the_target(tables: dict[str, RunTables]) -> None:
    run = replace(tables["ten"], score=MAE, classes=tuple(f"{y} to {y + 1}" for y in range(10)))
    ax = partition(run).axes[0]
    assert ax.get_ylabel() == "interval of the target"
    assert ax.get_yticklabels()[1].get_text() == "1 to 2"
