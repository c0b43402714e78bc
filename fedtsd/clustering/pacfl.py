"""PACFL (Vahidian et al. 2023, arXiv 2209.10526): clusters by angles between the clients' data.

Shapes: N clients, D features of a sample, p vectors of a client, M other clients.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.clustering.policy import Question, Quiet
from fedtsd.clustering.split import Labels, renumber
from fedtsd.messages import Describe, Reply
from fedtsd.server import ABSENT, ServerState, joined, reassigned

MEASURES = ("smallest", "sum")
SUBSPACES = "pacfl.subspaces"
DIMENSIONS = "pacfl.dimensions"
UNKNOWN = -1


@dataclass(frozen=True)
class PACFL(Quiet):
    """Group clients once, before round 1, by the principal angles between their data subspaces.

    Each client sends the `vectors` leading left singular vectors of its samples, once. Distance of
    two clients, in degrees: their smallest principal angle, or the sum of the angles (`angles`).
    Average linkage cuts the tree where clusters are more than `max_angle` apart. A client that
    comes later describes its data when it first trains, and goes to the cluster with the smallest
    mean distance if that is at most `max_angle`; else it stays where its samples fitted best.

    These are the principal angles of Bjorck and Golub (1973), which do not depend on the order or
    the sign of vectors; the authors' program takes angles between single vectors instead. Labels do
    not matter: clients that name the same inputs differently are alike. The vectors are pictures of
    the data: they tell the server more of it than any model does.
    """

    vectors: int
    angles: str
    max_angle: float

    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.vectors < 1:
            raise ValueError(f"vectors: must be at least 1, got {self.vectors}")
        if self.angles not in MEASURES:
            raise ValueError(f"angles: must be one of {', '.join(MEASURES)}, got {self.angles!r}")
        most = 90.0 * (self.vectors if self.angles == "sum" else 1)
        if not 0 <= self.max_angle <= most:
            raise ValueError(
                f"max_angle: must be in [0, {most:g}] degrees for this measure, got "
                f"{self.max_angle}"
            )

    def question(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool
    ) -> Question | None:
        if look:
            return None
        if DIMENSIONS not in server.memory:
            return Question(Describe(self.vectors), server.present)
        unknown = clients[server.memory[DIMENSIONS][clients] == UNKNOWN]
        return Question(Describe(self.vectors), unknown) if len(unknown) else None

    def answered(self, server: ServerState, reply: Reply) -> ServerState:
        new = np.array([row.client for row in reply.rows])
        known = np.flatnonzero(_dimensions(server) != UNKNOWN)
        server = self._kept(server, reply)
        if len(known):
            return self._placed(server, new, known, reply.round)
        distance = self._distances(server, new, new)
        # Who has not answered begins in the first cluster and is asked again before it trains next.
        assignment = np.where(server.assignment == ABSENT, ABSENT, 0)
        assignment[new] = clusters_within(distance, self.max_angle)
        return reassigned(server, assignment, reply.round)

    def _kept(self, server: ServerState, reply: Reply) -> ServerState:
        """Keep subspaces, float32 [N, D, p], with columns of zeros where there are fewer vectors.

        int64 [N] says how many each client has; UNKNOWN before it was asked.
        """
        told = {row.client: row.subspace.numpy() for row in reply.rows if row.subspace is not None}
        features = len(next(iter(told.values())))
        shape = (server.num_clients, features, self.vectors)
        subspaces = server.memory.get(SUBSPACES, np.zeros(shape, dtype=np.float32)).copy()
        dimensions = _dimensions(server).copy()
        for client, basis in told.items():
            dimensions[client] = basis.shape[1]
            subspaces[client, :, : basis.shape[1]] = basis
        memory = {**server.memory, SUBSPACES: subspaces, DIMENSIONS: dimensions}
        return dataclasses.replace(server, memory=memory)

    def _placed(
        self, server: ServerState, new: np.ndarray, known: np.ndarray, round: int
    ) -> ServerState:
        """Move clients to the nearest cluster of those that were known before, if it is near."""
        distance = self._distances(server, new, known)
        clusters = np.unique(server.assignment[known])
        means = np.stack(
            [distance[:, server.assignment[known] == cluster].mean(axis=1) for cluster in clusters]
        )
        nearest = clusters[means.argmin(axis=0)]
        moves = (means.min(axis=0) <= self.max_angle) & (nearest != server.assignment[new])
        chosen = dict(zip(new[moves].tolist(), nearest[moves].tolist(), strict=True))
        return joined(server, chosen, round)

    def _distances(self, server: ServerState, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the distances [rows, columns] of clients, in degrees."""
        subspaces, dimensions = server.memory[SUBSPACES], server.memory[DIMENSIONS]
        others = subspaces[columns].astype(np.float64)
        found = np.empty((len(rows), len(columns)))
        for position, client in enumerate(rows):
            between = principal_angles(subspaces[client].astype(np.float64), others)
            if self.angles == "smallest":
                found[position] = between[:, 0]
                continue
            # Subspaces of different dimensions have as many angles as the smaller one; at least
            # one counts, or clients whose inputs are all 0 would be like everybody.
            count = np.maximum(np.minimum(dimensions[client], dimensions[columns]), 1)
            counts = np.arange(self.vectors) < count[:, None]
            found[position] = np.where(counts, between, 0).sum(axis=1)
        return found


def principal_angles(basis: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the principal angles [M, p] between a subspace and others in degrees, smallest first.

    Columns of `basis` [D, p] and of each of `others` [M, D, p] are orthonormal, or 0 where there
    are fewer: such a column makes a right angle.
    """
    products = np.matmul(basis.T, others)
    cosines = np.linalg.svd(products, compute_uv=False)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, 0, 1))))


def clusters_within(distance: np.ndarray, limit: float) -> Labels:
    """Labels [M] of an average-linkage tree of `distance` [M, M], cut at the height `limit`."""
    # Lazily: SciPy takes a while to import.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(distance) == 1:
        return np.zeros(1, dtype=np.int64)
    symmetric = (distance + distance.T) / 2
    np.fill_diagonal(symmetric, 0)
    tree = linkage(squareform(symmetric, checks=False), method="average")
    return renumber(fcluster(tree, limit, criterion="distance"))


def _dimensions(server: ServerState) -> np.ndarray:
    return server.memory.get(DIMENSIONS, np.full(server.num_clients, UNKNOWN, dtype=np.int64))
