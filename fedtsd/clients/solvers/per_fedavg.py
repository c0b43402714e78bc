"""Per-FedAvg (Fallah et al. 2020): a shared model that is good after one step on a client's data.

The loss of a client is f(w - alpha grad f(w)), with the two f on different batches. Its gradient is
(1 - alpha Hessian) grad f(w - alpha grad f(w)); the variants differ in what becomes of the Hessian.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import Descent, check_whole
from fedtsd.server import Tensors
from fedtsd.training import Training, epochs_of

VARIANTS = ("first_order", "hessian_free")
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PerFedAvg(Quiet):
    """Steps of SGD on the loss after an inner step; what was received is served.

    The method asks for the stage `tuned`, so a client adapts by epochs of SGD before it serves.

    alpha: rate of the inner step. variant: `first_order` leaves the Hessian out and takes two
    batches a step; `hessian_free` takes its product with the gradient from the difference of
    gradients at w +- delta times the gradient, on a third batch. Batches are consecutive ones of
    the client's epochs, so an epoch has half as many steps as one of plain SGD, or a third; a last
    step that lacks batches takes its latest again. The outer step has rate and momentum of
    `training` (the paper's momentum is 0). Each gradient is clipped and decayed by itself.

    Buffers (BatchNorm) go through all passes, those at w and those after the inner step.
    """

    alpha: float
    variant: str
    delta: float

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha: must be at least 0, got {self.alpha}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant: must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.delta <= 0:
            raise ValueError(f"delta: must be above 0, got {self.delta}")

    def check(self, training: Training, num_personal: int) -> None:
        check_whole("Per-FedAvg", training, num_personal)

    def train(self, bench: Workbench) -> int:
        descent = Descent(bench.parameters, bench.training)
        batches = bench.steps(epochs_of(bench.phases))
        processed = 0
        for first in batches:
            gradient, used = self._meta_gradient(bench, first, batches)
            descent.step(gradient)
            processed += used
        return processed

    def _meta_gradient(
        self, bench: Workbench, first: Batch, batches: Iterator[Batch]
    ) -> tuple[Tensors, int]:
        """Return the gradient of one step, by name, and the samples processed; the network stays.

        A batch is taken when it is used, since dropout is drawn for the latest one.
        """
        start = {name: p.detach().clone() for name, p in bench.parameters.items()}
        bench.load(moved(start, bench.gradient(*first), -self.alpha))
        second = next(batches, first)
        gradient = bench.gradient(*second)
        used = len(first[1]) + len(second[1])
        if self.variant == "hessian_free":
            third = next(batches, second)
            turned = self._hessian_product(bench, third, start, gradient)
            gradient = moved(gradient, turned, -self.alpha)
            used += 2 * len(third[1])
        bench.load(start)
        return gradient, used

    def _hessian_product(
        self, bench: Workbench, batch: Batch, start: Tensors, gradient: Tensors
    ) -> Tensors:
        bench.load(moved(start, gradient, self.delta))
        ahead = bench.gradient(*batch)
        bench.load(moved(start, gradient, -self.delta))
        behind = bench.gradient(*batch)
        return {name: (ahead[name] - behind[name]) / (2 * self.delta) for name in gradient}


def moved(tensors: Tensors, direction: Tensors, length: float) -> dict[str, Tensor]:
    """Return tensors + length direction, by name."""
    return {name: torch.add(t, direction[name], alpha=length) for name, t in tensors.items()}
