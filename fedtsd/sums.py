"""Sums of models: all that a weighted mean needs, whoever adds them up.

A sum is held in float64. Weights are whole numbers and tensors float32, so each product is exact
and only the additions round: far below what a float32 mean shows. Clients are added in one order,
whoever adds them, so that the bits of a mean do not depend on the engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHTINGS = ("samples", "uniform")


@dataclass(frozen=True)
class Sums:
    """The sum of several clients' models.

    tensors: the weighted sum of each tensor, float64. weights: of those who shared it, by name.
    """

    tensors: Mapping[str, Tensor]
    weights: Mapping[str, float]

    def mean(self, name: str) -> Tensor | None:
        """Return the weighted mean of a tensor, float32; None if nobody shared it."""
        if name not in self.tensors:
            return None
        return (self.tensors[name] / self.weights[name]).float()


class Summing:
    """A sum that is being taken."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, model: Mapping[str, Tensor], weight: float) -> None:
        """Add the tensors that one client shares."""
        for name, tensor in model.items():
            if name not in self._tensors:
                zeros = torch.zeros(tensor.shape, dtype=torch.float64, device=tensor.device)
                self._tensors[name] = zeros
                self._weights[name] = 0.0
            self._tensors[name].add_(tensor, alpha=weight)
            self._weights[name] += weight

    def result(self) -> Sums:
        """Return the sum so far; it must not be added to afterwards."""
        return Sums(self._tensors, self._weights)


def weight_of(num_examples: int, weighting: str) -> float:
    """Return the weight of a client's model: its training samples, or 1."""
    return 1.0 if weighting == "uniform" else float(num_examples)


def summing_order(num_examples: Sequence[int]) -> list[int]:
    """Return the positions of clients in the order in which they work and are added.

    Those with most samples come first: they take longest, and whoever works beside them then has
    small ones left to fill the time. Ties keep their order.
    """
    return sorted(range(len(num_examples)), key=lambda i: -num_examples[i])
