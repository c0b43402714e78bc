"""What solvers that take steps of their own share: the step, and the settings that they go with."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedtsd.training import Training


class Descent:
    """SGD on tensors in place, from a momentum of zero: v <- momentum v + g, w <- w - lr v."""

    def __init__(self, moving: Mapping[str, Tensor], training: Training) -> None:
        self._moving = {name: tensor.detach() for name, tensor in moving.items()}
        self._velocity = {name: torch.zeros_like(t) for name, t in self._moving.items()}
        self._training = training

    @torch.no_grad()
    def step(self, gradient: Mapping[str, Tensor]) -> None:
        """Move by the gradient of each tensor, by name."""
        for name, tensor in self._moving.items():
            velocity = self._velocity[name].mul_(self._training.momentum).add_(gradient[name])
            tensor.sub_(velocity, alpha=self._training.lr)


def check_shared(method: str, num_personal: int) -> None:
    """Raise ValueError unless all layers are shared."""
    if num_personal:
        raise ValueError(f"_target_: {method} shares the whole model; set personalization=none")


def check_whole(method: str, training: Training, num_personal: int) -> None:
    """Raise ValueError unless all layers are shared, and move alike in every phase."""
    check_shared(method, num_personal)
    if any(phase.layers != "all" or phase.proximal for phase in training.phases):
        raise ValueError(
            f"_target_: {method} needs training.phases that move all layers, without a proximal "
            "term"
        )
