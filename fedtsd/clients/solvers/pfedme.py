"""pFedMe (T Dinh et al. 2020): a personal model near the shared one, which follows it.

The shared model w descends the Moreau envelope of the client's loss: its gradient is
pull (w - theta), with theta the minimum of loss(theta) + pull/2 ||theta - w||^2. The server takes
the mean of the w as it is (beta = 1 in the paper).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.solvers.own import keep_own, own_at_start, own_of
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import Descent, check_whole
from fedtsd.server import Tensors
from fedtsd.training import Training, epochs_of

THETA = "theta/"


@dataclass(frozen=True)
class PFedMe(Quiet):
    """Per batch: `inner_steps` of SGD on theta from w, then one step of w towards theta.

    pull: lambda of the paper; the larger, the closer theta stays to w. inner_lr: of the steps on
    theta. The step of w has the rate and momentum of `training` (the paper's momentum is 0); its
    clipping and weight decay act on the gradient of the loss, at theta.

    theta of the last batch is kept and served; who has not trained yet serves what it received.
    Buffers (BatchNorm) are not pulled: those that the passes at theta left are sent and kept.
    """

    pull: float
    inner_steps: int
    inner_lr: float

    def __post_init__(self) -> None:
        if self.pull <= 0:
            raise ValueError(f"pull: must be above 0, got {self.pull}")
        if self.inner_steps < 1:
            raise ValueError(f"inner_steps: must be at least 1, got {self.inner_steps}")
        if not 0 < self.inner_lr * self.pull < 2:
            raise ValueError(
                f"inner_lr: must be above 0 and below 2 / pull ({2 / self.pull:g}), from where the "
                f"pull alone diverges, got {self.inner_lr}"
            )

    def check(self, training: Training, num_personal: int) -> None:
        """Raise ValueError if layers are personal, or if w would leap beyond where it is pulled."""
        check_whole("pFedMe", training, num_personal)
        if training.lr * self.pull >= 2:
            raise ValueError(
                f"pull: must be below 2 / training.lr ({2 / training.lr:g}), from where the shared "
                f"model diverges, got {self.pull}"
            )

    def private(self, model: Tensors) -> Tensors:
        return own_at_start(THETA, model)

    def train(self, bench: Workbench) -> int:
        shared = {name: p.detach().clone() for name, p in bench.parameters.items()}
        descent = Descent(shared, bench.training)
        processed = 0
        for inputs, labels in bench.steps(epochs_of(bench.phases)):
            bench.load(shared)
            for _ in range(self.inner_steps):
                self._approach(bench, shared, bench.gradient(inputs, labels))
            descent.step(self._envelope_gradient(bench, shared))
            processed += self.inner_steps * len(labels)
        keep_own(THETA, bench, bench.tensors)
        bench.load(shared)
        return processed

    def serve(self, bench: Workbench) -> None:
        bench.load(own_of(THETA, bench))

    @torch.no_grad()
    def _approach(self, bench: Workbench, shared: Tensors, gradient: Tensors) -> None:
        """Move theta, which the network holds, one step towards its minimum."""
        for name, theta in bench.parameters.items():
            theta.sub_(gradient[name] + self.pull * (theta - shared[name]), alpha=self.inner_lr)

    @torch.no_grad()
    def _envelope_gradient(self, bench: Workbench, shared: Tensors) -> dict[str, Tensor]:
        """Return the gradient of the Moreau envelope at the shared model, by name."""
        theta = bench.parameters
        return {name: self.pull * (tensor - theta[name]) for name, tensor in shared.items()}
