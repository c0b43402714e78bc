import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean
from fedtsd.clustering.fesem import DISTANCES, POINTS, FeSEM
from fedtsd.errors import ConfigError
from tests.clustering.rounds import (
    final_groups,
    groups_of,
    resumed_equals_whole,
    server_of,
    trained,
)
from tests.runs import run_toy, table

POLICY = FeSEM(num_clusters=2, restarts=10)
START = {"w": torch.zeros(2)}
SMALL = ("model.hidden=[8]", "training.lr=0.02", "clustering.num_clusters=2")
FLIPPED = (0, 2, 5)
PLANTED = {frozenset(FLIPPED), frozenset({1, 3, 4, 6, 7})}


def model(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float32)}


def after(server, models, round: int = 1, policy: FeSEM = POLICY):
    """The state after a round in which clients, by id, came back with these models."""
    request, reply = trained(server, models, round)
    server = policy.measure(server, request, reply)
    server = policy.assign(server, round, np.random.default_rng(round))
    return WeightedMean("uniform").update(server, reply, ())


def with_centres(*centres, assignment):
    """A state some rounds later."""
    assignment = np.array(assignment)
    server = server_of(START, len(assignment))
    memory = {DISTANCES: np.full((len(assignment), len(centres)), np.nan)}
    return dataclasses.replace(server, centres=centres, assignment=assignment, memory=memory)


def test_the_first_clusters_are_those_of_the_trained_models() -> None:
    models = {0: model(0, 1), 1: model(9, 9), 2: model(0, 2), 3: model(9, 10), 4: model(0, 0)}
    server = after(server_of(START, 5), models)
    assert server.assignment.tolist() == [0, 1, 0, 1, 0]
    assert [centre["w"].tolist() for centre in server.centres] == [[0, 1], [9, 9.5]]
    assert POINTS not in server.memory


def test_points_lie_as_far_apart_as_models() -> None:
    models = {c: {"a": torch.randn(3, 4), "b": torch.randn(5)} for c in range(6)}
    server = server_of(models[0], 8)
    points = POLICY.measure(server, *trained(server, models)).memory[POINTS]
    flat = {c: np.concatenate([t.numpy().ravel() for t in m.values()]) for c, m in models.items()}
    for i, j in combinations(models, 2):
        apart = np.linalg.norm(flat[i] - flat[j])
        assert np.linalg.norm(points[i] - points[j]) == pytest.approx(apart, rel=1e-5)
    assert np.isnan(points[6:]).all()


def test_who_trained_goes_to_the_nearest_centre() -> None:
    # Client 0 was sent centre 0 and came back nearer to centre 1; client 2 the other way round.
    server = with_centres(model(0, 0), model(10, 0), assignment=[0, 0, 1, 1])
    models = {0: model(6, 1), 1: model(4, 1), 2: model(3, 0)}
    request, reply = trained(server, models, 7)
    measured = POLICY.measure(server, request, reply)
    np.testing.assert_array_equal(
        measured.memory[DISTANCES], [[37, 17], [17, 37], [9, 49], [np.nan, np.nan]]
    )
    server = after(server, models, 7)
    assert server.assignment.tolist() == [1, 0, 0, 1]
    assert server.assignment_round.tolist() == [7, 0, 7, 0]
    # The M-step: means of those assigned now, not of those sent.
    assert [centre["w"].tolist() for centre in server.centres] == [[3.5, 0.5], [6, 1]]


def test_an_empty_cluster_keeps_its_centre_and_may_win_clients_back() -> None:
    server = with_centres(model(0, 0), model(10, 0), assignment=[0, 1])
    server = after(server, {0: model(1, 0), 1: model(2, 0)}, 3)
    assert server.assignment.tolist() == [0, 0]
    assert [centre["w"].tolist() for centre in server.centres] == [[1.5, 0], [10, 0]]
    server = after(server, {0: model(1, 0), 1: model(8, 0)}, 4)
    assert server.assignment.tolist() == [0, 1]
    assert [centre["w"].tolist() for centre in server.centres] == [[1, 0], [8, 0]]


def test_only_what_a_client_shares_is_compared() -> None:
    centres = tuple({**model(x, 0), "head": torch.tensor([h])} for x, h in ((0, 9.0), (10, 0.0)))
    server = with_centres(*centres, assignment=[1])
    request, reply = trained(server, {0: model(1, 0)}, 2)
    assert POLICY.measure(server, request, reply).memory[DISTANCES].tolist() == [[1, 81]]


def test_clients_not_heard_yet_count_to_the_largest_cluster() -> None:
    models = {1: model(0, 1), 2: model(9, 9), 4: model(9, 8)}
    server = after(server_of(START, 6, newcomers=[5]), models)
    assert server.assignment.tolist() == [1, 0, 1, 1, 1, -1]
    assert len(server.centres) == 2


def test_equal_models_make_one_cluster() -> None:
    server = after(server_of(START, 3), {c: model(1, 2) for c in range(3)})
    assert len(server.centres) == 1
    server = after(server, {c: model(c, 2) for c in range(3)}, 2)
    assert server.assignment.tolist() == [0, 0, 0]


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)))
def test_permuting_the_clients_permutes_the_clusters(order) -> None:
    rng = np.random.default_rng(4)
    places = np.repeat([[0, 0], [8, 0], [0, 8]], [3, 3, 2], axis=0) + rng.normal(size=(8, 2))
    policy = FeSEM(3, 10)

    def clusters(rows: np.ndarray):
        models = {c: model(*row) for c, row in enumerate(rows)}
        server = after(server_of(START, 8), models, policy=policy)
        return groups_of(after(server, models, 2, policy).assignment)

    plain, mixed = clusters(places), clusters(places[list(order)])
    assert {frozenset(order[i] for i in group) for group in mixed} == plain
    assert len(plain) == 3


def test_exchanged_labels_are_found(config, toy, tmp_path) -> None:
    run_toy(config("method=fesem", "rounds=4", *SMALL), toy(8, FLIPPED), tmp_path)
    assert final_groups(tmp_path) == PLANTED
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


def test_small_cohorts_and_newcomers_run(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fesem", "rounds=6", "cohort.size=4", "cohort.newcomers=0.25", "cohort.join_round=4",
        *SMALL,
    )  # fmt: skip
    run_toy(cfg, dataclasses.replace(toy(8, FLIPPED), newcomers=(2, 6)), tmp_path)
    rows = table(tmp_path, "assignments")
    assert set(rows[rows["round"] == 3]["client"]) == {0, 1, 3, 4, 5, 7}
    assert set(rows[rows["round"] == 6]["client"]) == set(range(8))
    assert (table(tmp_path, "rounds")["num_clusters"] == 2).all()


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config("method=fesem", "rounds=6", "cohort.size=5", "checkpoint_every=2", *SMALL)
    assert resumed_equals_whole(cfg, toy(8, FLIPPED), tmp_path, stop=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clustering.num_clusters=1", "clustering.num_clusters: must be at least 2, got 1"),
        (
            "clustering.num_clusters=9",
            "clustering.num_clusters: must be at most the 8 clients, got 9",
        ),
        ("clustering.restarts=0", "clustering.restarts: must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_one_line(override: str, message: str, config) -> None:
    with pytest.raises(ConfigError) as caught:
        config("method=fesem", "partition.num_clients=8", override)
    assert str(caught.value) == message
