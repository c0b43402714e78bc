import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clustering.two_stage import UNPLACED, TwoStage, complete
from fedtsd.launch import check, composed
from fedtsd.server import reassigned, start_state
from fedtsd.similarity import OUTPUTS, OUTPUTS_ROUND, UPDATES

POLICY: TwoStage = check(composed(["method=fedtsdp"])).clustering


def server(n: int, **memory: np.ndarray):
    state = start_state({"w": torch.zeros(1)}, np.zeros((n, 3), dtype=bool))
    names = {"outputs": OUTPUTS, "updates": UPDATES}
    return dataclasses.replace(state, memory={names[k]: v for k, v in memory.items()})


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
    assert np.isnan(state.memory[UPDATES]).all()  # restarted in the new clusters


def test_updates_wait_for_round_five() -> None:
    cosines = grouped(np.repeat([0, 1], 5), 0.8, -0.7)
    assert not rounds(server(10, updates=cosines), [3, 4]).decisions


def test_stage_two_splits_inside_a_cluster_and_leaves_the_others() -> None:
    outer = np.repeat([0, 1], [10, 4])
    inner = np.repeat([0, 1, 2], [5, 5, 4])
    cosines = grouped(inner, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = reassigned(server(14), outer, 4)
    state = dataclasses.replace(state, memory={UPDATES: cosines})
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
    state = dataclasses.replace(state, memory={**state.memory, OUTPUTS: full})
    state = rounds(state, [5])
    assert state.assignment[16] == state.assignment[0]
    assert not state.memory[UNPLACED].any()


def test_complete_drops_those_with_most_gaps() -> None:
    matrix = np.zeros((4, 4))
    matrix[1, [0, 2, 3]] = matrix[[0, 2, 3], 1] = np.nan
    assert complete(matrix).tolist() == [0, 2, 3]
    assert complete(np.zeros((2, 2))).tolist() == [0, 1]


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
    state = rounds(dataclasses.replace(state, memory={UPDATES: cosines}), [6, 7])
    # Cluster 1 is untouched: splitting cluster 0 must not rename it.
    assert state.assignment[10:].tolist() == [1] * 8
    assert state.assignment[:10].tolist() == [0] * 5 + [2] * 5
