"""Who trains and is served with the log prior of its own labels added to the logits.

Clients under label skew share p(x | y) and differ in their class prior. A network that is given
log prior a_i, private to client i, need not learn it (logit adjustment, Menon et al. 2021; a
personal output for a common body, FedRoD, Chen and Chao 2022):

    a_i[c] = log(Y (n_ic + 1/2) / (n_i + Y / 2))

Shapes: N clients, Y classes.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fedtsd.noise_floor import NeedsFloor, NeedsNoFloor, check_noise_floor, noise_floor_of
from fedtsd.personalization import excess
from fedtsd.server import ServerState
from fedtsd.similarity import OUTPUTS, due, pairs_of

CHOSEN = "prior.chosen"  # int64 [N] in the server's memory: the round of the last choice


class Prior(Protocol):
    """Chooses who has a prior."""

    uses_outputs: ClassVar[bool]
    """Whether the policy reads the clients' outputs on public data."""

    def start(self, num_clients: int) -> np.ndarray:
        """Return who has one from the first round on, bool [N]."""
        ...

    @property
    def measures_noise(self) -> bool:
        """Whether it has clients measure the noise floor (`fedtsd.noise_floor`)."""
        ...

    def lacks_noise_floor(self, server: ServerState, round: int) -> bool:
        """Return whether a choice is due after this round, and the noise floor not measured yet."""
        ...

    def adapt(self, server: ServerState, round: int) -> ServerState:
        """Choose again after a training round."""
        ...


class _Fixed(NeedsNoFloor):
    """The same for all clients and rounds."""

    uses_outputs: ClassVar[bool] = False

    def adapt(self, server: ServerState, round: int) -> ServerState:
        return server


@dataclass(frozen=True)
class NoPrior(_Fixed):
    """Nobody has one; the network is what it would be without this policy."""

    def start(self, num_clients: int) -> np.ndarray:
        return np.zeros(num_clients, dtype=bool)


@dataclass(frozen=True)
class Everybody(_Fixed):
    """Everybody has one, from the first round on."""

    def start(self, num_clients: int) -> np.ndarray:
        return np.ones(num_clients, dtype=bool)


@dataclass(frozen=True)
class Skewed(NeedsFloor):
    """Clients whose outputs are far from those of their cluster mates, after round `start_round`.

    Far: J'_i = max(0, M_i - noise_floor) / (1 - noise_floor) is above `above`, where M_i is the
    mean divergence to the mates. Chosen when personal layers are (`personalization.Adaptive`), from
    the same numbers: once, and again for clusters that change. Without a noise floor it is
    measured, once for both (`fedtsd.noise_floor`).
    """

    start_round: int
    coverage: float
    noise_floor: float | None
    above: float

    uses_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.start_round < 2:
            raise ValueError(f"start_round: must be at least 2, got {self.start_round}")
        if not 0 < self.coverage <= 1:
            raise ValueError(f"coverage: must be in (0, 1], got {self.coverage}")
        check_noise_floor(self.noise_floor)
        if not 0 <= self.above < 1:
            raise ValueError(f"above: must be in [0, 1), got {self.above}")

    def start(self, num_clients: int) -> np.ndarray:
        return np.zeros(num_clients, dtype=bool)

    def due(self, server: ServerState, round: int) -> np.ndarray:
        return due(server, round, self.start_round, self.coverage, _last_choice(server))

    def adapt(self, server: ServerState, round: int) -> ServerState:
        now = self.due(server, round)
        floor = noise_floor_of(server, self.noise_floor)
        if not now.any() or floor is None:
            return server
        divergence = pairs_of(server, OUTPUTS).mean_to_mates(server.assignment)
        chosen = excess(divergence, floor) > self.above
        memory = {**server.memory, CHOSEN: np.where(now, round, _last_choice(server))}
        return dataclasses.replace(server, prior=np.where(now, chosen, server.prior), memory=memory)


def _last_choice(server: ServerState) -> np.ndarray:
    return server.memory.get(CHOSEN, np.zeros(server.num_clients, dtype=np.int64))
