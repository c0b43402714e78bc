"""Differential privacy: what a mechanism says of itself, whatever its level.

Two mechanisms exist: `aggregation_private.ClientDp` hides one client among all,
`clients.solvers.dp_sgd.DpSgd` one sample of a client. `accountant` adds up what their releases
cost, `privacy_rules` refuses what they do not cover. docs/privacy.md has the reasons.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fedtsd.training import Training

EVERYBODY = -1
"""Who a release is about that costs all clients the same."""

Release = tuple[Any, int]
"""A `dp_accounting.DpEvent`, and how many times in a row it happens."""


@dataclass(frozen=True)
class Turn:
    """A round, as far as privacy depends on it.

    present: how many clients there are. sizes: by id of each client that trains, the number of its
    training samples.
    """

    present: int
    sizes: Mapping[int, int]


@dataclass(frozen=True)
class Mechanism(ABC):
    """A Gaussian mechanism: what is released is clipped, and noise is added.

    clip: the longest that one contribution may be (L2). noise_multiplier: the standard deviation of
    the noise on a sum of contributions, in clips. delta: for which epsilon is told; well below one
    over the number of clients, or of a client's samples. target_epsilon: the run ends before a
    round after which more would be spent; None sets no limit.
    """

    clip: float
    noise_multiplier: float
    delta: float
    target_epsilon: float | None

    group: ClassVar[str]
    """The part of the config that it is."""
    level: ClassVar[str]
    """What is hidden: `client` or `example`."""
    relation: ClassVar[str]
    """Between which data sets nobody can tell: the name of a `dp_accounting.NeighboringRelation`"""

    def __post_init__(self) -> None:
        for name in ("clip", "noise_multiplier"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0, got {getattr(self, name)}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta: must be in (0, 1), got {self.delta}")
        if self.target_epsilon is not None and self.target_epsilon <= 0:
            raise ValueError(f"target_epsilon: must be null or above 0, got {self.target_epsilon}")

    @abstractmethod
    def releases(self, turn: Turn, training: Training) -> Mapping[int, Sequence[Release]]:
        """Return what a round releases of each client, or of EVERYBODY alike."""
