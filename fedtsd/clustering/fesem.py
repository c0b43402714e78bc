"""FeSEM (Xie et al. 2021, multi-center federated learning, arXiv 2005.01026).

Shapes: N clients, K clusters, R coordinates.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.clustering.policy import Quiet
from fedtsd.clustering.updates import axes_of, gram_of, k_means
from fedtsd.messages import Reply, Request
from fedtsd.server import ABSENT, ServerState, Tensors

POINTS = "fesem.points"
DISTANCES = "fesem.distances"


@dataclass(frozen=True)
class FeSEM(Quiet):
    """K models; every client goes to the one nearest to its trained model, by squared L2 distance.

    E-step: in each round, who trained is assigned to the nearest centre. M-step: the aggregation
    makes each centre the mean of the models assigned to it (weighted by samples, where the paper
    takes them alike). A centre without members keeps its value and may win some back.

    The start is this project's choice. From K different random models nobody would ever leave its
    own, for these are much farther apart than training goes; from K equal ones all distances tie.
    So all clients start from one model, and K-means (the best of `restarts`) of the models trained
    in round 1 gives the first clusters, fewer where fewer clients answered. Clients that did not
    answer then count to the largest cluster until they train. As centres part, few clients move:
    the first clusters decide most.
    """

    num_clusters: int
    restarts: int

    reads_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_clusters < 2:
            raise ValueError(f"num_clusters: must be at least 2, got {self.num_clusters}")
        if self.restarts < 1:
            raise ValueError(f"restarts: must be at least 1, got {self.restarts}")

    def check(self, num_clients: int, has_groups: bool) -> None:
        if self.num_clusters > num_clients:
            raise ValueError(
                f"num_clusters: must be at most the {num_clients} clients, got {self.num_clusters}"
            )

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Keep this round's distances [N, K], NaN for who did not train.

        Before there are distances, the trained models as points [N, R] that lie as far apart.
        """
        clients = [row.client for row in reply.rows]
        if DISTANCES in server.memory:
            kept = DISTANCES
            found = np.array(
                [
                    [_distance(row.tensors, centre) for centre in request.models]
                    for row in reply.rows
                ]
            )
        else:
            kept = POINTS
            names = sorted(set.intersection(*(set(row.tensors) for row in reply.rows)))
            rows = [[row.tensors[name].numpy() for name in names] for row in reply.rows]
            vectors, values = axes_of(gram_of(rows, len(rows), centred=True))
            found = vectors * values
        table = np.full((server.num_clients, found.shape[1]), np.nan)
        table[clients] = found
        return dataclasses.replace(server, memory={**server.memory, kept: table})

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        if DISTANCES not in server.memory:
            return self._start_clusters(server, round, rng)
        distances = server.memory[DISTANCES]
        trained = ~np.isnan(distances).any(axis=1)
        assignment = server.assignment.copy()
        assignment[trained] = distances[trained].argmin(axis=1)
        return _moved(server, assignment, round)

    def _start_clusters(
        self, server: ServerState, round: int, rng: np.random.Generator
    ) -> ServerState:
        memory = dict(server.memory)
        points = memory.pop(POINTS)
        trained = np.zeros(len(points), dtype=bool)
        trained[server.present] = True
        trained &= ~np.isnan(points).any(axis=1)
        labels = k_means(points[trained], self.num_clusters, self.restarts, rng)
        count = int(labels.max()) + 1
        assignment = np.where(server.assignment == ABSENT, ABSENT, np.bincount(labels).argmax())
        assignment[trained] = labels
        memory[DISTANCES] = np.full((server.num_clients, count), np.nan)
        centres = server.centres[:1] * count
        return _moved(
            dataclasses.replace(server, centres=centres, memory=memory), assignment, round
        )


def _moved(server: ServerState, assignment: np.ndarray, round: int) -> ServerState:
    # A cluster is its centre here: who keeps the centre has not moved, whoever comes and goes.
    since = np.where(assignment != server.assignment, round, server.assignment_round)
    return dataclasses.replace(server, assignment=assignment, assignment_round=since)


def _distance(trained: Tensors, centre: Tensors) -> float:
    """Return the squared L2 distance over the tensors that a client shares."""
    return sum(
        float((tensor.double() - centre[name].double()).square().sum())
        for name, tensor in trained.items()
    )
