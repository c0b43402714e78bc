"""Clusters as the server keeps them."""

import dataclasses

import numpy as np
import torch

from fedtsd.server import start_state, without_empty


def test_clusters_without_members_are_dropped_and_nobody_moves() -> None:
    centres = tuple({"w": torch.tensor([float(k)])} for k in range(4))
    state = start_state(centres[0], np.zeros((5, 1), dtype=bool))
    state = dataclasses.replace(
        state, centres=centres, assignment=np.array([3, 1, 3, -1, 1]), memory={"x": np.ones(1)}
    )
    left = without_empty(state)
    assert left.assignment.tolist() == [1, 0, 1, -1, 0]
    assert [centre["w"].item() for centre in left.centres] == [1.0, 3.0]
    assert left.assignment_round is state.assignment_round
    assert without_empty(left) is left
