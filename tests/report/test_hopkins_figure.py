from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedtsd.report.hopkins import MOST_EVENTS, hopkins
from fedtsd.report.tables import RunTables
from tests.report.drawn import group, overlaps, texts, words

Page = Callable[[str, str], Figure]


def points(figure: Figure, gid: str) -> set[tuple[int, float, bool]]:
    return {
        (int(x), float(y), line.get_markerfacecolor() != "white")
        for line in group(figure, gid)
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("gid", "column"), [("stage", "hopkins"), ("p", "hopkins_p")])
def test_both_panels_show_every_test_and_fill_the_significant(
    tables: dict[str, RunTables], page: Page, stage: int, gid: str, column: str
) -> None:
    rows = tables["typical"].clustering.query("stage == @stage")
    expected = set(zip(rows["round"], rows[column], rows["hopkins_p"] < 0.05, strict=True))
    assert points(page("hopkins", "typical"), f"{gid}{stage}") == expected


def test_a_line_joins_the_tests_of_each_cluster_and_is_named(
    tables: dict[str, RunTables], page: Page
) -> None:
    figure = page("hopkins", "typical")
    rows = tables["typical"].clustering
    expected = [part["hopkins"].tolist() for _, part in rows.groupby(["stage", "cluster"])]
    assert [list(line.get_ydata()) for line in group(figure, "series")] == expected
    assert {text.get_text() for text in group(figure, "cluster")} == {"C0", "C1", "C2", "C3"}


def test_one_tested_cluster_needs_no_line(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    figure = hopkins(replace(run, clustering=run.clustering.query("cluster == 0")))
    assert group(figure, "series") == group(figure, "cluster") == []


def test_threshold_and_significance_come_from_the_config(tables: dict[str, RunTables]) -> None:
    run = tables["typical"]
    rule = {"hopkins_threshold": 0.6, "significance": 0.02}
    figure = hopkins(replace(run, config={**run.config, "clustering": rule}))
    assert set(group(figure, "threshold")[0].get_ydata()) == {0.6}
    assert set(group(figure, "significance")[0].get_ydata()) == {0.02}
    assert {"threshold 0.6 (stage 2)", "significance 0.02", "filled: p < 0.02"} <= set(
        words(figure)
    )
    assert (4, 0.01, True) in points(figure, "p1")
    assert (2, 0.04, False) in points(figure, "p1")


def test_each_event_has_a_letter_at_its_round(page: Page) -> None:
    figure = page("hopkins", "typical")
    (key,) = group(figure, "key")
    told = " ".join(key.get_text().split())
    assert told.startswith("a round 4: split 1 → 2 clusters (C0 into C1, C2); personal layers")
    assert "b round 5: split 2 → 4 clusters" in told
    assert [text.get_text() for text in group(figure, "letter")] == ["a", "b"]
    places = [text.xy[0] for text in group(figure, "letter")]
    np.testing.assert_allclose(places, [4, 5], atol=0.2)


def busy(run: RunTables) -> RunTables:
    """A run in which clients move in every second round and eight clusters are tested."""
    rows = run.assignments
    moved = (rows["round"] // 2 + rows["client"]) % 8
    odd = rows.assign(cluster=np.where(rows["round"] < 3, 0, moved), personal_layers=rows["round"])
    tests = pd.DataFrame([(at, k, 0.5 + k / 50) for at in range(3, 21) for k in range(8)])
    tests = tests.set_axis(["round", "cluster", "hopkins"], axis=1)
    return replace(run, assignments=odd, clustering=tests.assign(stage=2, hopkins_p=0.2, split=0))


def test_a_busy_run_names_the_main_events_and_counts_the_rest(
    tables: dict[str, RunTables], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = hopkins(busy(tables["typical"]))
    (key,) = group(figure, "key")
    assert len(group(figure, "letter")) == MOST_EVENTS
    assert key.get_text().endswith(f"and changes in {20 - MOST_EVENTS} more rounds")
    assert overlaps(texts(figure, monkeypatch)) == []


def test_a_run_without_tests_says_so(page: Page) -> None:
    shown = words(page("hopkins", "just_started"))
    assert "no Hopkins test in this run" in shown
    assert "no cluster and no personal layer changed" in shown


def test_missing_p_values_are_left_out_and_break_nothing(copy: Callable[[str], Path]) -> None:
    folder = copy("typical")
    rows = pd.read_csv(folder / "clustering.csv")
    rows.assign(hopkins_p=np.nan).to_csv(folder / "clustering.csv", index=False)
    figure = hopkins(RunTables.read(folder))
    assert {filled for *_, filled in points(figure, "stage1")} == {False}
    assert "no p-value" in words(figure)
