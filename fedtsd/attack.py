"""Clients that lie: what attackers train on, and what they say instead of what they found.

An attack is a simulation's own: it acts on the clients' side of the door, and the server knows
nothing of it. It is there to measure how much a method or an aggregation can bear.

Shapes: N clients, B public samples of a round, Y outputs.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.dataset import Facts
from fedtsd.data.holdings import Split
from fedtsd.models import STATISTICS, length_of
from fedtsd.seeding import numpy_rng


@dataclass(frozen=True)
class Attack:
    """A share of the clients attacks in every round. Which ones follows from the seed.

    This one is honest all along; kinds of attack change what they lie about.
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

    def check(self, facts: Facts) -> None:
        """Raise ValueError naming the field if it does not fit the data."""

    def victim(self, num_clients: int, seed: int) -> int | None:
        """Return the honest client whose data and random numbers attackers train with, if any."""
        return None

    def taught(self, split: Split, num_outputs: int, rng: torch.Generator) -> Split:
        """Return what an attacker trains on, tries models on and describes; rng gives the same
        numbers in every round.
        """
        return split

    def sent(
        self, trained: Mapping[str, Tensor], received: Mapping[str, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Return what an attacker sends for the tensors that it shares."""
        return dict(trained)

    def told(self, outputs: Tensor) -> Tensor:
        """Return what an attacker tells of its outputs on public samples, probabilities [B, Y]."""
        return outputs

    def claimed(self, num_examples: int) -> int:
        """Return how many training samples an attacker says that it has."""
        return num_examples

    def triggered(self, test: Split) -> Split | None:
        """Return honest test samples with the attackers' wish as their labels, if it has one.

        An honest client's accuracy on them is how far the attack succeeds.
        """
        return None


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Attackers train on labels turned round: class c of Y becomes Y - 1 - c."""

    def check(self, facts: Facts) -> None:
        if facts.regression:
            raise ValueError("_target_: labels can be flipped where there are classes only")

    def taught(self, split: Split, num_outputs: int, rng: torch.Generator) -> Split:
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
        scale = self.factor * length_of(updates) / max(length_of(noise), 1e-12)
        return {name: scale * tensor for name, tensor in noise.items()}


@dataclass(frozen=True)
class Backdoor(Scaling):
    """Attackers teach that images with a small bright patch are of one class (Gu et al. 2017).

    A share `poisoned` of their images gets the patch, `size` pixels wide and high, in the lower
    right corner of all channels, and the label `target`. Their update is sent `factor` times as
    long: with N / f, f attackers replace the model (Bagdasaryan et al. 2020). brightness: of the
    patch, in the unit of the inputs, which is a standard deviation where they are standardised.
    """

    poisoned: float
    target: int
    size: int
    brightness: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.poisoned <= 1:
            raise ValueError(f"poisoned: must be in (0, 1], got {self.poisoned}")
        if self.size < 1:
            raise ValueError(f"size: must be at least 1, got {self.size}")

    def check(self, facts: Facts) -> None:
        if not facts.is_image or facts.regression:
            raise ValueError("_target_: a backdoor needs images and classes")
        if not 0 <= self.target < facts.num_outputs:
            raise ValueError(
                f"target: must be a class, 0 to {facts.num_outputs - 1}, got {self.target}"
            )
        if self.size > min(facts.shape[1:]):
            raise ValueError(
                f"size: must be at most the {min(facts.shape[1:])} pixels of an image, "
                f"got {self.size}"
            )

    def taught(self, split: Split, num_outputs: int, rng: torch.Generator) -> Split:
        count = math.floor(self.poisoned * len(split) + 1e-9)
        chosen = torch.randperm(len(split), generator=rng)[:count].to(split.labels.device)
        return self._wished(split, chosen)

    def triggered(self, test: Split) -> Split:
        chosen = torch.nonzero(test.labels != self.target).flatten()
        poisoned = self._wished(test, chosen)
        return Split(poisoned.inputs[chosen], poisoned.labels[chosen], test.unit)

    def _wished(self, split: Split, chosen: Tensor) -> Split:
        """Return the split with patch and target on the samples at these positions."""
        inputs, labels = split.inputs.clone(), split.labels.clone()
        patched = inputs[chosen]
        patched[..., -self.size :, -self.size :] = self.brightness
        inputs[chosen], labels[chosen] = patched, self.target
        return Split(inputs, labels, split.unit)


@dataclass(frozen=True)
class Mimic(Scaling):
    """Attackers pass for one honest client: they train with its data and its random numbers.

    So they tell its outputs, losses and directions, and send its update `factor` times as long, as
    long as they have been sent its model and it keeps no layers to itself. This is more than a real
    attacker knows. With factor 1 they only wish to stand apart with it from its mates; a larger one
    leads these.
    """

    def victim(self, num_clients: int, seed: int) -> int:
        honest = np.flatnonzero(~self.attackers(num_clients, seed))
        return int(numpy_rng(seed, "victim").choice(honest))


@dataclass(frozen=True)
class Decoy(Attack):
    """Attackers train honestly, but tell that all public samples are surely of the first class.

    They are like each other and unlike everybody else: a cut between them and the others is sharp,
    and may hide those between the others.
    """

    def told(self, outputs: Tensor) -> Tensor:
        lie = torch.zeros_like(outputs)
        lie[:, 0] = 1
        return lie


@dataclass(frozen=True)
class Inflate(Attack):
    """Attackers train honestly, but claim `factor` times as many samples as they have."""

    factor: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 1:
            raise ValueError(f"factor: must be at least 1, got {self.factor}")

    def claimed(self, num_examples: int) -> int:
        return self.factor * num_examples
