"""What the server knows between rounds, as one immutable value.

Shapes: N clients, K clusters, L layers. A cluster is named by its row in `centres`; members are
found by client id in `assignment`, never by their position in a cohort.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

Tensors = Mapping[str, Tensor]
"""A model or a part of one: tensors by their state-dict name. Never changed in place."""


ABSENT = -1


@dataclass(frozen=True)
class Decision:
    """One decision of a clustering policy: was there structure in cluster `cluster`, and how much.

    `split` says that the cluster was divided; `passed` only that this round's evidence sufficed.
    """

    stage: int
    cluster: int
    size: int
    num_clusters_proposed: int
    silhouette: float
    hopkins: float
    hopkins_p: float
    passed: bool
    split: bool


@dataclass(frozen=True)
class ServerState:
    """The server's whole memory.

    centres: K models, each with every layer (layers that nobody shares keep their last value).
    assignment: int64 [N], the cluster of each client; ABSENT for newcomers that have not joined.
    assignment_round: int64 [N], the round in which the client's cluster last changed.
    personal: bool [N, L], the layers that stay private on each client.
    personal_round: int64 [N], the round in which `personal` was last chosen.
    prior: bool [N], the clients whose networks add the log prior of their labels (`fedtsd.prior`).
    memory: named arrays that policies keep; keys start with the policy's own name.
    decisions: what the clustering policy tested in the last round.
    """

    centres: tuple[Tensors, ...]
    assignment: np.ndarray
    assignment_round: np.ndarray
    personal: np.ndarray
    personal_round: np.ndarray
    prior: np.ndarray
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.assignment)

    @property
    def present(self) -> np.ndarray:
        """The ids of all clients that are there, sorted."""
        return np.flatnonzero(self.assignment != ABSENT)

    def members(self, cluster: int) -> np.ndarray:
        """Return the client ids of one cluster, sorted."""
        return np.flatnonzero(self.assignment == cluster)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as one literal: tensors, arrays and plain containers."""
        return {
            "centres": [dict(centre) for centre in self.centres],
            "assignment": self.assignment,
            "assignment_round": self.assignment_round,
            "personal": self.personal,
            "personal_round": self.personal_round,
            "prior": self.prior,
            "memory": dict(self.memory),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "ServerState":
        """Rebuild the state; `decisions` belong to a round that is over and start empty."""
        return cls(**{**state, "centres": tuple(state["centres"])})


def reassigned(server: ServerState, assignment: np.ndarray, round: int) -> ServerState:
    """Return the state with new clusters; each starts from the centre its first member had.

    A client counts as moved when its set of cluster mates changes; cluster numbers may be
    exchanged without anybody moving.
    """
    num_clusters = int(assignment.max()) + 1
    moved = np.zeros(server.num_clients, dtype=bool)
    centres = []
    for cluster in range(num_clusters):
        members = np.flatnonzero(assignment == cluster)
        parent = int(server.assignment[members[0]])
        centres.append(server.centres[parent])
        moved[members] = not np.array_equal(members, server.members(parent))
    return dataclasses.replace(
        server,
        centres=tuple(centres),
        assignment=assignment.astype(np.int64),
        assignment_round=np.where(moved, round, server.assignment_round),
    )


def joined(server: ServerState, clusters: Mapping[int, int], round: int) -> ServerState:
    """Return the state with newcomers in their clusters, by client id; nobody else moves."""
    assignment, since = server.assignment.copy(), server.assignment_round.copy()
    for client, cluster in clusters.items():
        assignment[client], since[client] = cluster, round
    return dataclasses.replace(server, assignment=assignment, assignment_round=since)


def without_empty(server: ServerState) -> ServerState:
    """Return the state without clusters that have no members; nobody moves."""
    here = server.assignment != ABSENT
    kept, closed = np.unique(server.assignment[here], return_inverse=True)
    if len(kept) == len(server.centres):
        return server
    assignment = server.assignment.copy()
    assignment[here] = closed
    centres = tuple(server.centres[cluster] for cluster in kept)
    return dataclasses.replace(server, centres=centres, assignment=assignment)


def start_state(model: Tensors, personal: np.ndarray, newcomers: Sequence[int] = ()) -> ServerState:
    """Return the state before round 1: one cluster of all clients but newcomers.

    Its centre is the initial model.
    """
    zeros = np.zeros(len(personal), dtype=np.int64)
    assignment = zeros.copy()
    assignment[list(newcomers)] = ABSENT
    return ServerState((model,), assignment, zeros, personal, zeros, zeros.astype(bool))
