import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.aggregation import WeightedMean
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer
from fedtsd.server import start_state
from fedtsd.sums import Sums

LAYERS = (Layer("body", ("body",)), Layer("head", ("head",)))


def reply(*rows: tuple[int, dict[str, float], int]) -> Reply:
    return Reply(
        1,
        tuple(
            ClientReply(client, {k: torch.tensor([float(v)]) for k, v in tensors.items()}, n)
            for client, tensors, n in rows
        ),
    )


def server(assignment: list[int]):
    model = {"body": torch.tensor([100.0]), "head": torch.tensor([200.0])}
    state = start_state(model, np.zeros((len(assignment), 2), dtype=bool))
    num_clusters = max(assignment) + 1
    return dataclasses.replace(
        state, centres=(model,) * num_clusters, assignment=np.array(assignment)
    )


def update(policy, state, reply):
    return policy.update(state, reply, LAYERS)


def values(state) -> list[dict[str, float]]:
    return [{name: t.item() for name, t in centre.items()} for centre in state.centres]


def test_mean_weighted_by_samples() -> None:
    new = update(
        WeightedMean("samples"),
        server([0, 0]),
        reply((0, {"body": 1, "head": 10}, 30), (1, {"body": 5, "head": 20}, 10)),
    )
    # body (30 * 1 + 10 * 5) / 40 = 2; head (30 * 10 + 10 * 20) / 40 = 12.5
    assert values(new) == [{"body": 2.0, "head": 12.5}]


def test_uniform_mean() -> None:
    new = update(
        WeightedMean("uniform"),
        server([0, 0]),
        reply((0, {"body": 1, "head": 1}, 30), (1, {"body": 5, "head": 3}, 10)),
    )
    assert values(new) == [{"body": 3.0, "head": 2.0}]


def test_a_layer_is_averaged_over_those_who_share_it() -> None:
    new = update(
        WeightedMean("samples"),
        server([0, 0, 0]),
        reply((0, {"body": 1, "head": 7}, 10), (1, {"body": 3}, 10), (2, {"body": 5}, 20)),
    )
    # body (10 + 30 + 100) / 40 = 3.5; head from client 0 alone
    assert values(new) == [{"body": 3.5, "head": 7.0}]


def test_clusters_do_not_mix_and_ids_are_not_positions() -> None:
    # Clients 1 and 3 answer: positions 0 and 1, clusters 1 and 0.
    new = update(
        WeightedMean("samples"),
        server([0, 1, 1, 0]),
        reply((1, {"body": 1, "head": 1}, 5), (3, {"body": 9, "head": 9}, 5)),
    )
    assert values(new) == [{"body": 9.0, "head": 9.0}, {"body": 1.0, "head": 1.0}]


def test_a_cluster_nobody_reported_to_keeps_its_centre() -> None:
    new = update(WeightedMean("samples"), server([0, 1]), reply((0, {"body": 1, "head": 1}, 5)))
    assert values(new)[1] == {"body": 100.0, "head": 200.0}


def test_sums_taken_on_the_way_give_the_same_mean() -> None:
    sums = Sums({"body": torch.tensor([80.0], dtype=torch.float64)}, {"body": 40.0})
    summed = Reply(1, reply((0, {}, 30), (1, {}, 10)).rows, (sums,))
    new = update(WeightedMean("samples"), server([0, 0]), summed)
    assert values(new) == [{"body": 2.0, "head": 200.0}]  # nobody shared a head


def test_the_old_state_is_untouched() -> None:
    old = server([0])
    update(WeightedMean("samples"), old, reply((0, {"body": 1, "head": 1}, 5)))
    assert values(old) == [{"body": 100.0, "head": 200.0}]


def test_weighting_is_checked() -> None:
    with pytest.raises(ValueError, match="samples, uniform, got 'size'"):
        WeightedMean("size")
