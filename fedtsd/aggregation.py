"""Aggregation: new centres, cluster by cluster and layer by layer, from whoever shares them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedtsd.messages import ClientReply, Reply
from fedtsd.server import ServerState, Tensors

WEIGHTINGS = ("samples", "uniform")


class Aggregation(Protocol):
    """Turns a round's replies into the next centres."""

    def update(self, server: ServerState, reply: Reply) -> ServerState:
        """Return the state with new centres; a cluster nobody reported to keeps its own."""
        ...


@dataclass(frozen=True)
class WeightedMean:
    """The mean of the members' layers (FedAvg), weighted by training samples or all alike."""

    weighting: str

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(
                f"weighting: must be one of {', '.join(WEIGHTINGS)}, got {self.weighting!r}"
            )

    def update(self, server: ServerState, reply: Reply) -> ServerState:
        centres = []
        for cluster, centre in enumerate(server.centres):
            rows = [row for row in reply.rows if server.assignment[row.client] == cluster]
            means = {name: self._mean(rows, name) for name in centre}
            centres.append({name: _or(means[name], centre[name]) for name in centre})
        return dataclasses.replace(server, centres=tuple(centres))

    def _mean(self, rows: Sequence[ClientReply], name: str) -> Tensor | None:
        sharing = [row for row in rows if name in row.tensors]
        if not sharing:
            return None
        weights = [float(row.num_examples) for row in sharing]
        if self.weighting == "uniform":
            weights = [1.0] * len(sharing)
        return weighted_mean([row.tensors for row in sharing], weights, name)


def weighted_mean(models: Sequence[Tensors], weights: Sequence[float], name: str) -> Tensor:
    """Return the weighted mean of one tensor, summed in the order given, in float32."""
    total = sum(weights)
    mean = torch.zeros_like(models[0][name])
    for model, weight in zip(models, weights, strict=True):
        mean.add_(model[name], alpha=weight / total)
    return mean


def _or(new: Tensor | None, old: Tensor) -> Tensor:
    return old if new is None else new
