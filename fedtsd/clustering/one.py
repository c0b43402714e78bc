"""One cluster of all clients, for ever."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.server import ServerState


@dataclass(frozen=True)
class OneCluster:
    """Everybody belongs together."""

    uses_outputs: ClassVar[bool] = False
    uses_updates: ClassVar[bool] = False

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        return server
