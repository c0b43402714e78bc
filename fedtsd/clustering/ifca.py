"""The iterative federated clustering algorithm (Ghosh, Chung, Yin, Ramchandran 2020).

arXiv 2006.04088, with averaged models (its option II). Shapes: N clients, K clusters.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.clustering.policy import Origin, Question, Quiet
from fedtsd.messages import Probe, Reply
from fedtsd.server import ServerState


@dataclass(frozen=True)
class IFCA(Quiet):
    """Every client tries all K models before it trains, and trains the one that fits it best.

    The models start from different initial networks; before a client was first asked, it counts to
    the first. A cluster that nobody chooses keeps its model and may be chosen later.
    """

    num_clusters: int

    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_clusters < 1:
            raise ValueError(f"num_clusters: must be at least 1, got {self.num_clusters}")

    def check(self, num_clients: int, has_groups: bool) -> None:
        if self.num_clusters > num_clients:
            raise ValueError(
                f"num_clusters: must be at most the {num_clients} clients, got {self.num_clusters}"
            )

    def start(self, server: ServerState, origin: Origin) -> ServerState:
        centres = tuple(origin.model(number) for number in range(self.num_clusters))
        return dataclasses.replace(server, centres=centres)

    def question(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool
    ) -> Question | None:
        if self.num_clusters == 1:  # nothing to choose, nothing to send
            return None
        return Question(Probe(look), clients)

    def answered(self, server: ServerState, reply: Reply) -> ServerState:
        assignment = server.assignment.copy()
        for row in reply.rows:
            assignment[row.client] = int(np.argmin(row.losses))
        # A cluster is its model here: who keeps the model has not moved, whoever comes and goes.
        moved = assignment != server.assignment
        since = np.where(moved, reply.round, server.assignment_round)
        return dataclasses.replace(server, assignment=assignment, assignment_round=since)
