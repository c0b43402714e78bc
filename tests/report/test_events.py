from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.report.events import events, parents
from fedtsd.report.tables import RunTables
from fedtsd.report.timeline import NOBODY


def told(
    run: RunTables,
    clusters: Sequence[Sequence[int]],
    layers: Sequence[Sequence[int]] | None = None,
    tests: Sequence[dict[str, object]] = (),
) -> list[tuple[int, str]]:
    """What happens where round r has `clusters[r]` and `layers[r]`, by client id."""
    rows = [
        {"round": at, "client": i, "cluster": k, "personal_layers": layers[at][i] if layers else 0}
        for at, row in enumerate(clusters)
        for i, k in enumerate(row)
        if k != NOBODY
    ]
    table = pd.DataFrame(tests, columns=["round", "stage", "cluster", "size", "split"])
    made = replace(run, assignments=pd.DataFrame(rows), clustering=table, groups=None)
    return [(event.round, event.words) for event in events(made)]


def test_splits_are_told_in_words(tables: dict[str, RunTables]) -> None:
    found = [(e.round, e.words, e.major) for e in events(tables["typical"])]
    assert found == [
        (4, "split 1 → 2 clusters (C0 into C1, C2)", True),
        (4, "personal layers chosen (1 a client)", True),
        (5, "split 2 → 4 clusters (C1 into C3, C4; C2 into C5, C6)", True),
    ]


def test_a_split_into_many_counts_them(tables: dict[str, RunTables]) -> None:
    assert events(tables["twelve_clusters"])[-1].words == (
        "split 2 → 12 clusters (C1 into 6; C2 into 6)"
    )


def test_who_is_alone_after_stage_one_was_ejected(tables: dict[str, RunTables]) -> None:
    clusters = [[0, 0, 0, 0, 0], [0, 0, 1, 1, 2]]
    split = {"round": 1, "cluster": 0, "split": 1}
    word = "split 1 → 3 clusters (C0 into C0, C1, C2)"
    run = tables["ten"]
    whole = told(run, clusters, tests=[{**split, "stage": 1, "size": 5}])
    assert whole == [(1, word), (1, "client 4 ejected (C2)")]
    # A client that was not measured waits; stage 2 ejects nobody; nor do other methods.
    for tests in (
        [{**split, "stage": 1, "size": 4}],
        [{**split, "stage": 2, "size": 5}],
        [],
    ):
        assert told(run, clusters, tests=tests) == [(1, word), (1, "client 4 left alone (C2)")]


def test_moves_name_few_clients_and_count_many(tables: dict[str, RunTables]) -> None:
    one = [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert told(tables["ten"], one) == [(1, "client 2 moved (C0 → C1)")]
    many = [[0] * 5 + [1] * 4 + [2] * 9, [0] * 5 + [2] * 13]
    assert told(tables["ten"], many) == [(1, "4 clients moved")]


def test_a_change_of_numbers_alone_is_no_event(tables: dict[str, RunTables]) -> None:
    assert told(tables["ten"], [[0, 0, 1, 1], [3, 3, 0, 0]]) == []


def test_who_comes_late_did_not_move(tables: dict[str, RunTables]) -> None:
    assert told(tables["ten"], [[0, 0, NOBODY], [0, 0, 0]]) == []


def test_personal_layers_are_chosen_once_and_then_change(tables: dict[str, RunTables]) -> None:
    layers = [[0, 0, 0], [0, 2, 1], [0, 2, 1], [0, 1, 1]]
    assert told(tables["ten"], [[0, 0, 0]] * 4, layers) == [
        (1, "personal layers chosen (0 to 2 a client)"),
        (3, "personal layers changed for 1 client"),
    ]


def test_most_members_make_the_parent_and_ties_keep_the_number() -> None:
    was, now = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([5, 5, 5, 1, 1, 1, 1])
    assert parents(was, now) == {5: 0, 1: 1}


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=12))
def test_a_parent_is_where_no_fewer_members_come_from(pairs: list[tuple[int, int]]) -> None:
    was, now = np.array(pairs).T
    origin = parents(was, now)
    known = [pair for pair in pairs if NOBODY not in pair]
    assert set(origin) == {new for _, new in known}
    for new, old in origin.items():
        came = [was for was, to in known if to == new]
        assert came.count(old) == max(came.count(k) for k in set(came))
