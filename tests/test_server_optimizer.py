import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.aggregation import WeightedMean
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer, ResNet8, layers_of
from fedtsd.seeding import torch_rng
from fedtsd.server import ServerState, joined, reassigned, start_state
from fedtsd.server_optimizer import Adam, Momentum, parameters_in
from fedtsd.sums import Sums

LAYERS = (Layer("body", ("body",)), Layer("head", ("head",)))
HALF = Momentum("samples", lr=0.5, momentum=0.5)
ADAM = Adam("samples", lr=6.0, beta1=0.5, beta2=0.5, tau=1.0)


def server(num_clients: int, *centres: float) -> ServerState:
    """Clusters of equal size; body and head of a centre are one number each."""
    state = start_state({}, np.zeros((num_clients, 2), dtype=bool))
    models = tuple({name: torch.tensor([x]) for name in ("body", "head")} for x in centres)
    of = np.arange(num_clients) * len(centres) // num_clients
    return dataclasses.replace(state, centres=models, assignment=of)


def said(client: int, **values: float) -> ClientReply:
    tensors = {name: torch.tensor([float(value)]) for name, value in values.items()}
    return ClientReply(client, tensors, 1)


def update(policy, state, *rows: ClientReply) -> ServerState:
    return policy.update(state, Reply(1, rows), LAYERS)


def bodies(state) -> list[float]:
    return [centre["body"].item() for centre in state.centres]


def test_momentum_by_hand() -> None:
    state, found = server(1, 10.0), []
    for mean in (12, 12, 12):
        state = update(HALF, state, said(0, body=mean))
        found.append((state.centres[0]["body"].item(), state.memory["momentum.body"].tolist()))
    # v = 2, x = 10 + 1; v = 1 + (12 - 11) = 2, x = 11 + 1; v = 1 + 0, x = 12 + 1/2: beyond the mean
    assert found == [(11.0, [[2.0]]), (12.0, [[2.0]]), (12.5, [[1.0]])]


def test_adam_by_hand() -> None:
    state = update(ADAM, server(1, 0.0), said(0, body=7))
    # m = 7 / 2, nothing corrected; v = 1/2 tau^2 + 49/2 = 25; x = 6 * 3.5 / (5 + 1) = 3.5
    assert state.centres[0]["body"].item() == 3.5
    assert state.memory["adam.m.body"].tolist() == [[3.5]]
    assert state.memory["adam.v.body"].tolist() == [[25.0]]
    state = update(ADAM, state, said(0, body=4.5))
    # d = 1: m = (3.5 + 1) / 2, v = (25 + 1) / 2
    assert state.memory["adam.m.body"].tolist() == [[2.25]]
    assert state.memory["adam.v.body"].tolist() == [[13.0]]
    assert bodies(state) == pytest.approx([3.5 + 6 * 2.25 / (13**0.5 + 1)])


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_a_whole_step_without_momentum_is_the_weighted_mean_to_the_bit(weighting) -> None:
    rng = torch_rng(0, "x")

    def model() -> dict[str, torch.Tensor]:
        return {name: torch.randn(50, generator=rng) for name in ("body", "head")}

    state = dataclasses.replace(server(3, 0.0), centres=(model(),))
    for _ in range(3):
        reply = Reply(1, tuple(ClientReply(c, model(), 3 + c) for c in range(3)))
        plain = WeightedMean(weighting).update(state, reply, LAYERS)
        state = Momentum(weighting, 1.0, 0.0).update(state, reply, LAYERS)
        for name, tensor in plain.centres[0].items():
            assert torch.equal(state.centres[0][name], tensor)
            assert state.centres[0][name].dtype == torch.float32


@pytest.mark.parametrize("policy", [HALF, ADAM])
def test_what_nobody_shares_is_left_alone_and_so_are_its_moments(policy) -> None:
    before = update(policy, server(1, 10.0), said(0, body=12, head=12))
    after = update(policy, before, said(0, body=15))
    assert after.centres[0]["head"] is before.centres[0]["head"]
    for moment in policy.moments:
        assert np.array_equal(after.memory[f"{moment}.head"], before.memory[f"{moment}.head"])
        assert not np.array_equal(after.memory[f"{moment}.body"], before.memory[f"{moment}.body"])


@pytest.mark.parametrize("policy", [HALF, ADAM])
def test_each_cluster_has_moments_of_its_own(policy) -> None:
    state = server(2, 10.0, 20.0)
    for means in ((12, 25), (None, 23), (11, 22)):
        rows = [said(c, body=mean) for c, mean in enumerate(means) if mean is not None]
        state = update(policy, state, *rows)
    for cluster, (start, means) in enumerate([(10.0, (12, 11)), (20.0, (25, 23, 22))]):
        alone = server(1, start)
        for mean in means:  # the round in which nobody reported to cluster 0 changes nothing
            alone = update(policy, alone, said(0, body=mean))
        assert bodies(state)[cluster] == bodies(alone)[0]
        for moment in policy.moments:
            kept = state.memory[f"{moment}.body"]
            assert kept.shape == (2, 1)
            assert np.array_equal(kept[cluster], alone.memory[f"{moment}.body"][0])


@pytest.mark.parametrize("policy", [HALF, ADAM])
def test_sums_taken_on_the_way_give_the_same_step(policy) -> None:
    sums = Sums({"body": torch.tensor([36.0], dtype=torch.float64)}, {"body": 3.0})
    state = update(policy, server(3, 10.0), said(0, body=9), said(1, body=12), said(2, body=15))
    summed = policy.update(server(3, 10.0), Reply(1, (said(0),), (sums,)), LAYERS)
    assert bodies(summed) == bodies(state) != [10.0]


def test_a_split_restarts_all_moments() -> None:
    moved = update(HALF, server(2, 10.0), said(0, body=12), said(1, body=12))
    split = reassigned(moved, np.array([0, 1]), 2)
    new = update(HALF, split, said(0, body=13), said(1, body=9))
    # Both start from 11, with no velocity: v = 2 and -2, half of it is stepped.
    assert bodies(new) == [12.0, 10.0]
    assert new.memory["momentum.body"].tolist() == [[2.0], [-2.0]]


def test_centres_that_change_places_restart_all_moments() -> None:
    # As many clusters as before and nobody moved, but number 0 is another centre now.
    moved = update(HALF, server(2, 10.0, 20.0), said(0, body=12), said(1, body=20))
    swapped = reassigned(moved, np.array([1, 0]), 2)
    assert bodies(swapped) == [20.0, 11.0]
    assert not swapped.assignment_round.any()
    new = update(HALF, swapped, said(0, body=11), said(1, body=20))
    assert bodies(new) == [20.0, 11.0]
    assert new.memory["momentum.body"].tolist() == [[0.0], [0.0]]


def test_moments_go_on_where_clients_move_between_centres_or_join() -> None:
    first = update(HALF, server(3, 10.0), said(0, body=12))
    newcomer = dataclasses.replace(first, assignment=np.array([0, 0, -1]))
    state = update(HALF, joined(newcomer, {2: 0}, 2), said(2, body=12))
    assert state.memory["momentum.body"].tolist() == [[2.0]]  # 2 / 2 + (12 - 11)
    two = update(HALF, server(2, 10.0, 20.0), said(0, body=12), said(1, body=20))
    moved = dataclasses.replace(two, assignment=np.array([0, 0]))
    state = update(HALF, moved, said(0, body=11), said(1, body=11))
    assert state.memory["momentum.body"].tolist() == [[1.0], [0.0]]


def test_only_parameters_are_stepped() -> None:
    layers = layers_of(ResNet8(4, 2, "batch").build((1, 4, 4), 2))
    names = parameters_in(layers)
    assert {"stem.weight", "norm.weight", "block1.norm2.bias", "fc.bias"} <= set(names)
    assert not any("running" in name for name in names)
    layers = (Layer("body", ("body", "norm.running_var")),)
    names = ("body", "norm.running_var", "control.body")  # the last one a solver sends beside
    state = dataclasses.replace(
        server(1, 0.0), centres=({name: torch.tensor([10.0]) for name in names},)
    )
    trained = {name: torch.tensor([2.0]) for name in names}
    policy = Momentum("samples", lr=2.0, momentum=0.5)
    new = policy.update(state, Reply(1, (ClientReply(0, trained, 1),)), layers)
    # By the optimiser a variance of 10 would have become 10 + 2 (2 - 10) = -6.
    found = {name: tensor.item() for name, tensor in new.centres[0].items()}
    assert found == {"body": -6.0, "norm.running_var": 2.0, "control.body": 2.0}
    assert [key for key in new.memory if "running" in key or "control" in key] == []


@pytest.mark.parametrize("policy", [HALF, ADAM])
def test_the_old_state_is_untouched_and_other_memory_stays(policy) -> None:
    other = dataclasses.replace(server(1, 10.0), memory={"hopkins": np.ones(3)})
    old = update(policy, other, said(0, body=12))
    kept = {key: value.copy() for key, value in old.memory.items()}
    new = update(policy, old, said(0, body=20))
    assert bodies(other) == [10.0]
    assert all(np.array_equal(old.memory[key], value) for key, value in kept.items())
    assert new.memory["hopkins"].tolist() == [1.0] * 3
    assert set(other.memory) == {"hopkins"}


def test_the_state_goes_through_a_checkpoint() -> None:
    state = update(ADAM, server(1, 0.0), said(0, body=7))
    again = ServerState.from_state_dict(state.state_dict())
    one, other = (update(ADAM, s, said(0, body=4.5)) for s in (state, again))
    assert bodies(one) == bodies(other)
    assert all(np.array_equal(one.memory[key], other.memory[key]) for key in one.memory)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum("size", 1.0, 0.9), "weighting: must be one of samples, uniform"),
        (lambda: Momentum("samples", 0.0, 0.9), "lr: must be above 0, got 0.0"),
        (lambda: Momentum("samples", 1.0, 1.0), r"momentum: must be in \[0, 1\), got 1.0"),
        (lambda: Adam("samples", 1.0, 1.0, 0.9, 1.0), r"beta1: must be in \[0, 1\), got 1.0"),
        (lambda: Adam("samples", 1.0, 0.9, -0.1, 1.0), r"beta2: must be in \[0, 1\), got -0.1"),
        (lambda: Adam("samples", 1.0, 0.9, 0.9, 0.0), "tau: must be above 0, got 0.0"),
    ],
)
def test_settings_are_checked(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_server_optimizer_lets_clients_be_summed_on_their_way() -> None:
    assert (HALF.sums, Adam("uniform", 1.0, 0.9, 0.9, 1.0).sums) == ("samples", "uniform")
