import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import torch_rng
from fedtsd.server import start_state
from fedtsd.sums import Sums
from fedtsd.tree import Tree
from tests.runs import run_toy

LAYERS = (Layer("body", ("body", "body.bias")), Layer("head", ("head",)))
TRUNK = Tree("samples", trunk=1)


def server(assignment: list[int], model=None):
    model = model or {name: torch.tensor([100.0]) for name in ("body", "body.bias", "head")}
    state = start_state(model, np.zeros((len(assignment), 2), dtype=bool))
    centres = (model,) * (max(assignment) + 1)
    return dataclasses.replace(state, centres=centres, assignment=np.array(assignment))


def reply(*rows: tuple[int, dict[str, float], int]) -> Reply:
    return Reply(
        1,
        tuple(
            ClientReply(client, {k: torch.tensor([float(v)]) for k, v in tensors.items()}, n)
            for client, tensors, n in rows
        ),
    )


def values(state, name: str) -> list[float]:
    return [centre[name].item() for centre in state.centres]


def test_the_trunk_is_of_all_clients_and_the_rest_of_each_cluster() -> None:
    rows = reply(
        (0, {"body": 1, "head": 1}, 10),
        (1, {"body": 4, "head": 2}, 10),
        (2, {"body": 7, "head": 5}, 20),
    )
    new = TRUNK.update(server([0, 0, 1]), rows, LAYERS)
    # body (10 * 1 + 10 * 4 + 20 * 7) / 40 = 4.75; heads (1 + 2) / 2, and 5 of client 2 alone
    assert values(new, "body") == [4.75, 4.75]
    assert values(new, "head") == [1.5, 5.0]
    uniform = Tree("uniform", 1).update(server([0, 0, 1]), rows, LAYERS)
    assert values(uniform, "body") == [4.0, 4.0]


def test_a_cluster_nobody_reported_to_takes_the_trunk_and_keeps_the_rest() -> None:
    new = TRUNK.update(server([0, 1]), reply((0, {"body": 3, "head": 1}, 5)), LAYERS)
    assert values(new, "body") == [3.0, 3.0]
    assert values(new, "head") == [1.0, 100.0]
    assert values(new, "body.bias") == [100.0, 100.0]  # nobody shared it


def test_a_trunk_is_averaged_over_those_who_share_it() -> None:
    rows = reply((0, {"head": 1}, 10), (1, {"body": 3, "head": 2}, 10), (2, {"body": 6}, 20))
    new = TRUNK.update(server([0, 0, 1]), rows, LAYERS)
    assert values(new, "body") == [5.0, 5.0]  # (10 * 3 + 20 * 6) / 30
    assert values(new, "head") == [1.5, 100.0]


def test_sums_of_clusters_are_added() -> None:
    def sums(body: float, weight: float) -> Sums:
        return Sums({"body": torch.tensor([body], dtype=torch.float64)}, {"body": weight})

    summed = Reply(1, reply((0, {}, 10), (1, {}, 30)).rows, (sums(10.0, 10.0), sums(150.0, 30.0)))
    new = TRUNK.update(server([0, 1]), summed, LAYERS)
    assert values(new, "body") == [4.0, 4.0]  # (10 + 150) / 40
    assert values(new, "head") == [100.0, 100.0]
    assert summed.sums[0].tensors["body"].item() == 10.0  # not changed in place
    assert Tree("uniform", 0).sums == "uniform"


def random_round(assignment: list[int], seed: int):
    rng = torch_rng(seed, "models")

    def model() -> dict[str, torch.Tensor]:
        return {n: torch.randn(3, generator=rng) for n in ("body", "body.bias", "head")}

    weights = torch.randint(1, 99, (len(assignment),), generator=rng).tolist()
    rows = (ClientReply(c, model(), n) for c, n in enumerate(weights))
    return server(assignment, model()), Reply(1, tuple(rows))


@settings(max_examples=30, deadline=None)
@given(
    others=st.lists(st.integers(0, 3), max_size=6),
    seed=st.integers(0, 99),
    weighting=st.sampled_from(["samples", "uniform"]),
)
def test_the_ends_of_the_tree(others: list[int], seed: int, weighting: str) -> None:
    state, rows = random_round([0, 1, 2, 3, *others], seed)
    inside = WeightedMean(weighting).update(state, rows, LAYERS)
    whole, _ = random_round([0] * len(state.assignment), seed)
    everybody = WeightedMean(weighting).update(whole, rows, LAYERS).centres[0]
    # Without a trunk: the weighted mean inside clusters, to the bit.
    for mine, yours in zip(
        Tree(weighting, 0).update(state, rows, LAYERS).centres, inside.centres, strict=True
    ):
        assert all(torch.equal(mine[name], yours[name]) for name in yours)
    # With the first layer as trunk it is that of all, however they are clustered.
    for mine, yours in zip(
        Tree(weighting, 1).update(state, rows, LAYERS).centres, inside.centres, strict=True
    ):
        assert torch.equal(mine["head"], yours["head"])
        for name in LAYERS[0].tensors:
            torch.testing.assert_close(mine[name], everybody[name], rtol=1e-6, atol=1e-7)
    # All trunk: FedAvg, in every cluster.
    for mine in Tree(weighting, 2).update(state, rows, LAYERS).centres:
        for name, tensor in everybody.items():
            torch.testing.assert_close(mine[name], tensor, rtol=1e-6, atol=1e-7)


def test_the_old_state_is_untouched() -> None:
    old = server([0, 1])
    TRUNK.update(old, reply((0, {"body": 3, "head": 1}, 5)), LAYERS)
    assert values(old, "body") == [100.0, 100.0]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="weighting: must be one of samples, uniform, got 'size'"):
        Tree("size", 1)
    for trunk in (-1, 4):
        with pytest.raises(ValueError, match="trunk: must be 0 to 3 for this model of 3 layers"):
            Tree("samples", trunk).check(3)
    assert Tree("samples", 3).check(3) is None


def test_clusters_that_are_found_share_their_trunk(config, toy, tmp_path) -> None:
    """Ten clients, half of which call class a what the others call b."""
    cfg = config(
        "method=fedtsdp_tree", "personalization=none", "rounds=6", "partition.num_clients=10",
        "model.hidden=[8]", "similarity.public_batch=40", "training.lr=0.02",
    )  # fmt: skip
    run_toy(cfg, toy(10, flipped=(1, 3, 4, 7, 8)), tmp_path)
    first, second = RunFolder(tmp_path).load_checkpoint()["server"]["centres"]
    assert all(torch.equal(first[name], second[name]) for name in ("fc1.weight", "fc1.bias"))
    assert (first["fc2.weight"] - second["fc2.weight"]).abs().max() > 0.1
