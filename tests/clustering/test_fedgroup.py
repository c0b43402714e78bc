import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clustering.fedgroup import COSINES, DIRECTION, GROUPS, FedGroup
from fedtsd.errors import ConfigError
from tests.clustering.rounds import (
    final_groups,
    groups_of,
    moved_by,
    resumed_equals_whole,
    server_of,
    trained,
)
from tests.runs import run_toy, table

POLICY = FedGroup(num_groups=2, restarts=10)
START = {"w": torch.tensor([1.0, -2.0, 0.5])}
SMALL = ("model.hidden=[8]", "training.lr=0.02", "clustering.num_groups=2")
FLIPPED = (0, 2, 5)
PLANTED = {frozenset(FLIPPED), frozenset({1, 3, 4, 6, 7})}


def after(server, updates, round: int = 1, policy: FedGroup = POLICY):
    """The state after clients, by id, came back with these updates of their cluster's model."""
    models = {c: moved_by(server.centres[server.assignment[c]], u) for c, u in updates.items()}
    server = policy.measure(server, *trained(server, models, round))
    return policy.assign(server, round, np.random.default_rng(round))


def test_cosines_are_those_of_a_singular_value_decomposition() -> None:
    rng = np.random.default_rng(3)
    updates = rng.normal(size=(7, 30)) * rng.uniform(0.1, 5, size=(7, 1))
    start = {"a": torch.randn(4, 5), "b": torch.randn(10)}
    models = {
        c: {
            "a": start["a"] + torch.tensor(row[:20].reshape(4, 5), dtype=torch.float32),
            "b": start["b"] + torch.tensor(row[20:], dtype=torch.float32),
        }
        for c, row in enumerate(updates)
    }
    server = server_of(start, 7)
    server = FedGroup(3, 1).measure(server, *trained(server, models))
    right = np.linalg.svd(updates)[2][:3]
    expected = updates @ right.T / np.linalg.norm(updates, axis=1, keepdims=True)
    found = server.memory[COSINES]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    parts = [server.memory[DIRECTION + name] for name in ("a", "b")]
    np.testing.assert_allclose(
        np.abs(np.concatenate(parts, axis=1) @ right.T), np.eye(3), atol=1e-4
    )


def test_groups_follow_directions_not_lengths() -> None:
    # By distance, clients 1 and 3 would belong together: both hardly moved.
    updates = {0: [5, 0, 0], 1: [0.1, 0.01, 0], 2: [0, 5, 0.1], 3: [0, 0.1, 0]}
    server = after(server_of(START, 4), updates)
    assert server.assignment.tolist() == [0, 0, 1, 1]
    assert [centre["w"].tolist() for centre in server.centres] == [START["w"].tolist()] * 2


def test_who_was_not_heard_waits_with_the_initial_model_and_joins_its_kind() -> None:
    server = after(server_of(START, 7), {1: [2, 0, 0], 2: [2, 0.1, 0], 4: [0, 2, 0], 6: [0, 3, 0]})
    assert groups_of(server.assignment) == {
        frozenset({1, 2}),
        frozenset({4, 6}),
        frozenset({0, 3, 5}),
    }
    groups = [{"w": torch.full((3,), 50.0)}, {"w": torch.full((3,), -50.0)}]
    server = dataclasses.replace(server, centres=(*groups, server.centres[2]))
    assert server.centres[2] is server_of(START, 7).centres[0]
    # Client 0 hardly moved, but along the second group's direction.
    server = after(server, {0: [0, 0.01, 0], 4: [0, 1, 0], 5: [3, 0.1, 0]}, round=2)
    assert groups_of(server.assignment) == {
        frozenset({1, 2, 5}),
        frozenset({0, 4, 6}),
        frozenset({3}),
    }
    # Nobody takes a waiting client's model along.
    assert [centre["w"][0].item() for centre in server.centres[:2]] == [50.0, -50.0]
    server = after(server, {3: [1, -1, 0]}, round=5)
    assert groups_of(server.assignment) == {frozenset({1, 2, 3, 5}), frozenset({0, 4, 6})}
    assert len(server.centres) == 2
    assert server.assignment_round.tolist() == [2, 1, 1, 5, 1, 2, 1]


def test_groups_are_made_once() -> None:
    server = after(server_of(START, 4), {0: [1, 0, 0], 1: [1, 0, 0], 2: [0, 1, 0], 3: [0, 1, 0]})
    later = after(server, {0: [0, 1, 0], 1: [0, 1, 0], 2: [1, 0, 0], 3: [-1, 0, 0]}, round=2)
    assert later.assignment.tolist() == server.assignment.tolist() == [0, 0, 1, 1]


def test_memory_does_not_grow_with_the_model_times_the_clients() -> None:
    rng = np.random.default_rng(0)
    start = {"w": torch.zeros(5000)}
    server = after(server_of(start, 40), {c: rng.normal(size=5000) for c in range(40)})
    assert sum(array.size for array in server.memory.values()) == 2 * 5000 + 40 * 2 + 1


def test_equal_updates_make_one_group() -> None:
    server = after(server_of(START, 3), {c: [1, 2, 3] for c in range(3)})
    assert server.assignment.tolist() == [0, 0, 0]
    assert len(server.centres) == server.memory[GROUPS][0] == 1


def test_a_client_that_did_not_move_is_no_error() -> None:
    server = after(server_of(START, 3), {0: [0, 0, 0], 1: [1, 0, 0], 2: [1, 0, 0]})
    assert groups_of(server.assignment) == {frozenset({0}), frozenset({1, 2})}


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(9)))
def test_permuting_the_clients_permutes_the_groups(order) -> None:
    rng = np.random.default_rng(1)
    updates = np.repeat(np.eye(3), 3, axis=0) + 0.1 * rng.normal(size=(9, 3))
    policy = FedGroup(3, 10)
    plain = after(server_of(START, 9), dict(enumerate(updates)), policy=policy)
    mixed = after(server_of(START, 9), dict(enumerate(updates[list(order)])), policy=policy)
    back = {frozenset(order[i] for i in group) for group in groups_of(mixed.assignment)}
    assert back == groups_of(plain.assignment)
    assert len(back) == 3


def test_exchanged_labels_are_found(config, toy, tmp_path) -> None:
    run_toy(config("method=fedgroup", "rounds=4", *SMALL), toy(8, FLIPPED), tmp_path)
    assert final_groups(tmp_path) == PLANTED
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


@pytest.mark.parametrize("seed", [1, 4, 5])  # two of each kind answer in round 1
def test_exchanged_labels_are_found_by_small_cohorts(seed: int, config, toy, tmp_path) -> None:
    cfg = config("method=fedgroup", "rounds=8", "cohort.size=4", f"seed={seed}", *SMALL)
    run_toy(cfg, toy(8, FLIPPED), tmp_path)
    heard = set(table(tmp_path, "traffic").query("round == 1")["client"])
    assert len(heard & set(FLIPPED)) == 2
    trained_once = set(table(tmp_path, "traffic")["client"])
    assert {group for group in final_groups(tmp_path) if group <= trained_once} == {
        group & trained_once for group in PLANTED
    }
    assert table(tmp_path, "rounds")["num_clusters"].max() == 3  # some waited


def test_a_kind_not_heard_in_round_one_has_no_group(config, toy, tmp_path) -> None:
    cfg = config("method=fedgroup", "rounds=4", "cohort.size=4", "seed=2", *SMALL)
    run_toy(cfg, toy(8, FLIPPED), tmp_path)
    assert not set(table(tmp_path, "traffic").query("round == 1")["client"]) & set(FLIPPED)
    assert any(group & set(FLIPPED) and group - set(FLIPPED) for group in final_groups(tmp_path))


def test_newcomers_join_the_model_that_fits_and_stay(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedgroup", "rounds=6", "cohort.newcomers=0.25", "cohort.join_round=4", *SMALL
    )
    federation = dataclasses.replace(toy(8, FLIPPED), newcomers=(2, 6))
    run_toy(cfg, federation, tmp_path)
    rows = table(tmp_path, "assignments")
    assert set(rows[rows["round"] == 3]["client"]) == {0, 1, 3, 4, 5, 7}
    assert final_groups(tmp_path) == PLANTED


def test_only_shared_layers_are_compared(config, toy, tmp_path) -> None:
    cfg = config("method=fedgroup", "personalization=last", "rounds=3", *SMALL)
    run_toy(cfg, toy(8, FLIPPED), tmp_path / "last")
    assert len(final_groups(tmp_path / "last")) == 2
    cfg = config("method=fedgroup", "personalization=all", "rounds=3", *SMALL)
    run_toy(cfg, toy(8, FLIPPED), tmp_path / "all")
    assert len(final_groups(tmp_path / "all")) == 1  # nothing is sent, nothing to tell by


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedgroup", "rounds=6", "cohort.size=4", "checkpoint_every=2", "seed=4", *SMALL
    )
    assert resumed_equals_whole(cfg, toy(8, FLIPPED), tmp_path, stop=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clustering.num_groups=1", "clustering.num_groups: must be at least 2, got 1"),
        ("clustering.num_groups=9", "clustering.num_groups: must be at most the 8 clients, got 9"),
        ("clustering.restarts=0", "clustering.restarts: must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_one_line(override: str, message: str, config) -> None:
    with pytest.raises(ConfigError) as caught:
        config("method=fedgroup", "partition.num_clients=8", override)
    assert str(caught.value) == message
