"""APFL (Deng et al. 2020): a client serves a mixture of the shared model and one of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.solvers.own import keep_own, own_at_start, own_of
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import Descent, check_whole
from fedtsd.server import Tensors
from fedtsd.training import Training, epochs_of

OWN = "apfl/own/"
ALPHA = "apfl/alpha"


@dataclass(frozen=True)
class Apfl(Quiet):
    """Per batch, a step of the shared model w on its own loss, and one of the client's model v.

    v descends the loss of the mixture m = alpha v + (1 - alpha) w: its gradient is alpha g(m). Both
    steps start from the same w and v, and have rate and momentum of `training` (the paper's
    momentum is 0). w is sent; the mixture of v with the w received is served.

    alpha: in 0..1, how much of the mixture is the client's own. adapt: whether each client moves
    its alpha in every step, alpha <- alpha - lr <v - w, g(m)>, held in 0..1, from the value given.

    Clipping and weight decay act on each gradient of the loss. Buffers (BatchNorm) are not mixed:
    w has those of its own passes, and v those of the mixture's, which are served.
    """

    alpha: float
    adapt: bool

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: must be in [0, 1], got {self.alpha}")

    def check(self, training: Training, num_personal: int) -> None:
        check_whole("APFL", training, num_personal)

    def private(self, model: Tensors) -> Tensors:
        """Return the client's own model, and alpha [1]."""
        return {**own_at_start(OWN, model), ALPHA: torch.full((1,), self.alpha)}

    def train(self, bench: Workbench) -> int:
        moving = tuple(bench.parameters)
        shared, own, alpha = bench.snapshot(), own_of(OWN, bench), bench.kept[ALPHA]
        shared_descent = Descent({name: shared[name] for name in moving}, bench.training)
        own_descent = Descent({name: own[name] for name in moving}, bench.training)
        processed = 0
        for inputs, labels in bench.steps(epochs_of(bench.phases)):
            bench.load(shared)
            at_shared = _gradient(bench, shared, inputs, labels)
            bench.load(mixture(bench, shared, own))
            at_mixture = _gradient(bench, own, inputs, labels)
            slope = _inner(shared, own, at_mixture)
            shared_descent.step(at_shared)
            own_descent.step({name: alpha * found for name, found in at_mixture.items()})
            if self.adapt:
                alpha.sub_(slope, alpha=bench.training.lr).clamp_(0, 1)
            processed += 2 * len(labels)
        keep_own(OWN, bench, own)
        bench.load(shared)
        return processed

    def serve(self, bench: Workbench) -> None:
        bench.load(mixture(bench, bench.received, own_of(OWN, bench)))


def mixture(bench: Workbench, shared: Tensors, own: Tensors) -> dict[str, Tensor]:
    """Return alpha v + (1 - alpha) w, with the buffers of v."""
    alpha = bench.kept[ALPHA]
    mixed = {name: torch.lerp(shared[name], own[name], alpha) for name in bench.parameters}
    return {**own, **mixed}


def _gradient(
    bench: Workbench, owner: Tensors, inputs: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Return the gradient at what the network holds; the pass leaves its buffers to `owner`."""
    gradient = bench.gradient(inputs, labels)
    for name in bench.tensors.keys() - gradient.keys():
        owner[name].copy_(bench.tensors[name])
    return gradient


def _inner(shared: Tensors, own: Tensors, gradient: Tensors) -> Tensor:
    """Return <v - w, gradient>, the slope of the mixture's loss along alpha."""
    parts = [((own[name] - shared[name]) * found).sum() for name, found in gradient.items()]
    return torch.stack(parts).sum()
