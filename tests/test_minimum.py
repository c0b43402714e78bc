"""Clusters too small to be aggregated."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean
from fedtsd.aggregation_scaffold import ScaffoldMean
from fedtsd.clustering.split import join_small
from fedtsd.compose import composed, key_of, resolve
from fedtsd.errors import ConfigError
from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train, Withheld
from fedtsd.minimum import in_words, released, with_minimum
from fedtsd.models import Layer
from fedtsd.robust import Median, MultiKrum, NormBound, Robust, TrimmedMean
from fedtsd.server import start_state
from fedtsd.server_optimizer import Adam, Momentum
from fedtsd.sums import Summing
from fedtsd.tree import Tree
from tests.runs import run_toy, table

LAYERS = (Layer("body", ("body",)), Layer("head", ("head",)))


@dataclasses.dataclass(frozen=True)
class After:
    """The mean after a robust rule."""

    rule: Robust

    def update(self, server, reply, layers):
        return WeightedMean("uniform").update(server, self.rule.summed(server, reply), layers)


WAYS = [
    WeightedMean("samples"),
    Momentum("samples", 1.0, 0.5),
    Adam("uniform", 0.1, 0.9, 0.99, 0.001),
    Tree("samples", 0),
    After(Median()),
    After(TrimmedMean(0.2)),
    After(MultiKrum(0.3)),
    After(NormBound("samples", None)),
    ScaffoldMean("uniform", 1.0),
]
FEW = ("partition.num_clients=6", "model.hidden=[8]", "rounds=3", "similarity.public_batch=20")


def state(assignment: list[int], minimum: int | None):
    model = {"body": torch.tensor([100.0]), "head": torch.tensor([200.0])}
    server = start_state(model, np.zeros((len(assignment), 2), dtype=bool))
    centres = (model,) * (max(assignment) + 1)
    server = dataclasses.replace(server, centres=centres, assignment=np.array(assignment))
    return with_minimum(server, minimum)


def exchanged(server, keeps: dict[int, set[str]] | None = None, summed: bool = False):
    """Client c sends body c and head 10 c, but for what it keeps."""
    keeps = keeps or {}
    asked, answers = [], []
    sums = [Summing() for _ in server.centres]
    for client, cluster in enumerate(server.assignment.tolist()):
        kept = frozenset(keeps.get(client, ()))
        model = {"body": torch.tensor([1.0 * client]), "head": torch.tensor([10.0 * client])}
        sent = {name: tensor for name, tensor in model.items() if name not in kept}
        sums[cluster].add(sent, 5.0)
        asked.append(ClientRequest(client, cluster, kept))
        answers.append(ClientReply(client, {} if summed else sent, 5))
    request = Request(
        1, Train((), None, "samples" if summed else None), server.centres, tuple(asked)
    )
    results = tuple(one.result() for one in sums) if summed else None
    return request, Reply(1, tuple(answers), results)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(getattr(way, "rule", way)).__name__)
def test_small_clusters_do_not_move_and_large_ones_do(way) -> None:
    # Three members and two; with a minimum of three the second is left alone.
    server = state([0, 0, 0, 1, 1], 3)
    request, reply = exchanged(server)
    reply = released(server, request, reply)
    withheld = reply.withheld
    new = way.update(server, reply, LAYERS).centres
    assert new[1] == {"body": torch.tensor([100.0]), "head": torch.tensor([200.0])}
    assert new[0]["body"] != 100
    assert withheld == (Withheld(1, "body", 2), Withheld(1, "head", 2))
    assert in_words(withheld) == "2 tensors of cluster 1, shared by 2"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(getattr(way, "rule", way)).__name__)
def test_a_model_that_nobody_may_use_changes_nothing(way) -> None:
    server = state([0] * 5, 6)
    request, reply = exchanged(server)
    reply = released(server, request, reply)
    assert way.update(server, reply, LAYERS).centres == server.centres


@pytest.mark.parametrize("summed", [False, True])
def test_tensors_are_counted_one_by_one(summed: bool) -> None:
    # All three share the body, two of them the head.
    server = state([0, 0, 0], 3)
    request, reply = exchanged(server, {1: {"head"}}, summed)
    reply = released(server, request, reply)
    withheld = reply.withheld
    new = WeightedMean("samples").update(server, reply, LAYERS).centres
    assert withheld == (Withheld(0, "head", 2),)
    assert new == ({"body": torch.tensor([1.0]), "head": torch.tensor([200.0])},)


def test_clusters_are_those_of_now() -> None:
    # Sent to one cluster of four; the policy then set client 3 apart.
    request, reply = exchanged(state([0, 0, 0, 0], 2))
    server = state([0, 0, 0, 1], 2)
    withheld = released(server, request, reply).withheld
    assert {one.cluster for one in withheld} == {1}


def test_only_those_who_answered_count() -> None:
    server = state([0, 0, 0], 3)
    request, reply = exchanged(server)
    late = dataclasses.replace(reply, rows=reply.rows[:2])
    assert released(server, request, late).withheld[0] == Withheld(0, "body", 2)
    assert not released(server, request, reply).withheld


def test_without_a_minimum_the_reply_is_left_as_it_is() -> None:
    server = state([0, 1], None)
    request, reply = exchanged(server)
    assert not server.memory
    assert released(server, request, reply) is reply


def test_small_parts_join_the_nearest_by_hand() -> None:
    at = np.array([0.0, 1, 2, 10, 11, 12, 9.0])
    apart = np.abs(at[:, None] - at)
    assert join_small(np.array([0, 0, 0, 1, 1, 1, 2]), apart, 2).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert join_small(np.array([0, 0, 0, 1, 1, 1, 2]), apart, 1).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert join_small(np.array([0, 0, 0, 1, 1, 1, 2]), apart, 5).tolist() == [0] * 7
    assert join_small(np.zeros(2, dtype=int), apart[:2, :2], 3).tolist() == [0, 0]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 2**16)
)
def test_no_part_is_left_small(labels: list[int], minimum: int, seed: int) -> None:
    at = np.random.default_rng(seed).normal(size=len(labels))
    old = np.array(labels)
    new = join_small(old, np.abs(at[:, None] - at), minimum)
    sizes = np.bincount(new)
    assert len(sizes) == 1 or sizes.min() >= minimum
    for cluster in np.unique(old):  # nobody is torn from its mates
        assert len(np.unique(new[old == cluster])) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("min_aggregated=7",),
            "min_aggregated: must be null or 2 to the 6 clients of a round, got 7",
        ),
        (("min_aggregated=1",), "2 to the 6 clients of a round, got 1"),
        (("min_aggregated=4", "cohort.size=3"), "2 to the 3 clients of a round, got 4"),
        (("min_aggregated=few",), "min_aggregated: must be a whole number"),
    ],
)
def test_a_minimum_without_sense_is_refused(overrides, message: str, config) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*FEW, *overrides)


def test_the_key_counts_it_only_where_it_is_set() -> None:
    plain = resolve(composed([]))
    without = {key: value for key, value in plain.items() if key != "min_aggregated"}
    assert key_of(plain) == key_of(without) != key_of(resolve(composed(["min_aggregated=2"])))


def test_clusters_of_a_run_stay_large_enough(config, toy, tmp_path) -> None:
    """Two of eight clients differ: they are set apart, and with a minimum of three they are not."""
    how = (
        "partition.num_clients=8", "model.hidden=[8]", "rounds=8", "similarity.public_batch=20",
        "clustering.hopkins.reference_draws=99",
    )  # fmt: skip
    federation = toy(8, flipped=(1, 5))
    smallest = []
    for name, given_ in (("free", ()), ("held", ("min_aggregated=3",))):
        run_toy(config(*how, *given_), federation, tmp_path / name)
        last = table(tmp_path / name, "assignments").query("round == 8")
        smallest.append(last.groupby("cluster").size().min())
        assert table(tmp_path / name, "withheld").empty
    assert smallest[0] == 2
    assert smallest[1] >= 3


def test_what_was_withheld_is_in_a_table_and_in_the_log(config, toy, tmp_path, caplog) -> None:
    """The two planted groups are four and two; the two keep the initial model."""
    groups = np.array([0, 0, 0, 0, 1, 1])
    federation = dataclasses.replace(toy(6, flipped=(4, 5)), groups=groups)
    how = "method=oracle", "partition=label_groups", "partition.num_groups=2"
    with caplog.at_level("INFO", logger="fedtsd"):
        run_toy(config(*FEW, *how, "min_aggregated=3"), federation, tmp_path)
    found = table(tmp_path, "withheld")
    assert found.groupby("round")["item"].nunique().tolist() == [4, 4, 4]
    assert set(found["cluster"]) == {1}
    assert set(found["num_clients"]) == {2}
    assert "round 2: too few to aggregate: 4 tensors of cluster 1, shared by 2" in caplog.text
    clients = table(tmp_path, "clients").query("client >= 4 and split == 'test'")
    assert clients.groupby("client")["accuracy"].nunique().max() == 1
    others = table(tmp_path, "clients").query("client < 4 and split == 'test'")
    assert others.groupby("client")["loss"].nunique().min() == 3


def test_null_and_two_agree_where_nobody_is_alone(config, toy, tmp_path) -> None:
    for name, given_ in (("null", ()), ("two", ("min_aggregated=2",))):
        how = *FEW, "method=fedavg", *given_
        run_toy(config(*how), toy(6), tmp_path / name)
    one, other = (table(tmp_path / name, "clients") for name in ("null", "two"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
