"""Drift: clients whose law changes during a run (concept drift in Gama et al. 2014).

Shapes: N clients.
"""

from dataclasses import dataclass
from typing import Protocol


class Drift(Protocol):
    """What `conf/drift/*.yaml` describes."""

    round: int

    def num_drifting(self, num_clients: int) -> int:
        """Return how many of N clients drift."""
        ...


@dataclass(frozen=True)
class NewLaw:
    """From round `round` on, a share of the clients holds other samples, dealt by the same rule.

    The partition deals for so many more clients; each drifting client takes the place of one of
    those, with its labels, its size and, where groups are planted, its group.
    """

    round: int
    share: float

    def __post_init__(self) -> None:
        if self.round < 2:
            raise ValueError(f"round: must be at least 2, got {self.round}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: must be in [0, 1], got {self.share}")

    def num_drifting(self, num_clients: int) -> int:
        return round(self.share * num_clients)
