"""What the members of a cluster agree on, where a few of them may be bad.

Whoever sends a model also says how many samples it has: weights are claims. Median, trimmed mean
and Multi-Krum therefore count all members alike.

A rule stands before the aggregation and puts what the members agree on in the place of their sum.
Whatever comes after takes it for the mean: the mean itself, server momentum, a tree.

Shapes: C members of a cluster that share a tensor, D numbers of a model.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtsd.aggregation import check_weighting
from fedtsd.clustering.similarity import blocks_of
from fedtsd.messages import ClientReply, Reply
from fedtsd.models import length_of
from fedtsd.server import ServerState, Tensors
from fedtsd.sums import Sums, weight_of


@dataclass(frozen=True)
class Robust(ABC):
    """A rule, cluster by cluster, for models that are seen one by one."""

    @abstractmethod
    def summed(self, server: ServerState, reply: Reply) -> Reply:
        """Return the reply as if models had been added up on their way, to sums of weight 1.

        Their mean is what each cluster's members agree on.
        """


@dataclass(frozen=True)
class Trusting(Robust):
    """Every member is believed."""

    def summed(self, server: ServerState, reply: Reply) -> Reply:
        return reply


@dataclass(frozen=True)
class _Wary(Robust, ABC):
    """A rule that combines the models of a cluster's members."""

    def summed(self, server: ServerState, reply: Reply) -> Reply:
        groups: list[list[ClientReply]] = [[] for _ in server.centres]
        for row in sorted(reply.rows, key=lambda row: row.client):
            groups[server.assignment[row.client]].append(row)
        pairs = zip(server.centres, groups, strict=True)
        agreed = (self.combined(centre, rows) for centre, rows in pairs)
        sums = tuple(Sums(found, dict.fromkeys(found, 1.0)) for found in agreed)
        return dataclasses.replace(reply, sums=sums)

    @abstractmethod
    def combined(self, centre: Tensors, rows: Sequence[ClientReply]) -> dict[str, Tensor]:
        """Return what a cluster's members, by id, agree on: float64, the tensors that any sent."""


@dataclass(frozen=True)
class _ByCoordinate(_Wary, ABC):
    """Every number of the model by itself, from whoever shares its tensor."""

    def combined(self, centre: Tensors, rows: Sequence[ClientReply]) -> dict[str, Tensor]:
        return by_tensor(centre, rows, self.middle)

    @abstractmethod
    def middle(self, values: Tensor) -> Tensor:
        """Map float64 [C, ...] to [...]."""


@dataclass(frozen=True)
class Median(_ByCoordinate):
    """The median of each coordinate (Yin et al. 2018); of two in the middle, their mean."""

    def middle(self, values: Tensor) -> Tensor:
        ordered = values.sort(dim=0).values
        low, high = (len(values) - 1) // 2, len(values) // 2
        return (ordered[low] + ordered[high]) / 2


@dataclass(frozen=True)
class TrimmedMean(_ByCoordinate):
    """The mean of each coordinate without its lowest and highest values (Yin et al. 2018).

    trim: the share of members left out at either end, rounded down.
    """

    trim: float

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim: must be in [0, 0.5), got {self.trim}")

    def middle(self, values: Tensor) -> Tensor:
        out = _share_of(len(values), self.trim)
        return values.sort(dim=0).values[out : len(values) - out].mean(dim=0)


@dataclass(frozen=True)
class MultiKrum(_Wary):
    """The mean of the members that are nearest to their neighbours (Blanchard et al. 2017).

    A member's score is the sum of squared distances to its C - f - 2 nearest; the C - f lowest
    scores are averaged. attackers: the share that f is of C, rounded down; at most (C - 3) / 2, for
    which the proof holds. Distances are over the tensors that all of them share. With fewer than 5
    members f is 0, which is the plain mean.
    """

    attackers: float

    def __post_init__(self) -> None:
        if not 0 <= self.attackers < 0.5:
            raise ValueError(f"attackers: must be in [0, 0.5), got {self.attackers}")

    def combined(self, centre: Tensors, rows: Sequence[ClientReply]) -> dict[str, Tensor]:
        kept = [rows[i] for i in self.chosen(rows)]
        return by_tensor(centre, kept, lambda values: values.mean(dim=0))

    def chosen(self, rows: Sequence[ClientReply]) -> list[int]:
        """Return the positions of the members that count, in order."""
        count = len(rows)
        bad = min(_share_of(count, self.attackers), max(0, (count - 3) // 2))
        if bad == 0:
            return list(range(count))
        distance = squared_distances(rows)
        np.fill_diagonal(distance, np.inf)
        near = np.sort(distance, axis=1)[:, : count - bad - 2]
        order = np.argsort(near.sum(axis=1), kind="stable")
        return sorted(order[: count - bad].tolist())


@dataclass(frozen=True)
class NormBound(_Wary):
    """The weighted mean of updates none of which is longer than a bound (Sun et al. 2019).

    An update is what came back less the centre, over the tensors that the member shares. A longer
    one is shortened to the bound. bound: its length, or None for the median length of the cluster's
    members in that round, which half of them would have to lie about.
    """

    weighting: str
    bound: float | None

    def __post_init__(self) -> None:
        check_weighting(self.weighting)
        if self.bound is not None and self.bound <= 0:
            raise ValueError(f"bound: must be above 0 or null, got {self.bound}")

    def combined(self, centre: Tensors, rows: Sequence[ClientReply]) -> dict[str, Tensor]:
        updates = updates_of(centre, rows)
        lengths = [length_of(update) for update in updates]
        if not rows:
            return {}
        bound = float(np.median(lengths)) if self.bound is None else self.bound
        scales = [min(1.0, bound / length) if length > 0 else 1.0 for length in lengths]
        weights = [weight_of(row.num_examples, self.weighting) for row in rows]
        found = {}
        for name, old in centre.items():
            parts = [
                (update[name], scale, weight)
                for update, scale, weight in zip(updates, scales, weights, strict=True)
                if name in update
            ]
            if parts:
                way = sum(
                    (weight * scale * update for update, scale, weight in parts), 0.0 * old.double()
                )
                whole = sum(weight for _, _, weight in parts)
                found[name] = old.double() + way / whole
        return found


def by_tensor(
    centre: Tensors, rows: Sequence[ClientReply], middle: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Map each tensor that was sent, stacked float64 [C, ...], to float64 [...]."""
    found = {}
    for name in centre:
        sent = [row.tensors[name] for row in rows if name in row.tensors]
        if sent:
            found[name] = middle(torch.stack(sent).double())
    return found


def updates_of(centre: Tensors, rows: Sequence[ClientReply]) -> list[dict[str, Tensor]]:
    """Return what each client sent less the centre, float64, over the tensors that it shares."""
    return [{n: t.double() - centre[n].double() for n, t in row.tensors.items()} for row in rows]


def squared_distances(rows: Sequence[ClientReply]) -> np.ndarray:
    """Squared L2 distances [C, C] of models, over the tensors that all of them have."""
    shared = [n for n in sorted(rows[0].tensors) if all(n in row.tensors for row in rows)]
    total = np.zeros((len(rows), len(rows)))
    for block in blocks_of([[row.tensors[name].numpy() for name in shared] for row in rows]):
        for i, one in enumerate(block):
            total[i] += np.square(block - one).sum(axis=1)
    return total


def _share_of(count: int, share: float) -> int:
    """Round down, but not because 0.3 * 10 is 2.9999 in floats."""
    return math.floor(count * share + 1e-9)
