import dataclasses
import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from fedtsd import records
from fedtsd.checkpoint import read_checkpoint, write_checkpoint
from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.similarity import cosines_of
from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.records import write_similarity
from fedtsd.server import ABSENT, ServerState, start_state
from fedtsd.similarity import (
    FREQUENCIES,
    LANDMARKS,
    OUTPUTS,
    OUTPUTS_AFTER,
    PUBLIC_COUNT,
    PUBLIC_SUM,
    SIGNATURES,
    UPDATES,
    Similarity,
    due,
    forget_updates,
    pairs_of,
    signatures_of,
    work_of,
)

POLICY = Similarity(
    2, "uniform", output_memory=0.5, update_memory=0.7, first_round=2, exact_up_to=9, landmarks=4
)
A, B = [1.0, 0.0], [0.0, 1.0]  # JS between them is 1


def server(n: int):
    return start_state({"w": torch.zeros(2)}, np.zeros((n, 1), dtype=bool))


def exchange(rows: dict[int, list[list[float]]], round: int, personal: tuple[int, ...] = ()):
    sent = tuple(ClientRequest(c, 0, frozenset({"w"} if c in personal else ())) for c in rows)
    got = tuple(ClientReply(c, {}, 1, outputs=torch.tensor(q)) for c, q in rows.items())
    public = torch.tensor([0, 1], dtype=torch.int32)
    request = Request(round, Train((), public, None), ({"w": torch.zeros(2)},), sent)
    return request, Reply(round, got), public, 3


def measure(state, rows, round, personal=()):
    return POLICY.measure_outputs(state, *exchange(rows, round, personal))


def matrix(state, name):
    return pairs_of(state, name).block(np.arange(state.num_clients))


def test_frequencies_are_those_of_mean_outputs() -> None:
    # Clients 0 and 1 say each class as often, of other samples; client 2 says the first alone.
    state = measure(server(3), {0: [A, B], 1: [B, A], 2: [A, A]}, 2)
    assert matrix(state, OUTPUTS)[0].tolist() == pytest.approx([0, 1, 0.5])
    half = 1.5 - 0.75 * np.log2(3)  # JS of (1/2, 1/2) and (1, 0)
    assert matrix(state, FREQUENCIES)[0].tolist() == pytest.approx([0, 0, half])
    # A running mean over rounds like that of the outputs.
    state = measure(state, {0: [A, B], 1: [A, A], 2: [A, A]}, 3)
    assert matrix(state, FREQUENCIES)[0].tolist() == pytest.approx([0, half / 2, half])


def test_round_one_is_not_read() -> None:
    assert OUTPUTS not in measure(server(2), {0: [A, A], 1: [B, B]}, 1).memory


def test_running_mean_of_pairs_by_client_id() -> None:
    state = measure(server(3), {0: [A, A], 2: [B, A]}, 2)
    m = matrix(state, OUTPUTS)
    assert m[0, 2] == m[2, 0] == 0.5  # samples differ in one of two
    assert np.isnan(m[0, 1])
    state = measure(state, {0: [A, A], 2: [B, B]}, 3)
    assert matrix(state, OUTPUTS)[0, 2] == 0.75  # .5 * .5 + .5 * 1


def test_pairs_with_private_layers_keep_their_value() -> None:
    state = measure(server(3), {0: [A, A], 1: [A, A]}, 2)
    state = measure(state, {0: [A, A], 1: [B, B], 2: [B, B]}, 3, personal=(1,))
    m = matrix(state, OUTPUTS)
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
        keeps = frozenset({"head"} if client == 1 else ())
        sent.append(ClientRequest(client, int(client == 3), keeps))
        # Heads differ wildly, but client 1 does not share its own: they must not count.
        trained = {"body": torch.tensor(move), "head": torch.tensor([9.0 * client, 1.0])}
        got.append(ClientReply(client, {n: trained[n] for n in start if n not in keeps}, 1))
    request = Request(2, Train((), None, None), (start, start), tuple(sent))
    cosines = matrix(POLICY.measure_updates(state, request, Reply(2, tuple(got))), UPDATES)
    assert cosines[0, 1] == pytest.approx(-1.0)
    assert cosines[0, 2] == 0.0  # client 2 moved with the mean
    assert np.isnan(cosines[0, 3])


def test_updates_restart_when_the_cluster_changes() -> None:
    state = dataclasses.replace(
        server(3),
        assignment_round=np.array([5, 0, 0]),
        memory=Pairs.of(np.ones((3, 3))).stored(UPDATES),
    )
    left = matrix(forget_updates(state, 5), UPDATES)
    assert np.isnan(left[0, 1:]).all()
    assert left[1, 2] == 1
    assert len(pairs_of(state, UPDATES).keys) == 3  # the state it came from is as it was


def answers(clients: int, seed: int = 0):
    """Everybody answers: random outputs on two samples, random models of two tensors."""
    rng = np.random.default_rng(seed)
    public = torch.tensor([0, 1], dtype=torch.int32)
    sent, got = [], []
    for client in range(clients):
        outputs = torch.from_numpy(rng.dirichlet(np.ones(3), 2)).float()
        tensors = {"w": torch.from_numpy(rng.standard_normal(2)).float()}
        sent.append(ClientRequest(client, 0, frozenset()))
        got.append(ClientReply(client, tensors, 1, outputs=outputs))
    request = Request(2, Train((), public, None), ({"w": torch.zeros(2)},), tuple(sent))
    return request, Reply(2, tuple(got)), public


def measured(policy: Similarity, clients: int):
    request, reply, public = answers(clients)
    state = policy.measure_outputs(server(clients), request, reply, public, 3)
    return policy.measure_updates(state, request, reply)


def test_few_clients_are_measured_pair_by_pair(caplog) -> None:
    state = measured(POLICY, 9)
    assert len(pairs_of(state, OUTPUTS).keys) == len(pairs_of(state, UPDATES).keys) == 36
    assert LANDMARKS not in state.memory
    assert not caplog.records


def test_many_clients_are_compared_with_landmarks(caplog) -> None:
    caplog.set_level(logging.INFO)
    state = measured(POLICY, 30)
    assert state.memory[LANDMARKS].tolist() == [4]
    assert [record.message for record in caplog.records] == [
        "30 clients are more than similarity.exact_up_to=9: each is compared with 4 of them"
    ]
    exact = measured(dataclasses.replace(POLICY, exact_up_to=30), 30)
    for name in (OUTPUTS, OUTPUTS_AFTER, UPDATES):
        pairs = pairs_of(state, name)
        assert len(pairs.keys) == 4 * 26 + 6  # each with the 26 others, and among themselves
        degrees = pairs.degrees(np.arange(30))
        assert sorted(degrees.tolist()) == [4] * 26 + [29] * 4
        if name != UPDATES:
            whole = pairs_of(exact, name)
            assert pairs.values == pytest.approx(whole.values[whole.known_to(pairs)], abs=1e-12)
    assert not np.array_equal(degrees == 29, np.arange(30) < 4)  # drawn, not the first ones
    _, reply, _ = answers(30)  # updates: less the mean direction of the landmarks
    models = [[row.tensors["w"].numpy()] for row in reply.rows]
    cosines = cosines_of(models, [np.zeros(2)], np.flatnonzero(degrees == 29))
    everybody = pairs.means_to(np.where(degrees == 29, np.cumsum(degrees == 29) - 1, ABSENT))
    others = degrees < 29
    assert everybody[others] == pytest.approx(cosines[others], abs=1e-12)


def test_the_same_landmarks_serve_every_round() -> None:
    state = measured(POLICY, 30)
    request, reply, public = answers(30, seed=1)
    again = POLICY.measure_outputs(state, request, reply, public, 3)
    assert again.memory[f"{OUTPUTS}.pairs"].tolist() == state.memory[f"{OUTPUTS}.pairs"].tolist()


def test_what_is_kept_of_many_clients_is_small() -> None:
    state = server(10_000)
    public = torch.tensor([0, 1], dtype=torch.int32)
    for round in range(2, 7):
        _, reply, _ = answers(40, seed=round)
        cohort = np.random.default_rng(round).choice(10_000, 40, replace=False).tolist()
        rows = [dataclasses.replace(r, client=c) for r, c in zip(reply.rows, cohort, strict=True)]
        sent = tuple(ClientRequest(client, 0, frozenset()) for client in cohort)
        request = Request(round, Train((), public, None), ({"w": torch.zeros(2)},), sent)
        policy = dataclasses.replace(POLICY, exact_up_to=40)
        state = policy.measure_outputs(state, request, Reply(round, tuple(rows)), public, 3)
        state = policy.measure_updates(state, request, Reply(round, tuple(rows)))
    assert len(pairs_of(state, OUTPUTS).keys) == 5 * 40 * 39 // 2
    size = sum(array.nbytes for array in state.memory.values())
    assert size < 1e6  # a matrix of all pairs is 800 MB


@dataclass
class Written:
    """Stands for a run folder and for a federation of three clients."""

    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    num_clients: int = 3

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        self.arrays[name] = arrays

    def label_counts(self, split: str) -> np.ndarray:
        return np.array([[3, 0], [0, 3], [0, 3]])


def test_matrices_are_written_whole() -> None:
    state = measure(server(3), {0: [A, A], 2: [B, A]}, 2)
    state = dataclasses.replace(
        state, memory={**state.memory, **Pairs.of(np.full((3, 3), 0.5)).stored(UPDATES)}
    )
    place = Written()
    write_similarity(place, place, state)
    found = place.arrays["similarity"]
    nan = np.nan
    np.testing.assert_array_equal(found["outputs"], [[0, nan, 0.5], [nan, 0, nan], [0.5, nan, 0]])
    np.testing.assert_array_equal(found["labels"], [[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    assert found["updates"].diagonal().tolist() == [1, 1, 1]
    assert sorted(found) == ["labels", "outputs", "outputs_after", "outputs_before", "updates"]


def test_of_very_many_clients_pairs_are_written(monkeypatch) -> None:
    monkeypatch.setattr(records, "MOST_PAIRED", 2)
    place = Written()
    write_similarity(place, place, measure(server(3), {0: [A, A], 2: [B, A]}, 2))
    assert list(place.arrays) == ["pairs"]
    assert place.arrays["pairs"]["outputs"].tolist() == [0.5]
    assert place.arrays["pairs"]["outputs_clients"].tolist() == [[0, 2]]
    write_similarity(nothing := Written(), nothing, server(3))
    assert not nothing.arrays


def test_a_checkpoint_keeps_the_pairs(tmp_path) -> None:
    for rows in ({0: [A, A], 2: [B, A]}, {}):
        state = measure(server(3), rows, 2) if rows else forget_updates(measured(POLICY, 3), 0)
        write_checkpoint(tmp_path / "state", state.state_dict())
        again = ServerState.from_state_dict(read_checkpoint(tmp_path / "state"))
        for name in (OUTPUTS, UPDATES):
            np.testing.assert_array_equal(matrix(again, name), matrix(state, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_batch": 0}, "public_batch: must be at least 1, got 0"),
        ({"public_sampling": "even"}, "public_sampling: must be one of uniform, weighted"),
        ({"output_memory": 1.0}, "output_memory: must be in"),
        ({"landmarks": 1}, "landmarks: must be 2 to exact_up_to = 9, got 1"),
        ({"landmarks": 10}, "landmarks: must be 2 to exact_up_to = 9, got 10"),
    ],
)
def test_settings_are_checked(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POLICY, **change)


def test_outputs_are_asked_of_those_of_whom_they_would_be_read() -> None:
    state = server(4)
    assert POLICY.tellers(state, 1).tolist() == [False] * 4  # round 1 is not read
    assert POLICY.tellers(state, 2).tolist() == [True] * 4
    met = measure(state, {c: [A, B] for c in range(4)}, 2)

    def tellers(state, *private: int) -> list[int]:
        personal = np.isin(np.arange(4), private)[:, None]
        return np.flatnonzero(
            POLICY.tellers(dataclasses.replace(state, personal=personal), 3)
        ).tolist()

    assert tellers(met, 1) == [0, 2, 3]
    assert tellers(met, 1, 2, 3) == []  # one alone makes no pair
    some = measure(state, {c: [A, B] for c in (0, 1, 2)}, 2)
    assert tellers(some, 0, 1, 2) == [0, 1, 2, 3]  # nobody has been compared with client 3
    assert tellers(met, 0, 1, 2, 3) == []


def test_who_tells_nothing_is_not_measured() -> None:
    request, reply, public, pool = exchange({0: [A, A], 1: [B, B], 2: [B, B]}, 2)
    rows = (reply.rows[0], dataclasses.replace(reply.rows[1], outputs=None), reply.rows[2])
    state = POLICY.measure_outputs(server(3), request, Reply(2, rows), public, pool)
    pairs = pairs_of(state, OUTPUTS)
    assert [end.tolist() for end in pairs.ends] == [[0], [2]]


def sent_back(state: ServerState, clients: list[int], round: int, seed: int = 0):
    """A round in which some clients come back with models of their own."""
    rng = np.random.default_rng(seed)
    models = {c: {"w": torch.from_numpy(rng.normal(size=2).astype(np.float32))} for c in clients}
    sent = tuple(ClientRequest(c, int(state.assignment[c]), frozenset()) for c in clients)
    got = tuple(ClientReply(c, model, 1) for c, model in models.items())
    request = Request(round, Train((), None, None), state.centres, sent)
    return POLICY.measure_updates(state, request, Reply(round, got))


def test_how_much_each_client_trained_last_is_kept() -> None:
    state = server(4)
    for round, clients in ((2, [0, 1, 3]), (3, [1, 3])):
        sent = tuple(ClientRequest(c, 0, frozenset()) for c in clients)
        got = tuple(ClientReply(c, {}, 10, num_samples=100 * round + c) for c in clients)
        request = Request(round, Train((), None, None), state.centres, sent)
        state = POLICY.measure_updates(state, request, Reply(round, got))
    assert work_of(state).tolist() == [200, 301, 0, 303]


def test_signatures_are_kept_where_some_are_absent_and_only_there() -> None:
    assert SIGNATURES not in sent_back(server(5), [0, 1, 2, 3, 4], 2).memory
    state = sent_back(server(6), [0, 1, 2, 4], 3)
    assert signatures_of(state).visits.tolist() == [3, 3, 3, 0, 3, 0]
    assert len(pairs_of(state, UPDATES).keys) == 6  # pairs that met are measured all the same
    assert not signatures_of(sent_back(server(6), [0, 1, 2, 4], 1)).visits.any()  # round 1


def test_signatures_of_a_new_cluster_stay_and_those_of_a_joiner_do_not() -> None:
    state = sent_back(server(8), list(range(7)), 3)
    split = dataclasses.replace(
        state,
        centres=state.centres * 2,
        assignment=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        assignment_round=np.array([0, 0, 0, 4, 4, 4, 4, 4]),
    )
    left = signatures_of(forget_updates(split, 4))
    assert left.visits.tolist() == [3, 3, 3, 0, 3, 3, 3, 0]
    old = signatures_of(state).directions
    assert np.array_equal(left.directions[:3], old[:3])
    assert left.directions[4:7] == pytest.approx(old[4:7] - old[4:7].mean(axis=0), abs=1e-6)


def known(n: int, *met: tuple[int, int], assignment: list[int] | None = None) -> ServerState:
    matrix = np.full((n, n), np.nan)
    for i, j in met:
        matrix[i, j] = matrix[j, i] = 0.5
    state = dataclasses.replace(server(n), memory=Pairs.of(matrix).stored(OUTPUTS))
    return dataclasses.replace(state, assignment=np.array(assignment or [0] * n))


def chosen_for(state: ServerState, round: int, chosen: list[int], coverage: float = 0.7) -> list:
    return due(state, round, 4, coverage, np.array(chosen)).tolist()


def test_nobody_is_chosen_for_before_enough_have_met_a_mate() -> None:
    state = known(4, (0, 1))
    assert chosen_for(state, 4, [0] * 4) == [False] * 4
    state = known(4, (0, 1), (1, 2))
    assert chosen_for(state, 3, [0] * 4) == [False] * 4
    assert chosen_for(state, 4, [0] * 4) == [True, True, True, False]
    # Once somebody was chosen for, the rest follow as they meet somebody.
    assert chosen_for(known(4, (0, 1), (3, 1)), 9, [5, 5, 5, 0]) == [False, False, False, True]


def test_who_is_alone_needs_no_mate_and_who_moved_is_due_again() -> None:
    state = known(4, (0, 1), (1, 2), assignment=[0, 0, 0, 1])
    assert chosen_for(state, 4, [0] * 4) == [True] * 4
    moved = dataclasses.replace(state, assignment_round=np.array([0, 6, 0, 6]))
    assert chosen_for(moved, 6, [4] * 4) == [False, True, False, True]
    assert chosen_for(moved, 7, [4, 6, 4, 6]) == [False] * 4


def test_absent_newcomers_do_not_count() -> None:
    state = known(4, (0, 1), assignment=[0, 0, -1, -1])
    assert chosen_for(state, 4, [0] * 4, coverage=1.0) == [True, True, False, False]
