import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clustering import two_stage
from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.signatures import SIZE, Signatures
from fedtsd.clustering.split import Proposal
from fedtsd.clustering.two_stage import PLACED, SETTLED, STANDING, WAITING, TwoStage
from fedtsd.launch import check, composed
from fedtsd.loading import load_federation
from fedtsd.messages import ClientReply, Probe, Reply
from fedtsd.server import reassigned, start_state
from fedtsd.similarity import (
    FREQUENCIES,
    LANDMARKS,
    OUTPUTS,
    OUTPUTS_ROUND,
    SIGNATURES,
    UPDATES,
    WORK,
    pairs_of,
    signatures_of,
)
from tests.runs import run_toy, table

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


def rounds(state, numbers, fresh: bool = True, policy: TwoStage = POLICY):
    for r in numbers:
        if fresh and OUTPUTS in state.memory:
            state = dataclasses.replace(
                state, memory={**state.memory, OUTPUTS_ROUND: np.array([r])}
            )
        state = policy.assign(state, r, np.random.default_rng(r))
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


def test_updates_split_while_outputs_say_nothing() -> None:
    """Stage 1 is tested in the same rounds and fails in each: no reason against stage 2."""
    groups = np.repeat([0, 1], 5)
    cosines = grouped(groups, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = rounds(server(10, outputs=grouped(groups, 0.3, 0.3), updates=cosines), [5])
    assert [(d.stage, d.passed) for d in state.decisions] == [(1, False), (2, True)]
    assert rounds(state, [6]).assignment.tolist() == groups.tolist()


def test_a_round_of_each_stage_is_no_confirmation() -> None:
    groups = np.repeat([0, 1], 5)
    cosines = grouped(groups, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    state = rounds(server(10, outputs=grouped(groups, 0.3, 0.3), updates=cosines), [5])
    only_outputs = holding(state, outputs=grouped(groups, 0.05, 0.8), updates=np.eye(10))
    state = rounds(only_outputs, [6])
    assert [(d.stage, d.passed) for d in state.decisions] == [(1, True), (2, False)]
    assert len(state.centres) == 1


@pytest.mark.parametrize("first", [3, 5])
def test_groups_of_large_and_small_clients_are_not_split(first: int) -> None:
    """Outputs in round 3, updates in round 5 say the same; only the clients' sizes differ."""
    groups = np.repeat([0, 1], 6)
    cosines = grouped(groups, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    if first == 3:
        state = server(12, outputs=grouped(groups, 0.05, 0.8))
    else:
        state = server(12, updates=cosines)

    def after(work: np.ndarray) -> list[int]:
        known = dataclasses.replace(state, memory={**state.memory, WORK: work})
        return rounds(known, [first, first + 1]).assignment.tolist()

    assert after(np.where(groups == 0, 100, 1000) + np.arange(12)) == [0] * 12
    assert after(np.tile([100, 1000, 400], 4)) == groups.tolist()
    assert after(np.full(12, 600)) == groups.tolist()


def test_groups_by_class_frequencies_are_the_priors_if_it_is_there() -> None:
    groups = np.repeat([0, 1], 6)
    beside_prior = dataclasses.replace(POLICY, stage1_frequencies=0.6)
    state = server(12, outputs=grouped(groups, 0.05, 0.8))

    def after(policy: TwoStage, frequencies: float) -> list[int]:
        of_means = Pairs.of(grouped(groups, 0.01, frequencies)).stored(FREQUENCIES)
        known = dataclasses.replace(state, memory={**state.memory, **of_means})
        return rounds(known, [3, 4], policy=policy).assignment.tolist()

    assert after(beside_prior, 0.7) == [0] * 12  # label skew
    assert after(beside_prior, 0.2) == groups.tolist()  # other inputs, or other names
    assert after(POLICY, 0.79) == groups.tolist()


@pytest.mark.parametrize("first", [3, 5])
def test_one_client_alone_is_no_group(first: int) -> None:
    groups = np.array([0] * 9 + [1])
    cosines = grouped(groups, 0.8, -0.7)
    np.fill_diagonal(cosines, 1)
    matrices = {"outputs": grouped(groups, 0.05, 0.8)} if first == 3 else {"updates": cosines}
    state = rounds(server(10, **matrices), [first, first + 1, first + 2])
    assert len(state.centres) == 1
    assert not state.decisions[0].passed
    assert state.decisions[0].silhouette > 0.5  # as clear as can be, were it a group


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


def test_unmeasured_clients_wait_and_then_try_all_models() -> None:
    groups = np.array([0] * 8 + [1] * 8 + [0])
    full = grouped(groups, 0.05, 0.8)
    gaps = full.copy()
    gaps[16, :16] = gaps[:16, 16] = np.nan
    state = rounds(server(17, outputs=gaps), [3, 4])
    assert len(state.centres) == 3
    assert (state.memory[STANDING] == WAITING).nonzero()[0].tolist() == [16]
    assert state.members(state.assignment[16]).tolist() == [16]
    # It is asked before it trains, whether its outputs were ever heard or not.
    asked = POLICY.question(state, np.arange(17), 5, look=False)
    assert asked.clients.tolist() == [16]
    losses = np.ones(3)
    losses[state.assignment[0]] = 0.5
    reply = Reply(5, (ClientReply(16, {}, 1, losses=tuple(losses)),))
    state = POLICY.answered(state, reply)
    assert state.assignment[16] == state.assignment[0]
    assert len(state.centres) == 2


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
    assert STANDING not in state.memory
    # Without the mark, the same gaps are those of clients that were not there. They wait a round,
    # and half of all is too few to split by.
    absent = server(18, outputs=matrix)
    assert not rounds(absent, [3, 4]).decisions
    few = dataclasses.replace(POLICY, coverage=0.5)
    assert len(rounds(absent, [3, 4], policy=few).centres) == 4


def test_who_is_near_no_landmark_waits() -> None:
    matrix = grouped(GROUPS, 0.05, 0.8)
    matrix[1, :] = matrix[:, 1] = 0.5
    matrix[1, 1] = 0
    state = rounds(with_landmarks(server(18, outputs=seen_by(matrix, WHERE))), [3, 4])
    assert state.members(state.assignment[1]).tolist() == [1]
    assert (state.memory[STANDING] == WAITING).nonzero()[0].tolist() == [1]


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
        ({"stage1_frequencies": 0.0}, "stage1_frequencies: must be in"),
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


PARTIAL = np.arange(24) % 2  # the groups of clients that never all meet


def signed(
    state,
    round: int,
    clients: np.ndarray,
    groups: np.ndarray = PARTIAL,
    noise: float = 0.3,
    seed: int = 1,
):
    """Let clients come back from a round with signatures of their groups."""
    ways = np.random.default_rng(0).normal(size=(int(groups.max()) + 1, SIZE)) / np.sqrt(SIZE)
    rng = np.random.default_rng((seed, round))
    old = signatures_of(state)
    directions, visits = old.directions.copy(), old.visits.copy()
    directions[clients] = ways[groups[clients]] + noise * rng.normal(
        size=(len(clients), SIZE)
    ) / np.sqrt(SIZE)
    visits[clients] = round
    told = Signatures(directions, visits).stored(SIGNATURES)
    return dataclasses.replace(state, memory={**state.memory, **told})


def visited(state, numbers, cohort: int = 6, known: int = 18, **how):
    """Rounds in which six of the first `known` clients come, in turns."""
    for r in numbers:
        clients = np.arange(cohort * r, cohort * (r + 1)) % known
        state = signed(state, r, clients, **how)
        state = POLICY.assign(state, r, np.random.default_rng(r))
    return state


def test_clients_that_never_met_are_split_by_signatures() -> None:
    state = visited(server(24), range(2, 6), known=24)
    assert not state.decisions[0].passed  # nobody proposed the same before
    state = visited(state, [6], known=24)
    assert state.decisions[0].passed
    assert not state.decisions[0].split
    state = visited(state, [7], known=24)
    assert state.decisions[0].split
    assert state.assignment.tolist() == PARTIAL.tolist()
    assert STANDING not in state.memory  # nobody waits
    # Signatures stay, centred in the new clusters.
    left = signatures_of(state)
    assert (left.visits > 0).all()
    assert left.directions[PARTIAL == 0].mean(axis=0) == pytest.approx(np.zeros(SIZE), abs=1e-7)


def test_before_enough_have_come_nothing_is_tested() -> None:
    assert not visited(server(24), range(5, 12), known=12).decisions  # .5 of them
    assert visited(server(24), range(5, 12), known=15).decisions


def test_without_a_new_signature_there_is_no_new_test() -> None:
    state = visited(server(24), range(2, 7), known=24)
    again = POLICY.assign(state, 7, np.random.default_rng(7))
    assert not again.decisions
    assert len(again.centres) == 1


def test_one_direction_for_all_is_no_structure() -> None:
    state = visited(server(24), range(2, 20), groups=np.zeros(24, dtype=int), known=24)
    assert state.decisions
    assert len(state.centres) == 1


def test_a_proposal_that_changes_does_not_pass() -> None:
    state = visited(server(24), range(2, 7), known=24)
    other = signed(state, 7, np.arange(24), groups=np.arange(24) // 12)
    other = POLICY.assign(other, 7, np.random.default_rng(7))
    assert not other.decisions[0].passed
    assert other.decisions[0].silhouette > POLICY.signature_silhouette


def test_groups_that_are_rounds_do_not_pass() -> None:
    state = server(24)
    for r in range(2, 12):
        came = np.flatnonzero(np.arange(24) // 6 == r % 4)
        # Updates of one round are alike, and nothing else is.
        state = signed(state, r, came, groups=np.arange(24) // 6)
        state = POLICY.assign(state, r, np.random.default_rng(r))
    assert state.decisions[0].silhouette > 0.3
    assert not state.decisions[0].passed
    assert len(state.centres) == 1


def waiting_state():
    """Clients 18 to 23 have never come when the others are split."""
    state = visited(server(24), range(3, 10))
    assert len(state.centres) == 3
    return state


def test_who_never_came_waits_and_is_asked() -> None:
    state = waiting_state()
    assert state.assignment[:18].tolist() == PARTIAL[:18].tolist()
    assert state.members(2).tolist() == list(range(18, 24))
    assert (state.memory[STANDING][18:] == WAITING).all()
    question = POLICY.question(state, np.array([3, 18, 20]), 10, look=False)
    assert question is not None
    assert question.clients.tolist() == [18, 20]
    assert question.task == Probe(look=False)
    assert POLICY.question(state, np.array([3, 4]), 10, look=False) is None
    everybody = dataclasses.replace(POLICY, everybody_tries=True)
    assert everybody.question(state, np.array([3, 18]), 10, True).clients.tolist() == [3, 18]
    assert everybody.question(server(24), np.array([3, 18]), 1, True) is None


def told(round: int, **losses: list[float]) -> Reply:
    rows = (ClientReply(int(c[1:]), {}, 1, losses=np.array(v)) for c, v in losses.items())
    return Reply(round, tuple(rows))


def test_who_waits_goes_where_the_loss_is_clearly_lower() -> None:
    state = POLICY.answered(
        waiting_state(),
        told(12, c18=[0.4, 0.9, 1.0], c19=[1.0, 0.91, 1.0], c20=[0.95, 0.89, 1.0]),
    )
    assert state.assignment[18:21].tolist() == [0, 2, 1]
    assert state.memory[STANDING][18:21].tolist() == [PLACED, WAITING, PLACED]
    assert state.assignment_round[18:21].tolist() == [12, state.assignment_round[19], 12]
    # Once more: 18 finds that it belongs elsewhere, 20 stays, and is asked no more.
    state = POLICY.answered(state, told(14, c18=[1.0, 0.5, 1.0], c20=[0.5, 0.49, 1.0]))
    assert state.assignment[[18, 20]].tolist() == [1, 1]
    assert state.memory[STANDING][[18, 20]].tolist() == [PLACED, SETTLED]


def test_a_cluster_that_all_have_left_is_gone() -> None:
    state = waiting_state()
    losses = {f"c{c}": [0.1, 1.0, 1.0] for c in range(18, 24)}
    state = POLICY.answered(state, told(12, **losses))
    assert len(state.centres) == 2
    assert state.assignment[18:].tolist() == [0] * 6


def test_who_is_nearer_to_another_group_waits(monkeypatch) -> None:
    proposed = PARTIAL.copy()
    proposed[5] = 0  # where it does not belong
    monkeypatch.setattr(two_stage, "propose", lambda *_: Proposal(proposed, 0.3))
    state = visited(server(24), range(2, 8), known=24)
    assert state.decisions[0].split
    assert (state.memory[STANDING] == WAITING).nonzero()[0].tolist() == [5]
    assert state.members(2).tolist() == [5]


def test_a_run_with_small_cohorts_finds_planted_groups(config, tmp_path) -> None:
    cfg = config(
        "method=fedtsdp", "partition=iid", "partition.num_clients=24", "cohort.size=8",
        "shift=permuted_labels", "shift.num_groups=2", "rounds=16", "eval_every=16",
        "similarity.public_batch=20", "training.lr=0.1", "training.epochs=3",
    )  # fmt: skip
    run_toy(cfg, load_federation(cfg), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["agreement_with_planted_groups"]["adjusted_rand_index"] > 0.8


def unequal(config, *overrides: str):
    """A run with clients of 11 to 240 training samples."""
    return config(
        "method=fedtsdp", "dataset=digits", "partition=iid", "partition.num_clients=16",
        "sizes=lognormal", "partition.sizes.sigma=1.2", "partition.min_size=20", "rounds=8",
        "eval_every=8", "similarity.public_batch=50", "training.lr=0.05", "training.epochs=3",
        *overrides,
    )  # fmt: skip


def test_a_run_with_unequal_clients_finds_planted_groups(config, tmp_path) -> None:
    cfg = unequal(config, "shift=permuted_labels", "shift.num_groups=2", "seed=3")
    run_toy(cfg, load_federation(cfg), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["agreement_with_planted_groups"]["adjusted_rand_index"] == 1


def test_a_run_with_unequal_clients_of_one_law_keeps_one_cluster(config, tmp_path) -> None:
    cfg = unequal(config, "seed=2")
    run_toy(cfg, load_federation(cfg), tmp_path)
    assert (table(tmp_path, "assignments")["cluster"] == 0).all()
