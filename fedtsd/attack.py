"""Clients that lie: what attackers train on, and what they send instead of what they trained.

An attack is a simulation's own: it acts on the clients' side of the door, and the server knows
nothing of it. It is there to measure how much a method or an aggregation can bear.

Shapes: N clients.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.holdings import Split
from fedtsd.models import STATISTICS
from fedtsd.seeding import numpy_rng


@dataclass(frozen=True)
class Attack:
    """A share of the clients attacks in every round. Which ones follows from the seed.

    This one trains and sends honestly; kinds of attack change one of the two.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share: must be in [0, 1), got {self.share}")

    def attackers(self, num_clients: int, seed: int) -> np.ndarray:
        """Return who attacks, bool [N]."""
        count = self.num_attackers(num_clients)
        chosen = numpy_rng(seed, "attackers").choice(num_clients, count, replace=False)
        found = np.zeros(num_clients, dtype=bool)
        found[chosen] = True
        return found

    def num_attackers(self, num_clients: int) -> int:
        """Return how many of N clients attack: the share, rounded down."""
        return math.floor(self.share * num_clients + 1e-9)

    def check(self, regression: bool) -> None:
        """Raise ValueError naming the field if it does not fit the data."""

    def taught(self, split: Split, num_outputs: int) -> Split:
        """Return what an attacker trains on."""
        return split

    def sent(
        self, trained: Mapping[str, Tensor], received: Mapping[str, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Return what an attacker sends for the tensors that it shares."""
        return dict(trained)


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Attackers train on labels turned round: class c of Y becomes Y - 1 - c."""

    def check(self, regression: bool) -> None:
        if regression:
            raise ValueError("_target_: labels can be flipped where there are classes only")

    def taught(self, split: Split, num_outputs: int) -> Split:
        return dataclasses.replace(split, labels=num_outputs - 1 - split.labels)


@dataclass(frozen=True)
class _OfUpdates(Attack, ABC):
    """Attackers train honestly and send something else. Running statistics stay honest: a negative
    variance would be found out at once.

    factor: the length of what they send, over that of their honest update.
    """

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor <= 0:
            raise ValueError(f"factor: must be above 0, got {self.factor}")

    def sent(
        self, trained: Mapping[str, Tensor], received: Mapping[str, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        lies = [name for name in sorted(trained) if not name.endswith(STATISTICS)]
        updates = {name: trained[name] - received[name] for name in lies}
        false = self.false(updates, rng)
        return {**trained, **{name: received[name] + false[name] for name in lies}}

    @abstractmethod
    def false(self, updates: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """Return what is sent for honest updates."""


@dataclass(frozen=True)
class SignFlip(_OfUpdates):
    """Attackers send the opposite of their update."""

    def false(self, updates: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        return {name: -self.factor * update for name, update in updates.items()}


@dataclass(frozen=True)
class Scaling(_OfUpdates):
    """Attackers send their update many times over, and so lead the mean."""

    def false(self, updates: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        return {name: self.factor * update for name, update in updates.items()}


@dataclass(frozen=True)
class Gaussian(_OfUpdates):
    """Attackers send noise, as long as `factor` of their updates."""

    def false(self, updates: dict[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        noise = {
            name: torch.randn(update.shape, generator=rng).to(update)
            for name, update in updates.items()
        }
        scale = self.factor * _length(updates) / max(_length(noise), 1e-12)
        return {name: scale * tensor for name, tensor in noise.items()}


def _length(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))
