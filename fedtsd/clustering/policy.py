"""What a clustering policy is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from fedtsd.messages import Describe, Probe, Reply, Request
from fedtsd.server import ServerState, Tensors


@dataclass(frozen=True)
class Origin:
    """What a policy may start from.

    model: makes an initial model from a number; number 0 is the one that all clients know. groups:
    int64 [N], the planted group of each client; None if the data has none. Only a policy that
    stands for perfect knowledge may read it.
    """

    model: Callable[[int], Tensors]
    groups: np.ndarray | None


@dataclass(frozen=True)
class Question:
    """What a policy asks clients (by id, sorted) before they train."""

    task: Probe | Describe
    clients: np.ndarray


class Clustering(Protocol):
    """Decides who belongs together, from what the server measured."""

    uses_outputs: ClassVar[bool]
    """Whether it reads `similarity.OUTPUTS`: clients then send outputs on public samples."""

    uses_updates: ClassVar[bool]
    """Whether it reads `similarity.UPDATES`."""

    reads_models: ClassVar[bool]
    """Whether its `measure` reads each client's trained model: they are then not summed on their
    way."""

    asks: ClassVar[bool]
    """Whether it has questions that are answered from training data, whatever the model's origin:
    losses, directions."""

    def check(self, num_clients: int, has_groups: bool) -> None:
        """Raise ValueError naming the field if it does not fit N clients, or their data.

        has_groups: whether the data has planted groups.
        """
        ...

    def start(self, server: ServerState, origin: Origin) -> ServerState:
        """Return the state before round 1, from one cluster of all clients that are there."""
        ...

    def question(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool
    ) -> Question | None:
        """Return what to ask before these clients train, or are evaluated (`look`); None: nothing.

        A look is the simulation's own: it is not counted, and the answer is used for this
        evaluation alone.
        """
        ...

    def answered(self, server: ServerState, reply: Reply) -> ServerState:
        """Return the state after the answers to a question."""
        ...

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Keep in the server's memory what is needed of a round's trained models."""
        ...

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        """Return the state with this round's clusters and the decisions behind them."""
        ...


class Quiet:
    """A base for policies: it starts with one cluster, asks nothing and measures nothing itself."""

    uses_outputs: ClassVar[bool] = False
    uses_updates: ClassVar[bool] = False
    reads_models: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    def check(self, num_clients: int, has_groups: bool) -> None:
        """Fit any federation."""

    def start(self, server: ServerState, origin: Origin) -> ServerState:
        return server

    def question(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool
    ) -> Question | None:
        return None

    def answered(self, server: ServerState, reply: Reply) -> ServerState:
        return server

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        return server

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        return server
