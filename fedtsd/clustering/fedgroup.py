"""FedGroup (Duan et al. 2021, arXiv 2010.06870): static groups from first updates.

Shapes: N clients, C clients that answered in round 1, G groups, R <= G directions.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fedtsd.clustering.policy import Quiet
from fedtsd.clustering.updates import axes_of, gram_of, k_means
from fedtsd.messages import Reply, Request
from fedtsd.server import ABSENT, ServerState, Tensors, joined

DIRECTION = "fedgroup.direction."
COSINES = "fedgroup.cosines"
GROUPS = "fedgroup.num_groups"


@dataclass(frozen=True)
class FedGroup(Quiet):
    """Group clients once, by the decomposed cosine similarity (EDC) of their first updates.

    The updates of round 1 span `num_groups` leading right singular vectors, the directions. A
    client is seen as the cosines of its update with these, and K-means (the best of `restarts`)
    makes the groups, fewer where fewer clients answered. Groups then train apart, by FedAvg.

    Clients that did not answer in round 1 wait in a cluster of their own whose model stays the
    initial one, so that all first updates start from one model: they are evaluated with it until
    they train. After their first round they join the group whose mean direction has the highest
    cosine with their update, both as seen in the directions.

    Limits: a kind of client that did not answer in round 1 has no group, and its members join one
    of the others. A late client's first model, trained from the initial one, counts in its group's
    next mean. With `personalization`, only layers that are shared are compared. The paper's
    exchange between groups (its inter-group rate) is left out.
    """

    num_groups: int
    restarts: int

    reads_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_groups < 2:
            raise ValueError(f"num_groups: must be at least 2, got {self.num_groups}")
        if self.restarts < 1:
            raise ValueError(f"restarts: must be at least 1, got {self.restarts}")

    def check(self, num_clients: int, has_groups: bool) -> None:
        if self.num_groups > num_clients:
            raise ValueError(
                f"num_groups: must be at most the {num_clients} clients, got {self.num_groups}"
            )

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        if GROUPS not in server.memory:
            return self._measure_all(server, request, reply)
        received = _received(request)
        waiting = set(server.members(int(server.memory[GROUPS][0])).tolist())
        updates = {
            row.client: _update(received[row.client], row.tensors)
            for row in reply.rows
            if row.client in waiting
        }
        if not updates:
            return server
        cosines = server.memory[COSINES].copy()
        for client, update in updates.items():
            cosines[client] = _seen(update, server)
        return dataclasses.replace(server, memory={**server.memory, COSINES: cosines})

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        cosines = server.memory[COSINES]
        heard = ~np.isnan(cosines).any(axis=1)
        if GROUPS not in server.memory:
            return self._group(server, np.flatnonzero(heard), round, rng)
        num_groups = int(server.memory[GROUPS][0])
        fresh = np.flatnonzero(heard & (server.assignment == num_groups))
        if not len(fresh):
            return server
        known = [heard & (server.assignment == group) for group in range(num_groups)]
        means = np.stack([cosines[members].mean(axis=0) for members in known])
        nearest = (cosines[fresh] @ _unit(means).T).argmax(axis=1)
        server = joined(server, dict(zip(fresh.tolist(), nearest.tolist(), strict=True)), round)
        if len(server.members(num_groups)):
            return server
        return dataclasses.replace(server, centres=server.centres[:num_groups])

    def _measure_all(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Keep the leading directions of the updates, and each update's cosines with them."""
        shared = set.intersection(*(set(row.tensors) for row in reply.rows))
        names = [name for name in reply.rows[0].tensors if name in shared]
        received = _received(request)

        def changes(position: int, wanted: Iterable[str]) -> Iterator[np.ndarray]:
            row = reply.rows[position]
            trained, before = row.tensors, received[row.client]
            return ((trained[name] - before[name]).numpy().reshape(-1) for name in wanted)

        # One tensor at a time: the updates of all clients at once may not fit into memory.
        everybody = range(len(reply.rows))
        gram = gram_of([changes(i, names) for i in everybody], len(everybody), centred=False)
        vectors, values = axes_of(gram)
        vectors, values = vectors[:, : self.num_groups], values[: self.num_groups]
        cosines = np.full((server.num_clients, len(values)), np.nan)
        clients = [row.client for row in reply.rows]
        cosines[clients] = _ratio(vectors * values, np.sqrt(gram.diagonal())[:, None])
        memory = {**server.memory, COSINES: cosines}
        for name in names:
            stacked = np.concatenate([list(changes(i, [name])) for i in everybody])
            directions = _ratio(vectors.T @ stacked, values[:, None])
            memory[DIRECTION + name] = directions.astype(np.float32)
        return dataclasses.replace(server, memory=memory)

    def _group(
        self, server: ServerState, heard: np.ndarray, round: int, rng: np.random.Generator
    ) -> ServerState:
        """Make the groups; who has not answered waits in one more cluster, the last."""
        labels = k_means(server.memory[COSINES][heard], self.num_groups, self.restarts, rng)
        num_groups = int(labels.max()) + 1
        assignment = np.where(server.assignment == ABSENT, ABSENT, num_groups)
        assignment[heard] = labels
        waiting = bool((assignment == num_groups).any())
        return dataclasses.replace(
            server,
            centres=server.centres[:1] * (num_groups + waiting),
            assignment=assignment,
            assignment_round=np.where(assignment == ABSENT, server.assignment_round, round),
            memory={**server.memory, GROUPS: np.array([num_groups])},
        )


def _received(request: Request) -> dict[int, Tensors]:
    """Return by client id the model that it was sent."""
    return {row.client: request.models[row.model] for row in request.rows}


def _update(received: Tensors, trained: Tensors) -> dict[str, torch.Tensor]:
    """Return how the shared tensors changed, by name."""
    return {name: tensor - received[name] for name, tensor in trained.items()}


def _seen(update: Tensors, server: ServerState) -> np.ndarray:
    """Return the cosines [R] of an update with the directions, over the tensors that both have."""
    products, square = np.zeros(server.memory[COSINES].shape[1]), 0.0
    for name, tensor in update.items():
        if DIRECTION + name in server.memory:
            flat = tensor.double().numpy().reshape(-1)
            products += server.memory[DIRECTION + name] @ flat
            square += float(flat @ flat)
    return _ratio(products, np.sqrt(square))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows scaled to length 1; a row of zeros stays."""
    return _ratio(rows, np.linalg.norm(rows, axis=1, keepdims=True))


def _ratio(above: np.ndarray, below: np.ndarray | float) -> np.ndarray:
    """Return above / below, and 0 where both are 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=np.greater(below, 0)))
