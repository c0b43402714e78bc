"""Rounds made by hand: what clients were sent and what they sent back, as policies see it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.server import ServerState, Tensors, start_state
from tests.runs import run_twice, table, tables_of


def server_of(model: Tensors, num_clients: int, newcomers: Sequence[int] = ()) -> ServerState:
    return start_state(model, np.zeros((num_clients, 1), dtype=bool), newcomers)


def trained(
    server: ServerState, models: Mapping[int, Tensors], round: int = 1
) -> tuple[Request, Reply]:
    """Let clients, by id, come back with these models."""
    rows = tuple(ClientRequest(c, int(server.assignment[c]), frozenset()) for c in models)
    replies = tuple(ClientReply(c, model, 10) for c, model in models.items())
    return Request(round, Train((), None, None), server.centres, rows), Reply(round, replies)


def moved_by(centre: Tensors, update: Sequence[float]) -> dict[str, Tensor]:
    """A model of one tensor `w` after an update."""
    return {"w": centre["w"] + torch.tensor(update, dtype=torch.float32)}


def groups_of(assignment: np.ndarray) -> set[frozenset[int]]:
    """The clusters as sets of clients."""
    return {
        frozenset(np.flatnonzero(assignment == k).tolist()) for k in set(assignment.tolist()) - {-1}
    }


def final_groups(path: Path) -> set[frozenset[int]]:
    """The clusters of a run after its last round."""
    rows = table(path, "assignments")
    last = rows[rows["round"] == rows["round"].max()]
    return {frozenset(part["client"].tolist()) for _, part in last.groupby("cluster")}


def resumed_equals_whole(cfg, federation, path: Path, stop: int) -> bool:
    """Run once whole and once in two parts; raise unless no bit of the tables differs."""
    whole, parts = run_twice(cfg, federation, path, stop)
    found = tables_of(parts)
    for name, expected in tables_of(whole).items():
        pd.testing.assert_frame_equal(found[name], expected, check_exact=True)
    return True
