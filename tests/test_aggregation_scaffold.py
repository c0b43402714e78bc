import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.aggregation import WeightedMean
from fedtsd.aggregation_scaffold import ScaffoldMean
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import Layer
from fedtsd.server import ABSENT, start_state

LAYERS = (Layer("fc", ("fc", "norm.running_var")),)
CENTRE = {"fc": 10.0, "norm.running_var": 1.0, "control/fc": 0.5}


def tensors(numbers: dict[str, float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([value]) for name, value in numbers.items()}


def reply(*rows: tuple[int, float, float, int]) -> Reply:
    """Of each client: its id, its model, the change of its control variate, its samples."""
    return Reply(
        1,
        tuple(
            ClientReply(client, tensors({"fc": y, "norm.running_var": y, "control/fc": d}), n)
            for client, y, d, n in rows
        ),
    )


def server(assignment: list[int]):
    state = start_state(tensors(CENTRE), np.zeros((len(assignment), 1), dtype=bool))
    clusters = (tensors(CENTRE),) * (max(assignment) + 1)
    return dataclasses.replace(state, centres=clusters, assignment=np.array(assignment))


def update(policy, state, replies) -> list[dict[str, float]]:
    new = policy.update(state, replies, LAYERS)
    return [{name: tensor.item() for name, tensor in centre.items()} for centre in new.centres]


def test_two_of_four_clients_by_hand() -> None:
    (new,) = update(
        ScaffoldMean("uniform", 0.5),
        server([0, 0, 0, 0]),
        reply((1, 2.0, 0.4, 90), (3, 6.0, 1.2, 10)),
    )
    # x 10 + 0.5 (4 - 10); c 0.5 + 2/4 0.8; statistics are the mean
    assert new == pytest.approx({"fc": 7.0, "norm.running_var": 4.0, "control/fc": 0.9})


def test_samples_weigh_models_but_never_control_variates() -> None:
    (new,) = update(
        ScaffoldMean("samples", 1.0), server([0, 0]), reply((0, 2.0, 0.4, 30), (1, 6.0, 1.2, 10))
    )
    assert new == pytest.approx({"fc": 3.0, "norm.running_var": 3.0, "control/fc": 1.3})


def test_each_cluster_counts_its_own_members_and_no_newcomers() -> None:
    state = server([0, 1, 1, 0, ABSENT])
    first, second = update(
        ScaffoldMean("uniform", 1.0), state, reply((0, 2.0, 0.4, 5), (2, 6.0, -1.0, 5))
    )
    assert first == pytest.approx({"fc": 2.0, "norm.running_var": 2.0, "control/fc": 0.7})
    assert second == pytest.approx({"fc": 6.0, "norm.running_var": 6.0, "control/fc": 0.0})


def test_a_cluster_nobody_reported_to_keeps_its_centre() -> None:
    _, second = update(ScaffoldMean("uniform", 2.0), server([0, 1]), reply((0, 2.0, 0.4, 5)))
    assert second == CENTRE


def test_the_old_state_is_untouched() -> None:
    old = server([0])
    update(ScaffoldMean("uniform", 1.0), old, reply((0, 2.0, 0.4, 5)))
    assert {name: tensor.item() for name, tensor in old.centres[0].items()} == CENTRE


@given(
    st.lists(st.tuples(st.floats(-9, 9, width=32), st.integers(1, 99)), min_size=1, max_size=6),
    st.sampled_from(["samples", "uniform"]),
)
def test_a_whole_step_ends_at_the_mean_to_the_bit(models, weighting: str) -> None:
    state = server([0] * len(models))
    rows = reply(*[(i, value, 0.0, n) for i, (value, n) in enumerate(models)])
    (found,) = update(ScaffoldMean(weighting, 1.0), state, rows)
    (mean,) = update(WeightedMean(weighting), state, rows)
    assert found["fc"] == mean["fc"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("size", 1.0), "weighting: must be one of samples, uniform, got 'size'"),
        (("uniform", 0.0), "lr: must be above 0, got 0.0"),
    ],
)
def test_wrong_values_are_refused(values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaffoldMean(*values)
