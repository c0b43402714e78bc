"""What a clustering policy is."""

from typing import ClassVar, Protocol

import numpy as np

from fedtsd.server import ServerState


class Clustering(Protocol):
    """Decides who belongs together, from what the server measured."""

    uses_outputs: ClassVar[bool]
    """Whether it reads `similarity.OUTPUTS`: clients then send outputs on public samples."""

    uses_updates: ClassVar[bool]
    """Whether it reads `similarity.UPDATES`."""

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        """Return the state with this round's clusters and the decisions behind them."""
        ...
