import dataclasses

import numpy as np
import pytest
import torch

from fedtsd.clustering.pairs import Pairs
from fedtsd.models import Layer
from fedtsd.personalization import Adaptive, Everything, FirstLayers, LastLayers, Nothing
from fedtsd.server import ServerState, start_state
from fedtsd.similarity import OUTPUTS

ADAPTIVE = Adaptive(start_round=4, noise_floor=0.15, power=1.0)


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
    assert ADAPTIVE.num_layers(np.array([divergence]), 5).tolist() == [layers]


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
