import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.clustering.pairs import Pairs
from fedtsd.models import Layer, LeNet, ResNet8, layers_of
from fedtsd.personalization import (
    Adaptive,
    Everything,
    FirstLayers,
    LastLayers,
    Normalisation,
    Nothing,
    excess,
)
from fedtsd.run_folder import RunFolder
from fedtsd.server import ServerState, start_state
from fedtsd.similarity import OUTPUTS
from tests.needs import fit, small
from tests.runs import run_toy, table

ADAPTIVE = Adaptive(start_round=4, coverage=0.9, noise_floor=0.15, power=1.0, at_most=None)


def plain(count: int) -> tuple[Layer, ...]:
    return tuple(Layer(f"fc{i}", (f"fc{i}.weight",)) for i in range(count))


def state(matrix: np.ndarray, assignment: list[int], num_layers: int = 5) -> ServerState:
    server = start_state({"w": torch.zeros(1)}, np.zeros((len(assignment), num_layers), dtype=bool))
    memory = Pairs.of(matrix).stored(OUTPUTS)
    return dataclasses.replace(server, assignment=np.array(assignment), memory=memory)


def pairs(value: float, n: int = 4) -> np.ndarray:
    return np.full((n, n), value) * (1 - np.eye(n))


def test_fixed_choices() -> None:
    assert Nothing().start(2, plain(3)).tolist() == [[False] * 3] * 2
    assert Everything().start(2, plain(3)).tolist() == [[True] * 3] * 2
    assert LastLayers(1).start(1, plain(3)).tolist() == [[False, False, True]]
    assert FirstLayers(2).start(1, plain(3)).tolist() == [[True, True, False]]


@pytest.mark.parametrize("policy", [LastLayers(3), FirstLayers(3), LastLayers(-1)])
def test_more_personal_layers_than_layers_is_refused(policy) -> None:
    with pytest.raises(ValueError, match="layers: must be 0 to 2 for this model of 3 layers"):
        policy.check(plain(3))


@pytest.mark.parametrize(
    ("divergence", "layers"),
    [
        (0.0, 0),
        (0.15, 0),
        # J' = (M - .15) / .85, p = floor(5 J' + .5): .23 -> .47 + .5 -> 0; .24 -> .53 + .5 -> 1
        (0.23, 0),
        (0.24, 1),
        (0.5, 2),  # 5 * .4118 + .5 = 2.56
        (0.9, 4),  # 5 * .882 + .5 = 4.9
        (1.0, 4),  # at least one layer stays shared
    ],
)
def test_number_of_layers_follows_the_divergence(divergence: float, layers: int) -> None:
    above = excess(np.array([divergence]), 0.15)
    assert ADAPTIVE.num_layers(above, 5).tolist() == [layers]


def test_never_more_than_at_most() -> None:
    few = dataclasses.replace(ADAPTIVE, at_most=2)
    divergences = np.array([0.0, 0.24, 0.5, 0.9, 1.0])
    assert few.num_layers(divergences, 5).tolist() == [0, 1, 2, 2, 2]
    assert few.num_layers(divergences, 2).tolist() == [0, 0, 1, 1, 1]  # one stays shared
    assert few.may_keep(plain(4)).tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="at_most: must be at least 1, or null, got 0"):
        dataclasses.replace(ADAPTIVE, at_most=0)


def test_chosen_once_at_the_start_round() -> None:
    server = state(pairs(0.5), [0, 0, 0, 0])
    assert not ADAPTIVE.adapt(server, 3).personal.any()
    chosen = ADAPTIVE.adapt(server, 4)
    assert chosen.personal.sum(axis=1).tolist() == [2] * 4
    assert chosen.personal[0].tolist() == [False, False, False, True, True]
    later = dataclasses.replace(chosen, memory=Pairs.of(pairs(0.9)).stored(OUTPUTS))
    assert ADAPTIVE.adapt(later, 5).personal.sum(axis=1).tolist() == [2] * 4


def test_chosen_again_only_where_the_cluster_changed() -> None:
    chosen = ADAPTIVE.adapt(state(pairs(0.5), [0, 0, 0, 0]), 4)
    matrix = pairs(0.5)
    matrix[:2, :2] = 0.9 * (1 - np.eye(2))
    moved = dataclasses.replace(
        chosen,
        assignment=np.array([1, 1, 0, 0]),
        assignment_round=np.array([6, 6, 0, 0]),
        memory=Pairs.of(matrix).stored(OUTPUTS),
    )
    assert ADAPTIVE.adapt(moved, 6).personal.sum(axis=1).tolist() == [4, 4, 2, 2]


def test_only_measured_mates_count() -> None:
    nan = np.nan
    matrix = np.array([[0, 0.2, nan, 0.9], [0.2, 0, 0.4, 0.9], [nan, 0.4, 0, 0.9], [0.9] * 3 + [0]])
    means = Pairs.of(matrix).mean_to_mates(np.array([0, 0, 0, 1]))
    # client 0: only client 1; client 1: (.2 + .4) / 2; client 3 is alone
    assert means == pytest.approx([0.2, 0.3, 0.4, 0.0])


def test_a_lone_client_shares_everything() -> None:
    assert ADAPTIVE.adapt(state(np.zeros((1, 1)), [0]), 4).personal.sum() == 0


def test_clients_store_what_may_become_personal() -> None:
    assert Nothing().may_keep(plain(3)).tolist() == [False] * 3
    assert LastLayers(1).may_keep(plain(3)).tolist() == [False, False, True]
    assert ADAPTIVE.may_keep(plain(3)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("spec", "normalising"),
    [
        (LeNet(0.0, "batch", 2), ["norm1", "norm2"]),
        (LeNet(0.0, "group", 2), ["norm1", "norm2"]),
        (
            ResNet8(4, 2, "batch"),
            ["norm", *(f"block{b}.norm{i}" for b in (1, 2, 3) for i in (1, 2))],
        ),
    ],
)
def test_normalisation_is_personal_wherever_it_is_and_nothing_else(spec, normalising) -> None:
    layers = layers_of(spec.build((1, 8, 8), 10), Normalisation.separates)
    kept = Normalisation().start(3, layers)
    assert kept.shape == (3, len(layers))
    assert (kept == kept[0]).all()
    assert np.array_equal(Normalisation().may_keep(layers), kept[0])
    chosen = [layer for layer, keeps in zip(layers, kept[0], strict=True) if keeps]
    names = {name for layer in chosen for name in layer.tensors}
    assert {name.rpartition(".")[0] for name in names} == set(normalising)
    statistics = {f"{name}.running_{what}" for name in normalising for what in ("mean", "var")}
    assert (statistics <= names) == (spec.norm == "batch")


def test_normalisation_needs_a_model_that_has_some() -> None:
    layers = layers_of(LeNet(0.0, "none", 2).build((1, 8, 8), 10), separate=True)
    with pytest.raises(ValueError, match="this model has none; take model=resnet8 or a conv"):
        Normalisation().check(layers)
    Normalisation().check(layers_of(LeNet(0.0, "batch", 2).build((1, 8, 8), 10), separate=True))


def test_normalisation_never_crosses_and_each_client_has_its_own(config, toy, tmp_path) -> None:
    cfg = config(*small("fedbn", 3), "rounds=2", "engine=sequential")
    run_toy(cfg, fit(toy(3, flipped=(1,)), "fedbn"), tmp_path)
    items = set(table(tmp_path, "exchanged")["item"])
    assert {"conv1.weight", "conv2.bias", "fc3.weight"} <= items
    assert not any("norm" in item for item in items)
    saved = RunFolder(tmp_path).load_checkpoint()
    kept = saved["clients"]
    assert kept["client"].tolist() == [0, 1, 2]
    assert {name.partition(".")[0] for name in kept} == {"client", "norm1", "norm2"}
    for name in ("norm1.running_mean", "norm2.weight"):
        assert len(torch.unique(kept[name], dim=0)) == 3
    # The server never learns more of them than the initial model.
    assert saved["server"]["centres"][0]["norm1.running_mean"].tolist() == [0.0] * 6
