"""What the server measures of its clients' likeness, kept over the rounds.

Matrices in `ServerState.memory`, NaN where a pair was never measured:
OUTPUTS [N, N]: Jensen-Shannon divergence of the clients' outputs on public samples, in 0..1.
OUTPUTS_BEFORE [N, N]: the same as it stood while clients shared one whole model; only for reports.
OUTPUTS_AFTER [N, N]: the last round's divergence, personal layers included; only for reports.
UPDATES [N, N]: cosine of their updates, centred by the mean update of their cluster.

Shapes: N clients, C cohort, P public samples, B public samples of a round, Y classes.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from fedtsd.clustering.similarity import centred_cosines, js_divergence, running_mean
from fedtsd.messages import Reply, Request
from fedtsd.server import ServerState

OUTPUTS = "similarity.outputs"
OUTPUTS_ROUND = "similarity.outputs_round"
OUTPUTS_BEFORE = "similarity.outputs_before"
OUTPUTS_AFTER = "similarity.outputs_after"
UPDATES = "similarity.updates"
PUBLIC_SUM = "similarity.public_sum"
PUBLIC_COUNT = "similarity.public_count"

SAMPLINGS = ("uniform", "weighted")


@dataclass(frozen=True)
class Similarity:
    """How outputs and updates are measured; both are read from `first_round` on.

    public_batch: B, public samples a round, or all where there are fewer. public_sampling:
    `uniform`, or `weighted` towards samples on which clients disagreed (0.9 w^4 / sum w^4
    + 0.1 / P, w the sample's mean divergence so far). output_memory, update_memory: weight of the
    past in the running means.
    """

    public_batch: int
    public_sampling: str
    output_memory: float
    update_memory: float
    first_round: int

    def __post_init__(self) -> None:
        if self.public_batch < 1:
            raise ValueError(f"public_batch: must be at least 1, got {self.public_batch}")
        if self.public_sampling not in SAMPLINGS:
            raise ValueError(
                f"public_sampling: must be one of {', '.join(SAMPLINGS)}, "
                f"got {self.public_sampling!r}"
            )
        for name in ("output_memory", "update_memory"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")
        if self.first_round < 1:
            raise ValueError(f"first_round: must be at least 1, got {self.first_round}")

    def choose_public(
        self, server: ServerState, num_public: int, rng: np.random.Generator
    ) -> torch.Tensor:
        """Return the public samples of a round, int32 [B], sorted, without repetition."""
        probability = None
        if self.public_sampling == "weighted" and PUBLIC_COUNT in server.memory:
            probability = self._probability(server)
        size = min(self.public_batch, num_public)
        chosen = rng.choice(num_public, size=size, replace=False, p=probability)
        return torch.from_numpy(np.sort(chosen).astype(np.int32))

    def _probability(self, server: ServerState) -> np.ndarray | None:
        total, count = server.memory[PUBLIC_SUM], server.memory[PUBLIC_COUNT]
        seen = count > 0
        mean = np.where(seen, total / np.maximum(count, 1), total.sum() / count.sum())
        weight = mean**4
        if weight.sum() == 0:
            return None
        return np.asarray(0.9 * weight / weight.sum() + 0.1 / len(weight))

    def measure_outputs(
        self, server: ServerState, request: Request, reply: Reply, public: torch.Tensor, pool: int
    ) -> ServerState:
        """Bring OUTPUTS up to date with the outputs [C, B, Y] of this round.

        A pair counts while both clients share every layer: private heads drift apart and inflate
        the divergence. A pair never measured before is taken all the same.
        """
        if request.round < self.first_round or len(reply.rows) < 2:
            return server
        clients = np.array(request.clients)
        outputs = torch.stack([row.outputs for row in reply.rows if row.outputs is not None])
        divergence, per_sample = js_divergence(outputs.numpy())
        old = server.memory.get(OUTPUTS, _unmeasured(server.num_clients))
        after = _unmeasured(server.num_clients)
        after[np.ix_(clients, clients)] = divergence
        shares_all = np.array([not row.personal for row in request.rows])
        known = ~np.isnan(old[np.ix_(clients, clients)])
        divergence[known & ~(shares_all[:, None] & shares_all[None, :])] = np.nan
        new = _unmeasured(server.num_clients)
        new[np.ix_(clients, clients)] = divergence
        measured = ~np.isnan(divergence[~np.eye(len(clients), dtype=bool)])
        total = server.memory.get(PUBLIC_SUM, np.zeros(pool)).copy()
        count = server.memory.get(PUBLIC_COUNT, np.zeros(pool)).copy()
        total[public.numpy()] += per_sample
        count[public.numpy()] += 1
        memory = {
            **server.memory,
            OUTPUTS: running_mean(old, new, self.output_memory),
            OUTPUTS_AFTER: after,
            PUBLIC_SUM: total,
            PUBLIC_COUNT: count,
        }
        if measured.any():
            memory[OUTPUTS_ROUND] = np.array([request.round])
        if len(server.centres) == 1 and not server.personal.any():
            memory[OUTPUTS_BEFORE] = memory[OUTPUTS]
        return dataclasses.replace(server, memory=memory)

    def measure_updates(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Bring UPDATES up to date, cluster by cluster, over the layers all its members share."""
        if request.round < self.first_round:
            return server
        old = server.memory.get(UPDATES, _unmeasured(server.num_clients))
        new = _unmeasured(server.num_clients)
        for cluster in range(len(server.centres)):
            rows = [
                (sent.tensors, got.tensors, got.client)
                for sent, got in zip(request.rows, reply.rows, strict=True)
                if server.assignment[got.client] == cluster
            ]
            if len(rows) < 2:
                continue
            shared = [name for name in rows[0][1] if all(name in got for _, got, _ in rows)]
            if not shared:
                continue
            updates = [
                torch.cat([(got[name] - sent[name]).flatten() for name in shared])
                for sent, got, _ in rows
            ]
            members = [client for _, _, client in rows]
            new[np.ix_(members, members)] = centred_cosines(torch.stack(updates).numpy())
        memory = {**server.memory, UPDATES: running_mean(old, new, self.update_memory)}
        return dataclasses.replace(server, memory=memory)


def forget_updates(server: ServerState, round: int) -> ServerState:
    """Restart UPDATES for clients whose cluster changed in this round."""
    if UPDATES not in server.memory:
        return server
    moved = server.assignment_round == round
    updates = server.memory[UPDATES].copy()
    updates[moved, :] = np.nan
    updates[:, moved] = np.nan
    return dataclasses.replace(server, memory={**server.memory, UPDATES: updates})


def mean_to_mates(matrix: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Mean of `matrix` [N, N] from each client to its cluster mates [N].

    Pairs never measured (NaN) do not count; a client without a measured mate gets 0.
    """
    mates = assignment[:, None] == assignment[None, :]
    np.fill_diagonal(mates, False)
    counted = mates & ~np.isnan(matrix)
    total = np.where(counted, matrix, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(counted.sum(axis=1), 1))


def _unmeasured(num_clients: int) -> np.ndarray:
    return np.full((num_clients, num_clients), np.nan)
