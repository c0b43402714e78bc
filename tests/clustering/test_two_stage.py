import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.two_stage import UNPLACED, TwoStage
from fedtsd.launch import check, composed
from fedtsd.server import reassigned, start_state
from fedtsd.similarity import LANDMARKS, OUTPUTS, OUTPUTS_ROUND, UPDATES, pairs_of

POLICY: TwoStage = check(composed(["method=fedtsdp"])).clustering


def server(n: int, **matrices: np.ndarray):
    state = start_state({"w": torch.zeros(1)}, np.zeros((n, 3), dtype=bool))
    return holding(state, **matrices)


def holding(state, **matrices: np.ndarray):
    names = {"outputs": OUTPUTS, "updates": UPDATES}
    memory = dict(state.memory)
    for name, matrix in matrices.items():
        memory |= Pairs.of(matrix).stored(names[name])
    return dataclasses.replace(state, memory=memory)


def grouped(groups: np.ndarray, near: float, far: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = len(groups)
    noise = rng.uniform(0, 0.02, (n, n))
    matrix = np.where(groups[:, None] == groups[None, :], near, far) + (noise + noise.T) / 2
    np.fill_diagonal(matrix, 0)
    return matrix


def rounds(state, numbers, fresh: bool = True):
    for r in numbers:
        if fresh and OUTPUTS in state.memory:
            state = dataclasses.replace(
                state, memory={**state.memory, OUTPUTS_ROUND: np.array([r])}
            )
        state = POLICY.assign(state, r, np.random.default_rng(r))
    return state


GROUPS = np.repeat([0, 1, 2], 6)


def test_outputs_split_after_two_passing_rounds() -> None:
    state = server(18, outputs=grouped(GROUPS, 0.05, 0.8))
    once = rounds(state, [3])
    assert len(once.centres) == 1
    assert once.decisions[0].passed
    assert not once.decisions[0].split
    twice = rounds(once, [4])
    assert twice.assignment.tolist() == GROUPS.tolist()
    assert len(twice.centres) == 3
    assert (twice.assignment_round == 4).all()
    assert twice.decisions[0].split


def test_nothing_happens_before_round_three() -> None:
    state = server(18, outputs=grouped(GROUPS, 0.05, 0.8))
    assert not rounds(state, [1, 2]).decisions


def test_the_same_numbers_are_not_tested_twice() -> None:
    state = rounds(server(18, outputs=grouped(GROUPS, 0.05, 0.8)), [3])
    assert len(rounds(state, [4, 5, 6], fresh=False).centres) == 1


def test_few_clients_are_never_split() -> None:
    state = server(6, outputs=grouped(np.repeat([0, 1], 3), 0.05, 0.8))
    assert len(rounds(state, range(3, 9)).centres) == 1


def test_an_unlike_client_goes_to_the_residual() -> None:
    groups = np.array([0] * 8 + [1] * 8 + [2])
    matrix = grouped(groups, 0.05, 0.8)
    # The last client is nearest to group 1, yet above the limit of .32.
    matrix[-1, 8:16] = matrix[8:16, -1] = 0.5
    state = rounds(server(17, outputs=matrix), [3, 4])
    assert len(state.centres) == 3
    assert state.members(state.assignment[-1]).tolist() == [16]


def test_updates_split_each_cluster() -> None:
    groups = np.repeat([0, 1], 5)
    cosines = grouped(groups, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = rounds(server(10, updates=cosines), [5, 6])
    assert state.assignment.tolist() == groups.tolist()
    assert state.decisions[0].stage == 2
    assert not len(pairs_of(state, UPDATES).keys)  # restarted in the new clusters


def test_updates_wait_for_round_five() -> None:
    cosines = grouped(np.repeat([0, 1], 5), 0.8, -0.7)
    assert not rounds(server(10, updates=cosines), [3, 4]).decisions


def test_stage_two_splits_inside_a_cluster_and_leaves_the_others() -> None:
    outer = np.repeat([0, 1], [10, 4])
    inner = np.repeat([0, 1, 2], [5, 5, 4])
    cosines = grouped(inner, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = reassigned(server(14), outer, 4)
    state = holding(state, updates=cosines)
    state = rounds(state, [6, 7])
    assert sorted(state.members(k).tolist() for k in range(3)) == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13],
    ]
    assert state.assignment_round.tolist() == [7] * 10 + [4] * 4


def test_new_clusters_start_from_their_parent() -> None:
    state = start_state({"w": torch.zeros(1)}, np.zeros((4, 1), dtype=bool))
    state = dataclasses.replace(
        state,
        centres=({"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}),
        assignment=np.array([0, 1, 1, 1]),
    )
    new = reassigned(state, np.array([2, 0, 1, 1]), 9)
    assert [centre["w"].item() for centre in new.centres] == [2.0, 2.0, 1.0]
    assert new.assignment_round.tolist() == [0, 9, 9, 9]  # client 0 only changed its number


def test_identical_clients_are_not_split() -> None:
    state = server(20, outputs=np.zeros((20, 20)), updates=np.ones((20, 20)))
    assert len(rounds(state, range(3, 9)).centres) == 1


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(18)))
def test_permuting_the_clients_changes_nothing(order) -> None:
    order = np.array(order)
    matrix = grouped(GROUPS, 0.1, 0.6)
    plain = rounds(server(18, outputs=matrix), [3, 4])
    mixed = rounds(server(18, outputs=matrix[np.ix_(order, order)]), [3, 4])
    assert mixed.decisions == plain.decisions
    same = plain.assignment[order]
    assert np.array_equal(
        same[:, None] == same[None, :], mixed.assignment[:, None] == mixed.assignment[None, :]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 20))
def test_clusters_are_always_a_partition(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, n)
    cosines = grouped(groups, 0.7, -0.3, seed)
    np.fill_diagonal(cosines, 1)
    state = rounds(server(n, outputs=grouped(groups, 0.1, 0.7, seed), updates=cosines), range(3, 8))
    assert state.assignment.shape == (n,)
    assert set(state.assignment.tolist()) == set(range(len(state.centres)))


def test_unmeasured_clients_wait_and_then_join_the_nearest() -> None:
    groups = np.array([0] * 8 + [1] * 8 + [0])
    full = grouped(groups, 0.05, 0.8)
    gaps = full.copy()
    gaps[16, :16] = gaps[:16, 16] = np.nan
    state = rounds(server(17, outputs=gaps), [3, 4])
    assert len(state.centres) == 3
    assert state.memory[UNPLACED].nonzero()[0].tolist() == [16]
    state = holding(state, outputs=full)
    state = rounds(state, [5])
    assert state.assignment[16] == state.assignment[0]
    assert not state.memory[UNPLACED].any()


def seen_by(matrix: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The matrix as it is measured with landmarks: pairs of two others are unknown."""
    matrix = matrix.copy()
    others = np.setdiff1d(np.arange(len(matrix)), landmarks)
    matrix[np.ix_(others, others)] = np.nan
    np.fill_diagonal(matrix, 0)
    return matrix


def with_landmarks(state):
    memory = {**state.memory, LANDMARKS: np.array([12])}
    return dataclasses.replace(state, memory=memory)


WHERE = np.arange(0, 18, 2)  # landmarks: three of each of the groups


def test_who_is_no_landmark_follows_in_the_round_of_the_split() -> None:
    matrix = seen_by(grouped(GROUPS, 0.05, 0.8), WHERE)
    state = rounds(with_landmarks(server(18, outputs=matrix)), [3, 4])
    assert state.assignment.tolist() == GROUPS.tolist()
    assert not state.memory[UNPLACED].any()
    # Without the mark, the same gaps are those of clients that were not there: they wait a round.
    state = rounds(server(18, outputs=matrix), [3, 4])
    assert len(state.centres) == 4


def test_who_is_near_no_landmark_waits() -> None:
    matrix = grouped(GROUPS, 0.05, 0.8)
    matrix[1, :] = matrix[:, 1] = 0.5
    matrix[1, 1] = 0
    state = rounds(with_landmarks(server(18, outputs=seen_by(matrix, WHERE))), [3, 4])
    assert state.members(state.assignment[1]).tolist() == [1]
    assert state.memory[UNPLACED].nonzero()[0].tolist() == [1]


def test_updates_of_landmarks_split_all_members() -> None:
    groups = np.arange(40) % 2
    cosines = grouped(groups, 0.8, -0.7)
    landmarks = np.arange(12)
    state = with_landmarks(server(40, updates=seen_by(cosines, landmarks)))
    state = rounds(state, [5, 6])
    assert state.assignment.tolist() == groups.tolist()
    assert state.decisions[0].size == 40
    # Without the mark, gaps say that members were absent: the cluster is not tested.
    assert not rounds(server(40, updates=seen_by(cosines, landmarks)), [5, 6]).decisions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confirmations": 0}, "confirmations: must be at least 1"),
        ({"min_clients": 3}, "min_clients: must be at least 4"),
        ({"significance": 0.0}, "significance: must be in"),
        ({"stage1_silhouette": 2.0}, "stage1_silhouette: must be in"),
    ],
)
def test_settings_are_checked(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POLICY, **change)


def test_clusters_keep_their_numbers() -> None:
    inner = np.repeat([0, 1, 2], [5, 5, 8])
    cosines = grouped(inner, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = reassigned(server(18), np.repeat([0, 1], [10, 8]), 4)
    state = rounds(holding(state, updates=cosines), [6, 7])
    # Cluster 1 is untouched: splitting cluster 0 must not rename it.
    assert state.assignment[10:].tolist() == [1] * 8
    assert state.assignment[:10].tolist() == [0] * 5 + [2] * 5
