"""Clusters that differ in their coding alone: how they are told, and what averaging them means."""

import dataclasses
import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean, sums_in
from fedtsd.clustering.similarity import js_divergence
from fedtsd.coding import (
    FAMILY,
    MatchedCoding,
    OwnCoding,
    class_divergences,
    coding_rows,
    families_of,
    matched,
    mean_outputs,
)
from fedtsd.errors import ConfigError
from fedtsd.execution import build
from fedtsd.loading import load_federation
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer
from fedtsd.robust import Median
from fedtsd.run_folder import RunFolder
from fedtsd.server import ABSENT, ServerState, joined, reassigned, start_state
from tests.runs import run_toy, run_twice, table, tables_of

CODING = MatchedCoding(unexplained=0.2, alike_below=0.1)
LAYERS = (Layer("body", ("body",)), Layer("head", ("head", "head.bias")))
LAST = LAYERS[-1]
NUM_CLASSES = 4
OTHERS = [list(names) for names in itertools.permutations(range(NUM_CLASSES))][1:]


def laws(seed: int, samples: int = 60, classes: int = NUM_CLASSES, sharp: float = 3.0):
    """Outputs of a model that is rather sure, [B, Y]; each class is as frequent as any."""
    logits = np.random.default_rng(seed).normal(size=(samples, classes))
    logits[np.arange(samples), np.arange(samples) % classes] += sharp
    return torch.softmax(torch.tensor(logits), dim=1).float().numpy()


def called(outputs: np.ndarray, names: list[int]) -> np.ndarray:
    """The same outputs by who calls class c names[c]."""
    told = np.empty_like(outputs)
    told[:, names] = outputs
    return told


def names_in(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    return matched(one, other)[0] if CODING.differ_in_coding(one, other) else None


def model(body: float, head: list[float]) -> dict[str, torch.Tensor]:
    rows = torch.tensor(head)
    return {"body": torch.tensor([body]), "head": rows[:, None], "head.bias": 10 * rows}


def server(*clusters: int) -> ServerState:
    state = start_state(model(0.0, [0.0] * NUM_CLASSES), np.zeros((len(clusters), 2), dtype=bool))
    centres = state.centres * (max(clusters) + 1)
    return dataclasses.replace(state, centres=centres, assignment=np.array(clusters))


def reply(outputs: dict[int, np.ndarray], models=None, round: int = 1) -> Reply:
    rows = (
        ClientReply(c, (models or {}).get(c, {}), 5, outputs=torch.tensor(told))
        for c, told in outputs.items()
    )
    return Reply(round, tuple(rows))


def told_by(state: ServerState) -> list[dict[int, list[int]]]:
    return [{c: names.tolist() for c, names in family.items()} for family in families_of(state)]


# What the server goes by


def test_the_trace_of_class_divergences_is_the_divergence() -> None:
    one, other = laws(0), laws(1)
    whole = js_divergence(np.stack([one, other]))[0][0, 1]
    assert np.trace(class_divergences(one, other)) == pytest.approx(whole, abs=1e-6)


def test_class_divergences_by_hand() -> None:
    # Sure of class 0 against sure of class 1, one sample: a class that one has and the other has
    # not adds half a bit; one that both have, or neither, nothing.
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert class_divergences(one, other).tolist() == [[0.5, 0.0], [0.0, 0.5]]


@settings(max_examples=30, deadline=None)
@given(names=st.permutations(range(NUM_CLASSES)), seed=st.integers(0, 99))
def test_other_names_are_found_and_nothing_else_is_taken_for_them(names, seed: int) -> None:
    one = laws(seed)
    found = names_in(one, called(one, names))
    if names == list(range(NUM_CLASSES)):
        assert found is None  # nothing differs
    else:
        assert found is not None
        assert found.tolist() == names


def test_names_are_found_in_outputs_that_differ_a_little() -> None:
    names = [1, 2, 3, 0]
    one, noise = laws(0, samples=200), laws(5, samples=200, sharp=0)
    other = called(0.9 * one + 0.1 * noise, names)
    assert names_in(one, other).tolist() == names


def test_other_frequencies_are_not_other_names() -> None:
    # One knows classes 0 and 1, the other 2 and 3: matched in pairs they would be alike.
    one = np.tile([[0.9, 0.1, 0.0, 0.0], [0.1, 0.9, 0.0, 0.0]], (30, 1))
    other = called(one, [2, 3, 0, 1])
    matched = class_divergences(one, other)[np.arange(4), [2, 3, 0, 1]].sum()
    assert matched == pytest.approx(0)
    assert not CODING.differ_in_coding(one, other)


def test_other_answers_are_not_other_names() -> None:
    # As sure and as frequent, but of other samples.
    one, other = laws(0), np.random.default_rng(3).permutation(laws(0))
    assert not CODING.differ_in_coding(one, other)
    assert MatchedCoding(0.99, 0.1).differ_in_coding(one, other)


def test_what_is_alike_is_left_alone() -> None:
    unsure = 0.97 / NUM_CLASSES + 0.03 * laws(0)
    assert not CODING.differ_in_coding(unsure, called(unsure, [1, 0, 3, 2]))


def test_a_cluster_is_heard_as_the_mean_of_its_members() -> None:
    heard = mean_outputs(server(0, 1, 0), reply({2: laws(2), 0: laws(0), 1: laws(1)}))
    assert list(heard) == [0, 1]
    assert heard[0] == pytest.approx((laws(0).astype(float) + laws(2)) / 2)


# Families


NAMES = [1, 2, 3, 0]
BACK = [3, 0, 1, 2]  # who calls c NAMES[c] is called so by the other


def by(weighting: str):
    return lambda state, told: sums_in(state, told, weighting)


def two_codings(round: int = 1) -> Reply:
    return reply({0: laws(0), 1: called(laws(0), NAMES)}, round=round)


def relation(state: ServerState, one: int, other: int) -> list[int]:
    """What one calls the classes of the other."""
    (family,) = [f for f in families_of(state) if one in f and other in f]
    return family[one][family[other].argsort()].tolist()


def test_two_clusters_become_a_family() -> None:
    state = CODING.compare(server(0, 1), two_codings())
    assert relation(state, 1, 0) == NAMES
    assert relation(state, 0, 1) == BACK


def test_families_of_several_clusters_beside_one_that_differs() -> None:
    other = np.random.default_rng(3).permutation(laws(0))
    outputs = {
        0: laws(0), 1: other, 2: called(laws(0), NAMES), 3: called(laws(0), BACK),
    }  # fmt: skip
    state = CODING.compare(server(0, 1, 2, 3), reply(outputs))
    assert [set(family) for family in families_of(state)] == [{0, 2, 3}]
    assert relation(state, 2, 0) == NAMES
    assert relation(state, 3, 0) == BACK
    assert relation(state, 3, 2) == [2, 3, 0, 1]  # two steps back from NAMES


def test_clusters_of_the_same_names_are_not_put_together_again() -> None:
    # 0 and 1 answer alike; the policy set them apart for another reason.
    outputs = {0: laws(0), 1: laws(0), 2: called(laws(0), NAMES)}
    state = CODING.compare(server(0, 1, 2), reply(outputs))
    (family,) = families_of(state)
    assert len(family) == 2
    assert 2 in family


def test_names_are_matched_again_when_outputs_come() -> None:
    state = CODING.compare(server(0, 1), two_codings())
    better = reply({0: laws(0), 1: called(laws(0), [1, 0, 3, 2])}, round=2)
    assert relation(CODING.compare(state, better), 1, 0) == [1, 0, 3, 2]


def test_names_that_were_wrong_in_few_classes_are_mended() -> None:
    # Two of ten classes were taken for each other where the family has its common names from: less
    # of a difference than what makes a family.
    outputs = {
        k: called(laws(0, classes=10, sharp=2.0), np.roll(range(10), k).tolist()) for k in range(4)
    }
    state = CODING.compare(server(0, 1, 2, 3), reply(outputs))
    (common,) = (k for k, names in families_of(state)[0].items() if (names == np.arange(10)).all())
    swap = [1, 0, *range(2, 10)]
    better = {**outputs, common: called(outputs[common], swap)}
    assert not CODING.differ_in_coding(outputs[common], better[common])
    other = 0 if common else 1
    expected = [swap[name] for name in relation(state, common, other)]
    assert relation(CODING.compare(state, reply(better, round=2)), common, other) == expected


def test_who_turns_out_to_share_its_names_leaves_the_family() -> None:
    # Cluster 2 came in by wrong names; the right ones are those of cluster 1.
    wrong = [NAMES[1], NAMES[0], *NAMES[2:]]
    outputs = {0: laws(0), 1: called(laws(0), NAMES), 2: called(laws(0), wrong)}
    state = CODING.compare(server(0, 1, 2), reply(outputs))
    assert [set(family) for family in families_of(state)] == [{0, 1, 2}]
    better = {**outputs, 2: outputs[1]}
    state = CODING.compare(state, reply(better, round=2))
    assert [set(family) for family in families_of(state)] in ([{0, 1}], [{0, 2}])
    same = CODING.compare(state, reply(better, round=3))
    assert [set(family) for family in families_of(same)] == [set(families_of(state)[0])]


def test_who_does_not_answer_stays_in_the_family() -> None:
    state = CODING.compare(server(0, 1), two_codings())
    assert told_by(CODING.compare(state, reply({1: laws(3)}, round=2))) == told_by(state)
    assert told_by(CODING.compare(state, Reply(2, ()))) == told_by(state)
    assert told_by(CODING.compare(state, reply({}, round=2))) == told_by(state)


def test_a_new_cluster_finds_a_family_of_which_only_one_answers() -> None:
    state = CODING.compare(server(0, 1, 2), two_codings())
    outputs = {1: called(laws(0), NAMES), 2: called(laws(0), BACK)}
    state = CODING.compare(state, reply(outputs, round=2))
    assert [set(family) for family in families_of(state)] == [{0, 1, 2}]
    assert relation(state, 1, 0) == NAMES
    assert relation(state, 2, 0) == BACK


def test_a_cluster_that_is_split_leaves_its_family() -> None:
    outputs = {c: laws(0) if c < 2 else called(laws(0), NAMES) for c in range(4)}
    state = CODING.compare(server(0, 0, 1, 1), reply(outputs))
    assert len(families_of(state)) == 1
    state = reassigned(state, np.array([0, 0, 1, 2]), round=2)
    assert families_of(state) == []
    # Both halves answer alike: one of them may come back, the other may not.
    state = CODING.compare(state, reply(outputs, round=2))
    (family,) = families_of(state)
    assert len(family) == 2
    assert 0 in family


def test_who_moves_takes_the_names_of_the_new_cluster() -> None:
    outputs = {c: laws(0) if c < 2 else called(laws(0), NAMES) for c in range(4)}
    state = CODING.compare(server(0, 0, 1, 1), reply(outputs))
    moved = joined(state, {0: 1}, round=2)
    assert relation(moved, 1, 0) == NAMES  # those who stayed tell
    last = joined(moved, {1: 1}, round=3)
    assert families_of(last) == []  # nobody is left in cluster 0
    outputs = {0: called(laws(0), NAMES), 1: laws(0)}
    assert relation(CODING.compare(moved, reply(outputs, round=2)), 1, 0) == NAMES


def test_absent_newcomers_are_in_no_family() -> None:
    state = server(0, 1, 1)
    state = dataclasses.replace(state, assignment=np.array([0, 1, ABSENT]))
    state = CODING.compare(state, two_codings())
    assert state.memory[FAMILY].tolist() == [0, 0, ABSENT]


def test_the_table_has_what_each_cluster_calls_the_classes_of_the_first() -> None:
    state = CODING.compare(server(0, 1), two_codings())
    rows = list(coding_rows(7, state))
    assert [row["name"] for row in rows] == NAMES
    assert rows[0] == {"round": 7, "cluster": 1, "like": 0, "class": 0, "name": 1}
    assert list(coding_rows(7, server(0, 1))) == []


# Averaging


def test_a_family_is_averaged_as_one_by_hand() -> None:
    state = CODING.compare(server(0, 1), two_codings())
    # Client 1 calls class c NAMES[c]: its row 1 is client 0's class 0.
    models = {0: model(1.0, [0, 1, 2, 3]), 1: model(5.0, [30, 0, 10, 20])}
    told = reply({c: laws(0) for c in (0, 1)}, models)
    new = WeightedMean("uniform").update(
        state, CODING.summed(state, told, LAST, by("uniform")), LAYERS
    )
    assert [centre["body"].item() for centre in new.centres] == [3.0, 3.0]
    # class 0: (0 + 0) / 2; 1: (1 + 10) / 2; 2: (2 + 20) / 2; 3: (3 + 30) / 2
    assert new.centres[0]["head"][:, 0].tolist() == [0, 5.5, 11, 16.5]
    assert new.centres[1]["head"][:, 0].tolist() == [16.5, 0, 5.5, 11]
    assert new.centres[1]["head.bias"].tolist() == [165, 0, 55, 110]


@settings(max_examples=25, deadline=None)
@given(names=st.sampled_from(OTHERS), seed=st.integers(0, 9))
def test_it_is_the_mean_of_all_as_if_they_had_one_coding(names, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = {c: model(rng.normal(), rng.normal(size=NUM_CLASSES).tolist()) for c in range(4)}
    coded = {
        c: one if c < 2 else {k: t if k == "body" else t[np.argsort(names)] for k, t in one.items()}
        for c, one in plain.items()
    }
    outputs = {c: laws(seed) if c < 2 else called(laws(seed), names) for c in range(4)}
    state = CODING.compare(server(0, 0, 1, 1), reply(outputs))
    told = CODING.summed(state, reply(outputs, coded), LAST, by("samples"))
    new = WeightedMean("samples").update(state, told, LAYERS).centres
    one_coding = WeightedMean("samples").update(server(0, 0, 0, 0), reply(outputs, plain), LAYERS)
    for name, tensor in one_coding.centres[0].items():
        assert torch.equal(new[0][name], tensor)
        again = new[1][name] if name == "body" else new[1][name][names]
        assert torch.equal(again, tensor)


def test_layers_that_some_keep_are_averaged_over_those_who_share_them() -> None:
    state = CODING.compare(server(0, 1, 1), two_codings())
    models = {0: model(1.0, [0, 1, 2, 3]), 1: {"body": torch.tensor([7.0])}, 2: {}}
    told = CODING.summed(state, reply(dict.fromkeys(models, laws(0)), models), LAST, by("uniform"))
    new = WeightedMean("uniform").update(state, told, LAYERS).centres
    assert [centre["body"].item() for centre in new] == [4.0, 4.0]
    assert new[0]["head"][:, 0].tolist() == [0, 1, 2, 3]
    assert new[1]["head"][:, 0].tolist() == [3, 0, 1, 2]


def test_a_robust_rule_meets_a_family_as_one_cluster() -> None:
    # One who lies, alone in the second cluster, does not count as much as the two of the first.
    state = CODING.compare(server(0, 0, 1), reply({0: laws(0), 2: called(laws(0), NAMES)}))
    models = {
        0: model(1.0, [0, 1, 2, 3]), 1: model(2.0, [0, 2, 4, 6]), 2: model(99.0, [99, 99, -99, 1]),
    }  # fmt: skip
    told = reply(dict.fromkeys(models, laws(0)), models)
    rule = lambda state, told: Median().summed(state, told).sums  # noqa: E731
    told = CODING.summed(state, told, LAST, rule)
    new = WeightedMean("uniform").update(state, told, LAYERS).centres
    assert [centre["body"].item() for centre in new] == [2.0, 2.0]
    # In the names of client 0 the third head is 99, -99, 1, 99.
    assert new[0]["head"][:, 0].tolist() == [0, 1, 2, 6]
    assert new[1]["head"][:, 0].tolist() == [6, 0, 1, 2]


@pytest.mark.parametrize("coding", [CODING, OwnCoding()], ids=["matched", "none"])
def test_clusters_without_a_family_keep_their_bits(coding) -> None:
    state = server(0, 0, 1)
    models = {c: model(c / 3, [c / 7, 1, 2, 3]) for c in range(3)}
    told = reply(dict.fromkeys(models, laws(0)), models)
    mean = WeightedMean("samples")
    plain = mean.update(state, told, LAYERS).centres
    same = mean.update(
        state, coding.summed(coding.compare(state, told), told, LAST, by("samples")), LAYERS
    ).centres
    for one, other in zip(plain, same, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# Whole runs


GROUPS = (
    "method=fedtsdp_full", "partition=iid", "partition.num_clients=12", "shift=permuted_labels",
    "shift.num_groups=2", "rounds=20", "device=cpu",
)  # fmt: skip


def test_groups_of_other_names_learn_as_one_on_digits(config, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "fedtsd")
    cfg = config(*GROUPS)
    run_toy(cfg, load_federation(cfg), tmp_path / "matched")
    apart = config(*GROUPS, "~coding")
    run_toy(apart, load_federation(apart), tmp_path / "apart")
    codings = table(tmp_path / "matched", "codings")
    found = codings[codings["round"] == 20]
    assert found[["cluster", "like"]].drop_duplicates().to_numpy().tolist() == [[1, 0]]
    clusters = table(tmp_path / "matched", "assignments").query("round == 20")
    first, second = (int(clusters.query(f"cluster == {k}")["client"].iloc[0]) for k in (0, 1))
    theirs, ours = (cfg.shift.permutation(c, 10, cfg.seed) for c in (first, second))
    assert found["name"].tolist() == ours[theirs.argsort()].tolist()
    assert table(tmp_path / "apart", "codings").empty
    scores = [
        table(tmp_path / name, "rounds")["accuracy_mean"].iloc[-1] for name in ("matched", "apart")
    ]
    assert scores[0] > scores[1]
    assert "clusters 0, 1 differ in their coding alone: averaged as one" in caplog.text


def test_a_run_goes_on_with_the_names_it_knew(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedtsdp_full", "dataset=digits", "partition.num_clients=8", "rounds=6",
        "checkpoint_every=1", "model.hidden=[8]", "device=cpu",
    )  # fmt: skip
    federation = toy(8, flipped=(0, 2, 4, 6))
    whole, parts = run_twice(cfg, federation, tmp_path, stop=5)
    assert not table(whole, "codings").empty
    for name, rows in tables_of(whole).items():
        assert rows.equals(tables_of(parts)[name]), name


def test_clusters_of_a_family_have_one_model_in_their_own_names(config, tmp_path) -> None:
    cfg = config(*GROUPS, "aggregation=mean", "engine=sequential")
    experiment = build(cfg, load_federation(cfg))
    server = experiment.run(RunFolder.create(tmp_path, "x: 0\n"), experiment.start)
    (family,) = families_of(server)
    one, other = (server.centres[cluster] for cluster in sorted(family))
    names = family[1][family[0].argsort()]
    for name, tensor in one.items():
        there = other[name][names] if name in experiment.layers[-1].tensors else other[name]
        assert torch.equal(there, tensor)


# Errors


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("coding.unexplained=0",), "coding.unexplained: must be in (0, 1), got 0"),
        (("coding.alike_below=1",), "coding.alike_below: must be in (0, 1), got 1"),
        (
            ("solver=scaffold", "aggregation=scaffold", "training.momentum=0.0"),
            "coding: goes before an aggregation that takes means (mean, momentum, adam, tree), "
            "and ScaffoldMean takes none",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, line: str, config) -> None:
    with pytest.raises(ConfigError) as error:
        config("method=fedavg", "coding=matched", *overrides)
    assert str(error.value).startswith(line)
