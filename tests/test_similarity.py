import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.server import start_state
from fedtsd.similarity import OUTPUTS, PUBLIC_COUNT, PUBLIC_SUM, UPDATES, Similarity, forget_updates

POLICY = Similarity(2, "uniform", output_memory=0.5, update_memory=0.7, first_round=2)
A, B = [1.0, 0.0], [0.0, 1.0]  # JS between them is 1


def server(n: int):
    return start_state({"w": torch.zeros(2)}, np.zeros((n, 1), dtype=bool))


def exchange(rows: dict[int, list[list[float]]], round: int, personal: tuple[int, ...] = ()):
    sent = tuple(ClientRequest(c, {}, frozenset({"w"} if c in personal else ())) for c in rows)
    got = tuple(ClientReply(c, {}, 1, outputs=torch.tensor(q)) for c, q in rows.items())
    public = torch.tensor([0, 1], dtype=torch.int32)
    return Request(round, Train((), public), sent), Reply(round, got), public, 3


def measure(state, rows, round, personal=()):
    return POLICY.measure_outputs(state, *exchange(rows, round, personal))


def test_round_one_is_not_read() -> None:
    assert OUTPUTS not in measure(server(2), {0: [A, A], 1: [B, B]}, 1).memory


def test_running_mean_of_pairs_by_client_id() -> None:
    state = measure(server(3), {0: [A, A], 2: [B, A]}, 2)
    m = state.memory[OUTPUTS]
    assert m[0, 2] == m[2, 0] == 0.5  # samples differ in one of two
    assert np.isnan(m[0, 1])
    state = measure(state, {0: [A, A], 2: [B, B]}, 3)
    assert state.memory[OUTPUTS][0, 2] == 0.75  # .5 * .5 + .5 * 1


def test_pairs_with_private_layers_keep_their_value() -> None:
    state = measure(server(3), {0: [A, A], 1: [A, A]}, 2)
    state = measure(state, {0: [A, A], 1: [B, B], 2: [B, B]}, 3, personal=(1,))
    m = state.memory[OUTPUTS]
    assert m[0, 1] == 0.0  # measured before: not taken again
    assert m[0, 2] == 1.0
    assert m[1, 2] == 0.0  # a first measurement is taken all the same


def test_sample_weights_follow_disagreement() -> None:
    state = measure(server(2), {0: [A, A], 1: [B, A]}, 2)
    assert state.memory[PUBLIC_SUM].tolist() == [1.0, 0.0, 0.0]
    assert state.memory[PUBLIC_COUNT].tolist() == [1.0, 1.0, 0.0]
    probability = dataclasses.replace(POLICY, public_sampling="weighted")._probability(state)
    # running means 1, 0 and, unseen, the mean .5; fourth powers 1, 0, .0625
    expected = 0.9 * np.array([1, 0, 0.0625]) / 1.0625 + 0.1 / 3
    assert probability == pytest.approx(expected)


def test_public_samples_are_distinct_and_in_range() -> None:
    policy = dataclasses.replace(POLICY, public_batch=10)
    chosen = policy.choose_public(server(2), 12, np.random.default_rng(0)).tolist()
    assert len(set(chosen)) == 10
    assert min(chosen) >= 0
    assert max(chosen) < 12


def test_updates_are_compared_inside_clusters_over_shared_layers() -> None:
    state = dataclasses.replace(server(4), assignment=np.array([0, 0, 0, 1]), centres=({}, {}))
    start = {"body": torch.zeros(2), "head": torch.zeros(2)}
    moves = {0: [1.0, 0.0], 1: [-1.0, 0.0], 2: [0.0, 0.0], 3: [5.0, 5.0]}
    sent, got = [], []
    for client, move in moves.items():
        keeps_head = client == 1
        names = ["body"] if keeps_head else ["body", "head"]
        sent.append(ClientRequest(client, {n: start[n] for n in names}, frozenset()))
        # Heads differ wildly, but client 1 does not share its own: they must not count.
        trained = {"body": torch.tensor(move), "head": torch.tensor([9.0 * client, 1.0])}
        got.append(ClientReply(client, {n: trained[n] for n in names}, 1))
    request, reply = Request(2, Train((), None), tuple(sent)), Reply(2, tuple(got))
    cosines = POLICY.measure_updates(state, request, reply).memory[UPDATES]
    assert cosines[0, 1] == pytest.approx(-1.0)
    assert cosines[0, 2] == 0.0  # client 2 moved with the mean
    assert np.isnan(cosines[0, 3])


def test_updates_restart_when_the_cluster_changes() -> None:
    state = dataclasses.replace(
        server(3), assignment_round=np.array([5, 0, 0]), memory={UPDATES: np.ones((3, 3))}
    )
    left = forget_updates(state, 5).memory[UPDATES]
    assert np.isnan(left[0]).all()
    assert np.isnan(left[:, 0]).all()
    assert (left[1:, 1:] == 1).all()
    assert not np.isnan(state.memory[UPDATES]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_batch": 0}, "public_batch: must be at least 1, got 0"),
        ({"public_sampling": "even"}, "public_sampling: must be one of uniform, weighted"),
        ({"output_memory": 1.0}, "output_memory: must be in"),
    ],
)
def test_settings_are_checked(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POLICY, **change)
