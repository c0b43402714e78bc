"""Aggregation: new centres, cluster by cluster and layer by layer, from whoever shares them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from fedtsd.messages import Reply
from fedtsd.models import Layer
from fedtsd.server import ServerState, Tensors
from fedtsd.sums import WEIGHTINGS, Summing, Sums, summing_order, weight_of


class Aggregation(Protocol):
    """Turns a round's replies into the next centres."""

    partner: ClassVar[str | None]
    """The solver, by its config file, that sends what this needs beside the model; None: any."""

    @property
    def sums(self) -> str | None:
        """The weighting of sums that suffice to it; None if it must see each client's model."""
        ...

    def check(self, num_layers: int) -> None:
        """Raise ValueError naming the field if it does not fit a model of L layers."""
        ...

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        """Return the state with new centres; a cluster nobody reported to keeps its own.

        layers: the model's L layers, input first.
        """
        ...


@dataclass(frozen=True)
class WeightedMean:
    """The mean of the members' layers (FedAvg), weighted by training samples or all alike."""

    weighting: str

    partner: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_weighting(self.weighting)

    @property
    def sums(self) -> str | None:
        return self.weighting

    def check(self, num_layers: int) -> None:
        """Fit any model."""

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        return dataclasses.replace(server, centres=means(server, reply, self.weighting))


def means(server: ServerState, reply: Reply, weighting: str) -> tuple[dict[str, Tensor], ...]:
    """Return the weighted mean of each cluster's members, tensor by tensor, from who shares it.

    A tensor that nobody sent stays as it is in the centre.
    """
    return means_of(server.centres, sums_in(server, reply, weighting))


def means_of(centres: Sequence[Tensors], sums: Sequence[Sums]) -> tuple[dict[str, Tensor], ...]:
    """Return the mean of each of K sums; a tensor that is not in it stays as in the centre."""
    return tuple(
        {name: _or(found.mean(name), tensor) for name, tensor in centre.items()}
        for centre, found in zip(centres, sums, strict=True)
    )


def sums_in(server: ServerState, reply: Reply, weighting: str) -> tuple[Sums, ...]:
    """Return the sum of each cluster's members, whether it was taken on the way or not."""
    return sums_of(server, reply, weighting) if reply.sums is None else reply.sums


def check_weighting(weighting: str) -> None:
    """Raise ValueError if there is no such weighting."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")


def sums_of(server: ServerState, reply: Reply, weighting: str) -> tuple[Sums, ...]:
    """Add up the models by the clusters as they are now, not as they were sent."""
    sums = [Summing() for _ in server.centres]
    for position in summing_order([row.num_examples for row in reply.rows]):
        row = reply.rows[position]
        weight = weight_of(row.num_examples, weighting)
        sums[server.assignment[row.client]].add(row.tensors, weight)
    return tuple(summing.result() for summing in sums)


def _or(new: Tensor | None, old: Tensor) -> Tensor:
    return old if new is None else new
