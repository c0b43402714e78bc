import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from fedtsd.clustering.pacfl import PACFL, SUBSPACES, clusters_within, principal_angles
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.errors import ConfigError
from fedtsd.messages import ClientReply, Describe, Reply
from fedtsd.server import reassigned
from fedtsd.traffic import SENT_SUBSPACE
from tests.clustering.rounds import final_groups, groups_of, resumed_equals_whole, server_of
from tests.runs import run_toy, table

SUM = PACFL(vectors=2, angles="sum", max_angle=45.0)
SMALLEST = PACFL(vectors=2, angles="smallest", max_angle=45.0)
START = {"w": torch.zeros(1)}
SMALL = (
    "method=pacfl", "model.hidden=[8]", "training.lr=0.02", "clustering.vectors=2",
    "clustering.max_angle=60",
)  # fmt: skip
EVEN = {frozenset({0, 2, 4}), frozenset({1, 3, 5})}


def at(*degrees: float) -> np.ndarray:
    """A line in the first plane of R^4, or with two angles a plane: one line in each of two."""
    basis = np.zeros((4, len(degrees)))
    for column, angle in enumerate(np.radians(degrees)):
        basis[2 * column : 2 * column + 2, column] = np.cos(angle), np.sin(angle)
    return basis


def described(policy: PACFL, server, bases, round: int = 1):
    """The state after clients, by id, told these subspaces."""
    rows = tuple(
        ClientReply(c, {}, 10, subspace=torch.tensor(basis, dtype=torch.float32))
        for c, basis in bases.items()
    )
    return policy.answered(server, Reply(round, rows))


def test_angles_of_known_subspaces() -> None:
    found = principal_angles(at(0, 0), np.stack([at(0, 0), at(10, 70), at(80, 20), at(90, 90)]))
    expected = [[0, 0], [10, 70], [20, 80], [90, 90]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(4, 9))
def test_angles_are_those_of_scipy_whatever_the_basis(seed: int, size: int, features: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (np.linalg.qr(rng.normal(size=(features, size)))[0] for _ in range(2))
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]  # another basis of the same subspace
    expected = np.sort(np.degrees(subspace_angles(one, other)))
    np.testing.assert_allclose(principal_angles(one @ turn, other[None])[0], expected, atol=1e-4)


def test_the_sum_sees_what_the_smallest_angle_does_not() -> None:
    bases = {0: at(0, 0), 1: at(0, 80), 2: at(5, 5)}
    assert groups_of(described(SMALLEST, server_of(START, 3), bases).assignment) == {
        frozenset({0, 1, 2})
    }
    assert groups_of(described(SUM, server_of(START, 3), bases).assignment) == {
        frozenset({0, 2}),
        frozenset({1}),
    }


def test_a_smaller_subspace_has_fewer_angles() -> None:
    # A line inside the other's plane: one angle, of 0. Turned by 50 degrees: one angle of 50.
    inside, outside = at(0), at(50)
    server = described(SUM, server_of(START, 2), {0: inside, 1: at(0, 0)})
    assert server.assignment.tolist() == [0, 0]
    server = described(SUM, server_of(START, 2), {0: outside, 1: at(0, 0)})
    assert server.assignment.tolist() == [0, 1]
    assert server.memory[SUBSPACES].dtype == np.float32
    assert server.memory[SUBSPACES].shape == (2, 4, 2)


def test_inputs_of_nothing_but_zeros_are_like_no_others() -> None:
    bases = {0: np.zeros((4, 0)), 1: at(0, 0), 2: at(0, 0)}
    for policy in (SUM, SMALLEST):
        assert described(policy, server_of(START, 3), bases).assignment.tolist() == [0, 1, 1]


def test_clusters_are_cut_at_their_mean_distance() -> None:
    distance = np.array([[0, 10, 50], [10, 0, 30], [50, 30, 0]], dtype=float)
    # 0 and 1 join at 10, then 2 at the mean of 50 and 30.
    assert clusters_within(distance, 9).tolist() == [0, 1, 2]
    assert clusters_within(distance, 39).tolist() == [0, 0, 1]
    assert clusters_within(distance, 41).tolist() == [0, 0, 0]
    assert clusters_within(np.zeros((1, 1)), 9).tolist() == [0]


def test_everybody_is_asked_once() -> None:
    server = server_of(START, 5, newcomers=[4])
    question = SUM.question(server, np.array([1, 2]), 1, look=False)
    assert question.task == Describe(2)
    assert question.clients.tolist() == [0, 1, 2, 3]
    assert SUM.question(server, np.array([1, 2]), 1, look=True) is None
    server = described(SUM, server, {c: at(0, 0) for c in range(4)})
    assert SUM.question(server, np.array([1, 2]), 1, look=False) is None
    question = SUM.question(server, np.array([1, 4]), 2, look=False)
    assert question.clients.tolist() == [4]


def test_a_late_client_goes_to_the_nearest_cluster_if_it_is_near() -> None:
    first = {0: at(0, 0), 1: at(0, 10), 2: at(90, 90)}
    server = described(SUM, server_of(START, 5, newcomers=[3, 4]), first)
    assert server.assignment.tolist() == [0, 0, 1, -1, -1]
    placed = np.array([0, 0, 1, 0, 0])  # where their samples fitted best
    server = dataclasses.replace(server, assignment=placed)
    # Client 3: mean of 170 and 160 to the first cluster, 10 to the second. Client 4: 80 to both.
    server = described(SUM, server, {3: at(85, 85), 4: at(45, 45)}, round=6)
    assert server.assignment.tolist() == [0, 0, 1, 1, 0]
    assert server.assignment_round.tolist() == [1, 1, 1, 6, 0]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.sampled_from([SUM, SMALLEST]))
def test_permuting_the_clients_permutes_the_clusters(order, policy: PACFL) -> None:
    places = [(0, 3), (2, 5), (80, 85), (4, 1), (88, 81), (7, 88), (2, 79)]
    plain = described(policy, server_of(START, 7), {c: at(*places[c]) for c in range(7)})
    mixed = described(policy, server_of(START, 7), {c: at(*places[order[c]]) for c in range(7)})
    back = {frozenset(order[i] for i in group) for group in groups_of(mixed.assignment)}
    assert back == groups_of(plain.assignment)


def test_new_clusters_start_from_the_one_model() -> None:
    server = described(SUM, server_of(START, 2), {0: at(0, 0), 1: at(90, 90)})
    assert server.centres == (START, START)
    assert reassigned(server, np.array([0, 0]), 2).centres == (START,)


def apart(num_clients: int, size: int = 40, newcomers: tuple[int, ...] = ()) -> Federation:
    """Even clients have their samples along two features, odd ones along two others."""
    rng = np.random.default_rng(7)

    def split(client: int, n: int) -> Split:
        inputs = 0.05 * rng.normal(size=(n, 6))
        first = 3 * (client % 2)
        labels = rng.integers(0, 2, n)
        inputs[np.arange(n), first + labels] += 3 + rng.normal(size=n)
        return Split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))

    clients = tuple(
        ClientData(split(c, size), split(c, 10), split(c, 20)) for c in range(num_clients)
    )
    return Federation(
        clients, torch.zeros(60, 6), ("a", "b"), np.arange(num_clients) % 2, newcomers=newcomers
    )


def test_other_inputs_are_found_before_round_one_and_what_it_costs(config, tmp_path) -> None:
    run_toy(config("rounds=2", *SMALL), apart(6), tmp_path)
    rows = table(tmp_path, "assignments").query("round == 1")
    assert final_groups(tmp_path) == EVEN
    assert rows.sort_values("client")["cluster"].tolist() == [0, 1] * 3
    crossed = table(tmp_path, "exchanged").query(f"item == '{SENT_SUBSPACE}'")
    # Each of 6 clients sends 2 vectors of 6 numbers of 4 bytes, once; nothing comes back for it.
    columns = ["round", "direction", "num_clients", "num_bytes"]
    assert crossed[columns].to_numpy().tolist() == [[1, "up", 6, 6 * 2 * 6 * 4]]


def test_exchanged_labels_are_not_seen(config, toy, tmp_path) -> None:
    # The inputs are the same: what clients call them is no part of the measure.
    run_toy(config("rounds=2", *SMALL), toy(6, (0, 2, 4)), tmp_path)
    assert len(final_groups(tmp_path)) == 1


def test_newcomers_are_asked_when_they_first_train(config, tmp_path) -> None:
    cfg = config("rounds=5", "cohort.newcomers=0.3", "cohort.join_round=3", *SMALL)
    run_toy(cfg, apart(6, newcomers=(0, 3)), tmp_path)
    assert final_groups(tmp_path) == EVEN
    crossed = table(tmp_path, "exchanged").query(f"item == '{SENT_SUBSPACE}'")
    assert crossed[["round", "num_clients"]].to_numpy().tolist() == [[1, 4], [3, 2]]


def test_small_cohorts_train_in_clusters_of_all(config, tmp_path) -> None:
    run_toy(config("rounds=3", "cohort.size=2", *SMALL), apart(6), tmp_path)
    assert final_groups(tmp_path) == EVEN
    assert len(table(tmp_path, "traffic").query("round == 2")) == 2


def test_resuming_changes_no_bit(config, tmp_path) -> None:
    cfg = config(
        "rounds=6", "checkpoint_every=2", "cohort.newcomers=0.3", "cohort.join_round=5", *SMALL
    )
    assert resumed_equals_whole(cfg, apart(6, newcomers=(0, 3)), tmp_path, stop=3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clustering.vectors=0"], "clustering.vectors: must be at least 1, got 0"),
        (
            ["clustering.angles=mean"],
            "clustering.angles: must be one of smallest, sum, got 'mean'",
        ),
        (
            ["clustering.angles=smallest", "clustering.max_angle=91"],
            "clustering.max_angle: must be in [0, 90] degrees for this measure, got 91.0",
        ),
        (
            ["clustering.vectors=2", "clustering.max_angle=181"],
            "clustering.max_angle: must be in [0, 180] degrees for this measure, got 181.0",
        ),
    ],
)
def test_wrong_settings_are_one_line(overrides: list[str], message: str, config) -> None:
    with pytest.raises(ConfigError) as caught:
        config("method=pacfl", *overrides)
    assert str(caught.value) == message
