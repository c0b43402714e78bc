"""How far apart the outputs of clients with the same law are: what training alone brings about.

Personal layers and priors go by how far a client's outputs are from those of its mates. Some of
that distance is noise: how much depends on learning rate, samples and epochs. It can be given as a
number, or be measured (null): clients train what they were sent on either half of their samples,
and tell how unlike the outputs of the two models are. Measured once, just before it is needed:
later, models have seen the data, and it drifts.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from fedtsd.messages import Reply
from fedtsd.server import ServerState

NOISE = "noise_floor"  # float64 [1] in the server's memory: the mean of what clients told


class NeedsNoFloor:
    """A base for policies that do not go by divergences."""

    measures_noise: ClassVar[bool] = False

    def lacks_noise_floor(self, server: ServerState, round: int) -> bool:
        return False


class NeedsFloor(ABC):
    """A base for policies that choose by what of a divergence is above the floor.

    noise_floor: a number in [0, 1), or None to have it measured.
    """

    noise_floor: float | None

    @property
    def measures_noise(self) -> bool:
        """Whether clients measure it."""
        return self.noise_floor is None

    @abstractmethod
    def due(self, server: ServerState, round: int) -> np.ndarray:
        """Return for whom to choose after a round, bool [N]."""

    def lacks_noise_floor(self, server: ServerState, round: int) -> bool:
        """Return whether a choice is due after this round, and the floor not measured yet."""
        unknown = noise_floor_of(server, self.noise_floor) is None
        return unknown and bool(self.due(server, round).any())


def check_noise_floor(noise_floor: float | None) -> None:
    """Raise ValueError for a floor that cannot be."""
    if noise_floor is not None and not 0 <= noise_floor < 1:
        raise ValueError(
            f"noise_floor: must be in [0, 1), or null to measure it, got {noise_floor}"
        )


def noise_floor_of(server: ServerState, given: float | None) -> float | None:
    """Return the floor that was given or has been measured; None if it has not been yet."""
    if given is not None:
        return given
    return float(server.memory[NOISE][0]) if NOISE in server.memory else None


def told(server: ServerState, reply: Reply) -> ServerState:
    """Return the state that knows the mean of what clients told, if any has."""
    noises = [row.noise for row in reply.rows if row.noise is not None]
    if not noises:
        return server
    # Just below 1, so that what is above it can be scaled to 0..1.
    floor = min(float(np.mean(noises)), 1 - 1e-6)
    return dataclasses.replace(server, memory={**server.memory, NOISE: np.array([floor])})
