"""Personal layers: which layers stay private on a client. Data and pure selection, no training.

Shapes: N clients, L layers.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fedtsd.models import Layer
from fedtsd.noise_floor import NeedsFloor, NeedsNoFloor, check_noise_floor, noise_floor_of
from fedtsd.server import ServerState
from fedtsd.similarity import OUTPUTS, due, pairs_of


class Personalization(Protocol):
    """Chooses the personal layers of every client."""

    uses_outputs: ClassVar[bool]
    """Whether the policy reads the clients' outputs on public data."""

    separates: ClassVar[bool]
    """Whether normalisation counts as layers of its own."""

    def check(self, layers: Sequence[Layer]) -> None:
        """Raise ValueError naming the field if the policy does not fit a model of L layers."""
        ...

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        """Return the personal layers before the first round, bool [N, L]."""
        ...

    def may_keep(self, layers: Sequence[Layer]) -> np.ndarray:
        """Return which layers may ever be personal, bool [L]: clients store just these."""
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


@dataclass(frozen=True)
class _Fixed(NeedsNoFloor):
    """Personal layers that are the same for every client and never change."""

    uses_outputs: ClassVar[bool] = False
    separates: ClassVar[bool] = False

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} does not say which layers are personal")

    def may_keep(self, layers: Sequence[Layer]) -> np.ndarray:
        return np.asarray(self.start(1, layers)[0])

    def adapt(self, server: ServerState, round: int) -> ServerState:
        return server


@dataclass(frozen=True)
class Nothing(_Fixed):
    """No layer is personal: clients share the whole model."""

    def check(self, layers: Sequence[Layer]) -> None:
        """Fit any model."""

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return np.zeros((num_clients, len(layers)), dtype=bool)


@dataclass(frozen=True)
class Everything(_Fixed):
    """All layers are personal: clients train alone and nothing crosses the door."""

    def check(self, layers: Sequence[Layer]) -> None:
        """Fit any model."""

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return np.ones((num_clients, len(layers)), dtype=bool)


@dataclass(frozen=True)
class _Count(_Fixed):
    layers: int

    def check(self, layers: Sequence[Layer]) -> None:
        if not 0 <= self.layers < len(layers):
            raise ValueError(
                f"layers: must be 0 to {len(layers) - 1} for this model of {len(layers)} layers, "
                f"got {self.layers}; personalization=all keeps every layer"
            )


@dataclass(frozen=True)
class LastLayers(_Count):
    """The last `layers` layers, those next to the output, are personal (FedPer)."""

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return last_layers(np.full(num_clients, self.layers), len(layers))


@dataclass(frozen=True)
class FirstLayers(_Count):
    """The first `layers` layers, those next to the input, are personal (LG-FedAvg)."""

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return np.tile(np.arange(len(layers)) < self.layers, (num_clients, 1))


@dataclass(frozen=True)
class Normalisation(_Fixed):
    """Normalisation is personal: parameters and running statistics alike (FedBN)."""

    separates: ClassVar[bool] = True

    def check(self, layers: Sequence[Layer]) -> None:
        if not any(layer.normalises for layer in layers):
            raise ValueError(
                "_target_: normalisation is personal, and this model has none; take model=resnet8 "
                "or a convolutional model with model.norm=batch"
            )

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return np.tile([layer.normalises for layer in layers], (num_clients, 1))


@dataclass(frozen=True)
class Adaptive(NeedsFloor):
    """The number of last layers kept follows how far a client's outputs are from its cluster's.

    p_i = min(L - 1, floor(L J'_i^power + 1/2)) with J'_i = max(0, M_i - noise_floor) / (1 -
    noise_floor), where M_i is the mean Jensen-Shannon divergence to the client's cluster mates; and
    `at_most` so many, if that is a number. It is chosen once, after round `start_round` or when the
    share `coverage` of clients has been compared with a mate, and again only for clusters that
    change; M holds only rounds in which everything was still shared (see `Similarity`). Without a
    noise floor it is measured, once, before the first choice (`fedtsd.noise_floor`).
    """

    start_round: int
    coverage: float
    noise_floor: float | None
    power: float
    at_most: int | None

    uses_outputs: ClassVar[bool] = True
    separates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.start_round < 2:
            raise ValueError(
                "start_round: must be at least 2, as outputs of round 1 are not read, "
                f"got {self.start_round}"
            )
        check_noise_floor(self.noise_floor)
        if not 0 < self.coverage <= 1:
            raise ValueError(f"coverage: must be in (0, 1], got {self.coverage}")
        if self.power <= 0:
            raise ValueError(f"power: must be above 0, got {self.power}")
        if self.at_most is not None and self.at_most < 1:
            raise ValueError(f"at_most: must be at least 1, or null, got {self.at_most}")

    def check(self, layers: Sequence[Layer]) -> None:
        """Fit any model: at least one layer stays shared."""

    def start(self, num_clients: int, layers: Sequence[Layer]) -> np.ndarray:
        return np.zeros((num_clients, len(layers)), dtype=bool)

    def may_keep(self, layers: Sequence[Layer]) -> np.ndarray:
        return np.asarray(last_layers(np.array([self._most(len(layers))]), len(layers))[0])

    def due(self, server: ServerState, round: int) -> np.ndarray:
        return due(server, round, self.start_round, self.coverage, server.personal_round)

    def adapt(self, server: ServerState, round: int) -> ServerState:
        now = self.due(server, round)
        floor = noise_floor_of(server, self.noise_floor)
        if not now.any() or floor is None:
            return server
        num_layers = server.personal.shape[1]
        divergence = pairs_of(server, OUTPUTS).mean_to_mates(server.assignment)
        chosen = self.num_layers(excess(divergence, floor), num_layers)
        personal = np.where(now[:, None], last_layers(chosen, num_layers), server.personal)
        return dataclasses.replace(
            server,
            personal=personal,
            personal_round=np.where(now, round, server.personal_round),
        )

    def num_layers(self, above: np.ndarray, num_layers: int) -> np.ndarray:
        """Map J' [N], what is above the floor in 0..1, to numbers of layers [N] in 0..L-1."""
        wanted = num_layers * above**self.power
        return np.minimum(self._most(num_layers), np.floor(wanted + 0.5)).astype(np.int64)

    def _most(self, num_layers: int) -> int:
        return min(num_layers - 1, num_layers if self.at_most is None else self.at_most)


def excess(divergence: np.ndarray, noise_floor: float) -> np.ndarray:
    """Return what of mean divergences is above the noise floor, scaled to 0..1: J'."""
    return np.asarray(np.maximum(0.0, divergence - noise_floor) / (1 - noise_floor))


def last_layers(counts: np.ndarray, num_layers: int) -> np.ndarray:
    """Return bool [N, L] with the last `counts[i]` layers of client i set."""
    return np.asarray(np.arange(num_layers)[None, :] >= num_layers - counts[:, None])
