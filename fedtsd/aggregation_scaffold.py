"""The server of SCAFFOLD (Karimireddy et al. 2020): it moves the model and the control variate.

Shapes: K clusters, S clients of a cluster that answered, N clients of a cluster in all.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedtsd.aggregation import check_weighting, means_of, sums_of
from fedtsd.messages import Reply
from fedtsd.models import Layer
from fedtsd.server import ServerState, Tensors
from fedtsd.sums import Sums

CONTROL = "control/"
"""In front of a parameter's name: down crosses the control variate c, up the change of c_i."""


@dataclass(frozen=True)
class ScaffoldMean:
    """x <- x + lr (mean y_i - x) and c <- c + S / N mean (c_i+ - c_i), cluster by cluster.

    weighting: of the models y_i; the paper's is uniform, as that of the control variates always is.
    lr: the paper's global step size; 1 takes the mean as it is. BatchNorm's running statistics are
    averaged: a step beyond their mean could make a variance negative.

    N counts the clients that are there, so c is the mean of all c_i as long as nobody joins, and
    clients do not change clusters.
    """

    weighting: str
    lr: float

    partner: ClassVar[str | None] = "scaffold"

    def __post_init__(self) -> None:
        check_weighting(self.weighting)
        if self.lr <= 0:
            raise ValueError(f"lr: must be above 0, got {self.lr}")

    @property
    def sums(self) -> None:
        """A sum by samples would not do for the control variates."""
        return None

    def check(self, num_layers: int) -> None:
        """Fit any model."""

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        weighted = sums_of(server, reply, self.weighting)
        alike = weighted if self.weighting == "uniform" else sums_of(server, reply, "uniform")
        means = means_of(server.centres, weighted)
        centres = tuple(
            {
                **self._stepped(centre, means[cluster]),
                **_controls(centre, alike[cluster], len(server.members(cluster))),
            }
            for cluster, centre in enumerate(server.centres)
        )
        return dataclasses.replace(server, centres=centres)

    def _stepped(self, centre: Tensors, mean: Tensors) -> dict[str, Tensor]:
        """Return the centre after a step towards the mean; what nobody sent stays as it is."""
        return {
            name: torch.lerp(tensor, mean[name], self.lr if CONTROL + name in centre else 1.0)
            for name, tensor in centre.items()
        }


def _controls(centre: Tensors, sums: Sums, num_members: int) -> dict[str, Tensor]:
    """Return the new control variate: S / N times the mean of S changes is their sum over N."""
    return {
        name: centre[name] + (change / num_members).float()
        for name, change in sums.tensors.items()
        if name.startswith(CONTROL)
    }
