import dataclasses
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clustering.cfl import CFL, COSINES, MEAN_NORMS, NORMS, bipartition
from fedtsd.execution import build
from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.minimum import with_minimum
from fedtsd.report.figures import draw
from fedtsd.report.page.grouping import grouping
from fedtsd.report.tables import RunTables
from fedtsd.run_folder import RunFolder
from fedtsd.server import ABSENT, reassigned, start_state
from fedtsd.similarity import pairs_of
from tests.clustering.naive import close, flat, mean_of, trained, unequal
from tests.runs import run_toy, run_twice, table, tables_of
from tests.test_experiment import bits

TOY = (
    "method=cfl", "partition.num_clients=8", "model.hidden=[8]", "training.lr=0.02",
    "clustering.eps1=0.5", "clustering.eps2=0.3",
)  # fmt: skip
FLIPPED = (1, 3, 4, 6)


def policy(eps1: float = 1.0, eps2: float = 1.0, gamma_max: float = 0.0, min_clients: int = 2):
    return CFL(eps1, eps2, gamma_max, min_clients)


def server(n: int, dimensions: int = 2, newcomers: tuple[int, ...] = ()):
    centre = {"w": torch.full((dimensions,), 10.0)}
    return start_state(centre, np.zeros((n, 1), dtype=bool), newcomers)


def after(found: CFL, state, updates: dict[int, list[float]], sizes=None, round: int = 1):
    """A round in which these clients answer with these updates of their centres."""
    rows, asked = [], []
    for client, update in updates.items():
        cluster = int(state.assignment[client])
        tensors = {"w": state.centres[cluster]["w"] + torch.tensor(update, dtype=torch.float32)}
        rows.append(ClientReply(client, tensors, 1 if sizes is None else sizes[client]))
        asked.append(ClientRequest(client, cluster, frozenset()))
    request = Request(round, Train((), None, None), state.centres, tuple(asked))
    state = found.measure(state, request, Reply(round, tuple(rows)))
    return found.assign(state, round, np.random.default_rng(0))


def parts_of(state) -> set[tuple[int, ...]]:
    return {tuple(state.members(k).tolist()) for k in range(len(state.centres))}


def test_two_clients_by_hand() -> None:
    """Updates (3, 4) and (-3, 4) of length 5; with weights 1 and 3 their mean is (-1.5, 4)."""
    updates, sizes = {0: [3.0, 4.0], 1: [-3.0, 4.0]}, [1, 3]
    mean = np.hypot(1.5, 4.0)
    state = after(policy(), server(2), updates, sizes)
    assert state.memory[NORMS] == pytest.approx([5, 5], abs=1e-5)
    assert state.memory[MEAN_NORMS] == pytest.approx([mean], abs=1e-5)
    assert pairs_of(state, COSINES).values == pytest.approx([0.28], abs=1e-6)  # (16 - 9) / 25
    apart = np.sqrt((1 - 0.28) / 2)  # 0.6
    splits = {
        policy(mean + 0.01, 4.99): True,
        policy(mean - 0.01, 4.99): False,  # the cluster still moves
        policy(mean + 0.01, 5.01): False,  # its members have come to rest too
        policy(mean + 0.01, 4.99, apart - 0.01): True,
        policy(mean + 0.01, 4.99, apart + 0.01): False,  # they are too much alike
        policy(mean + 0.01, 4.99, min_clients=3): False,
    }
    for found, splits_now in splits.items():
        state = after(found, server(2), updates, sizes)
        assert parts_of(state) == ({(0,), (1,)} if splits_now else {(0, 1)}), found
        assert [d.split for d in state.decisions] == ([] if found.min_clients > 2 else [splits_now])


def test_a_part_too_small_to_aggregate_is_not_split_off() -> None:
    updates = {0: [2.0, 0.0], 1: [-2.0, 0.1], 2: [2.0, 0.2], 3: [2.0, -0.3]}
    assert parts_of(after(policy(1.5), server(4), updates)) == {(0, 2, 3), (1,)}
    state = after(policy(1.5), with_minimum(server(4), 2), updates)
    assert parts_of(state) == {(0, 1, 2, 3)}
    assert [decision.split for decision in state.decisions] == [False]


def test_a_split_keeps_the_centre_and_says_when() -> None:
    updates = {0: [2.0, 0.0], 1: [-2.0, 0.1], 2: [2.0, 0.2], 3: [-2.0, -0.3]}
    state = after(policy(), server(4), updates, round=7)
    assert state.assignment.tolist() == [0, 1, 0, 1]
    assert state.assignment_round.tolist() == [7, 7, 7, 7]
    assert [centre["w"].tolist() for centre in state.centres] == [[10, 10], [10, 10]]
    (decision,) = state.decisions
    assert (decision.cluster, decision.size, decision.num_clusters_proposed) == (0, 4, 2)
    assert decision.passed
    assert decision.split
    assert np.isnan([decision.hopkins, decision.hopkins_p, decision.silhouette]).all()


def test_a_cluster_is_tested_only_if_all_its_members_answered() -> None:
    state = server(5, newcomers=(4,))
    some = {0: [2.0, 0.0], 1: [-2.0, 0.0], 2: [2.0, 0.0]}
    waiting = after(policy(), state, some)
    assert parts_of(waiting) == {(0, 1, 2, 3)}
    assert waiting.decisions == ()
    assert np.isnan(waiting.memory[MEAN_NORMS]).all()
    everybody = after(policy(), state, {**some, 3: [-2.0, 0.0]})  # newcomers are not waited for
    assert everybody.assignment.tolist() == [0, 1, 0, 1, ABSENT]


def test_clusters_are_tested_apart_and_old_numbers_stay() -> None:
    state = reassigned(server(6), np.array([0, 1, 0, 1, 0, 1]), 0)
    updates = {c: [0.0, 3.0] for c in range(6)}
    updates |= {1: [3.0, 0.0], 3: [-3.0, 0.0], 5: [-3.0, 0.1]}
    state = after(policy(1.5), state, updates)
    assert state.assignment.tolist() == [0, 1, 0, 2, 0, 2]
    assert [(d.cluster, d.split) for d in state.decisions] == [(0, False), (1, True)]
    assert state.assignment_round.tolist() == [0, 1, 0, 1, 0, 1]


def test_who_learned_nothing_is_like_nobody() -> None:
    state = after(policy(), server(3), {0: [0.0, 0.0], 1: [2.0, 0.0], 2: [-2.0, 0.0]})
    assert pairs_of(state, COSINES).block(np.arange(3), own=1.0)[0].tolist() == [1, 0, 0]
    assert len(parts_of(state)) == 2


def random_cosines(count: int, dimensions: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.clip(rows @ rows.T, -1, 1)


def across_of(cosines: np.ndarray, labels: np.ndarray) -> float:
    return float(cosines[np.ix_(labels == 0, labels == 1)].max())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_no_bipartition_is_less_alike_across(count: int, dimensions: int, seed: int) -> None:
    cosines = random_cosines(count, dimensions, seed)
    labels, across = bipartition(cosines)
    assert sorted(set(labels.tolist())) == [0, 1]
    assert labels[0] == 0
    assert across == across_of(cosines, labels)
    every = [
        across_of(cosines, np.array([0, *(code >> i & 1 for i in range(count - 1))]))
        for code in range(1, 2 ** (count - 1))
    ]
    assert across == min(every)


def test_complete_linkage_is_not_optimal() -> None:
    """On an arc with growing gaps the best cut is the widest gap, at the end."""
    from scipy.cluster.hierarchy import fcluster, linkage

    angles = np.array([0.0, 0.20, 0.41, 0.63, 0.86, 1.10])
    cosines = np.cos(angles[:, None] - angles[None, :])
    labels, across = bipartition(cosines)
    assert labels.tolist() == [0, 0, 0, 0, 0, 1]
    assert across == pytest.approx(np.cos(0.24))
    condensed = (1 - cosines)[np.triu_indices(6, 1)]
    complete = fcluster(linkage(condensed, "complete"), 2, "maxclust") - 1
    assert across_of(cosines, complete) > across + 0.002


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 2**32 - 1))
def test_permuting_clients_permutes_the_clusters(order: list[int], seed: int) -> None:
    updates = np.random.default_rng(seed).normal(size=(7, 4))
    found = after(policy(9, 0.1), server(7, 4), {c: updates[c].tolist() for c in range(7)})
    moved = after(policy(9, 0.1), server(7, 4), {c: updates[order[c]].tolist() for c in range(7)})
    expected = {tuple(sorted(order.index(c) for c in part)) for part in parts_of(found)}
    assert parts_of(moved) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_clusters_stay_a_partition_that_only_gets_finer(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = server(count, 3)
    for r in range(1, 6):
        before = parts_of(state)
        cohort = np.flatnonzero(rng.uniform(size=count) < 0.8).tolist()
        updates = {c: rng.normal(size=3).tolist() for c in cohort}
        state = after(policy(1.0, 0.5), state, updates, round=r)
        parts = parts_of(state)
        assert sorted(c for part in parts for c in part) == list(range(count))
        assert all(parts)  # none is empty
        assert all(any(set(part) <= set(old) for old in before) for part in parts)
        for part in parts - before:
            assert set(before) - parts >= {old for old in before if set(part) <= set(old)}
            assert all(c in cohort for c in part)  # only who answered is split


@pytest.mark.parametrize(
    ("field", "value"),
    [("eps1", 0.0), ("eps2", -1.0), ("gamma_max", 1.0), ("gamma_max", -0.1), ("min_clients", 1)],
)
def test_values_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field}: must be .*, got {value}"):
        dataclasses.replace(policy(), **{field: value})


def naive_split(updates: np.ndarray, weights: list[int], eps1: float, eps2: float):
    """Two lists of positions, by trying every bipartition; None if the cluster stays whole."""
    mean = sum(w * u for w, u in zip(weights, updates, strict=True)) / sum(weights)
    lengths = [np.sqrt((u**2).sum()) for u in updates]
    if len(updates) < 3 or np.sqrt((mean**2).sum()) >= eps1 or max(lengths) <= eps2:
        return None
    places = range(len(updates))
    best = None
    for code in range(1, 2 ** (len(updates) - 1)):
        second = [i for i in places if i and code >> (i - 1) & 1]
        first = [i for i in places if i not in second]
        worst = max(
            (updates[i] @ updates[j]) / (lengths[i] * lengths[j]) for i in first for j in second
        )
        if best is None or worst < best[0]:
            best = worst, first, second
    return best[1:]


def test_a_naive_cfl_agrees(config, toy) -> None:
    """Algorithm 3 of the paper: split clusters that came to rest, then average in each."""
    eps1, eps2 = 0.5, 0.3
    cfg = config(*TOY, "engine=sequential", "rounds=6")
    sizes = [40, 13, 31, 22, 40, 9, 17, 35]
    federation = unequal(toy(8, flipped=FLIPPED), tuple(sizes))
    experiment = build(cfg, federation)
    state = experiment.start.server
    clusters, centres = [list(range(8))], [dict(state.centres[0])]
    for r in range(1, 7):
        request = experiment.train_request(state, r)
        reply = experiment.channel.exchange(request)
        state = experiment.measure(state, request, reply)
        state = cfg.clustering.assign(state, r, np.random.default_rng(0))
        state = cfg.aggregation.update(state, reply, experiment.layers)
        models, new, parents = {}, [], []
        for members, centre in zip(clusters, centres, strict=True):
            for c in members:
                models[c] = trained(cfg, federation, c, r, centre)
            updates = np.stack([flat(models[c]) - flat(centre) for c in members])
            split = naive_split(updates, [sizes[c] for c in members], eps1, eps2)
            parents.append([members[i] for i in split[0]] if split else members)
            if split:
                new.append([members[i] for i in split[1]])
        clusters = parents + new
        centres = [mean_of([models[c] for c in m], [sizes[c] for c in m]) for m in clusters]
        assert [state.members(k).tolist() for k in range(len(state.centres))] == clusters
        for found, expected in zip(state.centres, centres, strict=True):
            close(found, expected)
    experiment.engine.close()
    assert request.task.sums is None  # the server must meet each model
    assert len(clusters) > 1


def test_flipped_clients_are_found_and_told(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=4", "seed=0")
    run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert sorted(summary["clusters"]) == [[0, 2, 5, 7], [1, 3, 4, 6]]
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9
    rows, rounds = table(tmp_path, "clustering"), table(tmp_path, "rounds")
    (split,) = rows[rows["split"] == 1].to_dict("records")
    assert (split["stage"], split["cluster"], split["size"]) == (2, 0, 8)
    grew = rounds["round"][rounds["num_clusters"].diff() == 1].tolist()
    assert grew in ([split["round"]], [])  # it may be the first
    assert rows[["hopkins", "hopkins_p", "silhouette"]].isna().all(axis=None)
    assert rounds["hopkins"].isna().all()
    (tmp_path / "config.yaml").write_text("clustering: {eps1: 0.5, min_clients: 3}\n")
    assert {path.stem for path in draw(tmp_path, ("clusters", "hopkins"))} == {
        "clusters",
        "hopkins",
    }
    why = grouping(RunTables.read(tmp_path)).why
    assert [told.key for told in why] == ["clusters.split.plain"]


def test_clients_alike_are_not_split(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "clustering.eps1=0.1", "rounds=4")
    run_toy(cfg, toy(8), tmp_path)
    rows = table(tmp_path, "clustering")
    assert rows["round"].tolist() == [1, 2, 3, 4]
    assert not rows["split"].any()
    (tmp_path / "config.yaml").write_text("clustering: {eps1: 0.1, min_clients: 3}\n")
    assert grouping(RunTables.read(tmp_path)).why[0].key == "clusters.none.plain"


def test_only_what_is_shared_is_compared(config, toy) -> None:
    cfg = config(*TOY, "personalization=last", "engine=sequential")
    experiment = build(cfg, toy(8))
    state = experiment.start.server
    request = experiment.train_request(state, 1)
    reply = experiment.channel.exchange(request)
    state = experiment.measure(state, request, reply)
    experiment.engine.close()
    assert reply.rows[0].tensors.keys() == {"fc1.weight", "fc1.bias"}
    for row in reply.rows:
        centre = {name: request.models[0][name] for name in row.tensors}
        length = np.linalg.norm(flat(dict(row.tensors)) - flat(centre))
        assert state.memory[NORMS][row.client] == pytest.approx(length)


def test_nothing_shared_is_nothing_to_compare(config, toy, tmp_path) -> None:
    run_toy(config(*TOY, "personalization=all", "rounds=2"), toy(8), tmp_path)
    assert table(tmp_path, "clustering").empty


def test_partial_cohorts_split_only_clusters_that_are_all_there(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=6", "cohort.size=5")
    run_toy(cfg, toy(8, flipped=FLIPPED), tmp_path)
    assert table(tmp_path, "clustering").empty  # five of eight are never all
    assert set(table(tmp_path, "assignments")["cluster"]) == {0}


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config(*TOY, "rounds=6", "checkpoint_every=2", "clustering.eps1=0.15")
    federation = toy(8, flipped=FLIPPED)
    whole, parts = run_twice(cfg, federation, tmp_path, stop=3)
    found = tables_of(parts)
    for name, expected in tables_of(whole).items():
        pd.testing.assert_frame_equal(found[name], expected, check_exact=True)
    ends = [RunFolder(folder).load_checkpoint() for folder in (whole, parts)]
    assert bits(ends[0]) == bits(ends[1])
    numbers = table(whole, "rounds")["num_clusters"].tolist()
    assert all(a <= b for a, b in pairwise(numbers))
    assert numbers[-1] > 1
