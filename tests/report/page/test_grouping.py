import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.report.page.grouping import grouping
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from fedtsd.report.tables import RunTables
from tests.report.runs import RunBuilder

Get = Callable[[str], Results]


def assigned(tables: RunTables, *rounds: list[int]) -> RunTables:
    """Tables in which client i is in cluster rounds[r][i] in round r."""
    rows = [
        (r, i, cluster, 0)
        for r, clusters in enumerate(rounds)
        for i, cluster in enumerate(clusters)
    ]
    columns = ["round", "client", "cluster", "personal_layers"]
    return dataclasses.replace(tables, assignments=pd.DataFrame(rows, columns=columns))


@pytest.fixture
def tables(results: Get) -> RunTables:
    return results("one").runs[0].tables


def test_since_when_a_cluster_has_just_these_sites(tables: RunTables) -> None:
    found = grouping(assigned(tables, [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 1, 2]))
    groups = {group.cluster: (group.sites, group.since) for group in found.groups}
    assert groups == {0: ((0, 1), 1), 1: ((2,), 2), 2: ((3,), 2)}
    assert found.groups[0].cluster == 0  # the largest first


def test_a_cluster_that_came_back_counts_from_its_return(tables: RunTables) -> None:
    found = grouping(assigned(tables, [0, 0, 1], [0, 1, 1], [0, 0, 1]))
    assert {group.since for group in found.groups} == {2}


def test_moves_count_in_the_last_third_of_the_rounds_only(tables: RunTables) -> None:
    early = assigned(tables, [0, 0], [0, 1], *[[0, 1]] * 8)
    late = assigned(tables, *[[0, 1]] * 8, [1, 0], [1, 1])
    assert (grouping(early).late_moves, grouping(late).late_moves) == (0, 3)


def test_a_split_is_explained_by_its_test(tables: RunTables) -> None:
    text = " ".join(Words("en")(sentence) for sentence in grouping(tables).sentences)
    assert text.startswith("4 clusters at the end, of 20 sites. Round 4: 20 sites were split by")
    assert "silhouette 0.50" in text
    assert "H = 0.86, p = 0.01" in text
    assert text.endswith("Every site keeps 1 of 5 layers at home.")


@pytest.mark.parametrize(
    ("builder", "changes", "reason"),
    [
        (RunBuilder(groups=1, tests=False, method="fedavg"), {}, "does not group sites"),
        (
            RunBuilder(clients=6, groups=1, tests=False),
            {"clustering": {"min_clients": 8}},
            "at least 8 sites; there are 6",
        ),
        (RunBuilder(groups=1, tests=False), {}, "No test was made"),
        (RunBuilder(groups=1), {}, "A split was accepted on the way"),
        (
            RunBuilder(groups=1, rounds=3),
            {"clustering": {"confirmations": 2}},
            "of 3 tests, 1 passed, and a split needs 2 in a row",
        ),
    ],
)
def test_why_nothing_was_split(
    tmp_path: Path, builder: RunBuilder, changes: dict[str, dict[str, object]], reason: str
) -> None:
    run = dataclasses.replace(builder, rounds=min(builder.rounds, 6), changes=changes)
    found = grouping(RunTables.read(run.write(tmp_path / "run")))
    text = " ".join(Words("en")(sentence) for sentence in found.sentences)
    assert "stayed together in one cluster" in text
    assert reason in text
