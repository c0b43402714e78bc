"""Aggregation by a tree of two levels: the lowest layers over everybody, the others by cluster.

What all clients see is alike near the input even where their labels are not: a cluster of few
clients then need not learn to see from its own samples alone.

Shapes: K clusters, L layers.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedtsd.aggregation import check_weighting, means_of, sums_in
from fedtsd.messages import Reply
from fedtsd.models import Layer
from fedtsd.server import ServerState
from fedtsd.sums import Sums


@dataclass(frozen=True)
class Tree:
    """The mean of the lowest `trunk` layers over all clients, of the others inside clusters.

    Weighted by training samples or all alike. The trunk is of everybody: a cluster nobody reported
    to takes it as well. With trunk 0 this is the weighted mean inside clusters, to the bit.
    """

    weighting: str
    trunk: int

    partner: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_weighting(self.weighting)

    @property
    def sums(self) -> str | None:
        return self.weighting

    def check(self, num_layers: int) -> None:
        if not 0 <= self.trunk <= num_layers:
            raise ValueError(
                f"trunk: must be 0 to {num_layers} for this model of {num_layers} layers, "
                f"got {self.trunk}"
            )

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        sums = sums_in(server, reply, self.weighting)
        trunk = {name for layer in layers[: self.trunk] for name in layer.tensors}
        shared = _joined(sums, trunk)
        both = [_with(found, shared) for found in sums]
        return dataclasses.replace(server, centres=means_of(server.centres, both))


def _joined(sums: Sequence[Sums], names: set[str]) -> Sums:
    """Add up what the K sums hold of these tensors."""
    tensors: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for found in sums:
        for name in names & found.tensors.keys():
            known = name in tensors
            tensors[name] = tensors[name] + found.tensors[name] if known else found.tensors[name]
            weights[name] = weights.get(name, 0.0) + found.weights[name]
    return Sums(tensors, weights)


def _with(found: Sums, shared: Sums) -> Sums:
    return Sums({**found.tensors, **shared.tensors}, {**found.weights, **shared.weights})
