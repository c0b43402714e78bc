"""Clustered federated learning by bipartition (Sattler, Müller, Samek 2020, arXiv 1910.01991).

Where clients of one cluster learn different things, their mean update vanishes while their own
updates do not; the signs of what they disagree on are in the cosines of these updates.

Statistics in `ServerState.memory`, all of the last round and of clusters that answered in full:
COSINES: pairs, the cosine of two members' updates, not centred. NORMS: float64 [N], the length of
each member's update. MEAN_NORMS: float64 [K], the length of each cluster's mean update, weighted by
training samples. NaN is no measurement.

Shapes: N clients, K clusters, C members of a cluster, D flattened parameters.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.policy import Quiet
from fedtsd.clustering.similarity import blocks_of
from fedtsd.clustering.split import renumber
from fedtsd.messages import ClientReply, Reply, Request
from fedtsd.minimum import minimum_of
from fedtsd.server import Decision, ServerState, Tensors, reassigned
from fedtsd.similarity import pairs_of

COSINES = "cfl.cosines"
NORMS = "cfl.norms"
MEAN_NORMS = "cfl.mean_norms"
STAGE = 2  # of a `Decision`: by updates

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CFL(Quiet):
    """Split a cluster in two where its model came to rest and its members did not.

    That is where the mean update is shorter than `eps1` and some member's longer than `eps2`, both
    in the unit of the weights. The two parts are those whose most similar clients across are least
    similar; they are kept if sqrt((1 - cosine of these) / 2) is above `gamma_max`, the bound on how
    far a client's update may stray from the one of its law. Clusters below `min_clients` are never
    split, nor are those of which somebody did not answer in this round.
    """

    eps1: float
    eps2: float
    gamma_max: float
    min_clients: int

    reads_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("eps1", "eps2"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0, got {getattr(self, name)}")
        if not 0 <= self.gamma_max < 1:
            raise ValueError(f"gamma_max: must be in [0, 1), got {self.gamma_max}")
        if self.min_clients < 2:
            raise ValueError(f"min_clients: must be at least 2, got {self.min_clients}")

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        norms = np.full(server.num_clients, np.nan)
        mean_norms = np.full(len(server.centres), np.nan)
        cosines = Pairs.read({}, COSINES, server.num_clients)
        for cluster, centre in enumerate(request.models):
            rows = [row for row in reply.rows if server.assignment[row.client] == cluster]
            shared = _shared(rows)
            if len(rows) < len(server.members(cluster)) or not shared:
                continue
            members = np.array([row.client for row in rows])
            products, mean_norms[cluster] = products_of(centre, rows, shared)
            norms[members] = np.sqrt(products.diagonal())
            found = Pairs.measured(server.num_clients, members, members, cosines_from(products))
            cosines = cosines.mixed(found, keep=0)
        memory = {
            **server.memory, **cosines.stored(COSINES), NORMS: norms, MEAN_NORMS: mean_norms
        }  # fmt: skip
        return dataclasses.replace(server, memory=memory)

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        cosines, norms = pairs_of(server, COSINES), server.memory[NORMS]
        assignment, decisions = server.assignment.copy(), []
        next_cluster = len(server.centres)
        for cluster, mean_norm in enumerate(server.memory[MEAN_NORMS]):
            members = server.members(cluster)
            if np.isnan(mean_norm) or len(members) < self.min_clients:
                continue
            split = mean_norm < self.eps1 and norms[members].max() > self.eps2
            if split:
                labels, across = bipartition(cosines.block(members, own=1.0))
                large = np.bincount(labels).min() >= minimum_of(server)
                split = large and np.sqrt((1 - across) / 2) > self.gamma_max
            if split:
                assignment[members[labels == 1]] = next_cluster
                next_cluster += 1
            decisions.append(_decision(cluster, len(members), bool(split)))
        server = dataclasses.replace(server, decisions=tuple(decisions))
        if next_cluster == len(server.centres):
            return server
        return reassigned(server, assignment, round)


def products_of(centre: Tensors, rows: list[ClientReply], shared: list[str]) -> tuple[Array, float]:
    """Return the products [C, C] of the members' updates, and the length of their mean.

    An update is what came back less the centre that was sent, over the tensors that all share; the
    mean is weighted by training samples.
    """
    weights = np.array([row.num_examples for row in rows], dtype=np.float64)
    weights /= weights.sum()
    models = [*(row.tensors for row in rows), centre]
    products, square = np.zeros((len(rows), len(rows))), 0.0
    for block in blocks_of([[model[name].numpy() for name in shared] for model in models]):
        updates = block[:-1] - block[-1]
        products += updates @ updates.T
        square += float(np.square(weights @ updates).sum())
    return (products + products.T) / 2, float(np.sqrt(square))


def cosines_from(products: Array) -> Array:
    """Return the cosines [C, C]; a client that learned nothing is like nobody: 0."""
    norms = np.sqrt(products.diagonal())
    unit = np.divide(1, norms, out=np.zeros(len(norms)), where=norms > 0)
    return np.asarray(np.clip(products * np.outer(unit, unit), -1, 1))


def bipartition(cosines: Array) -> tuple[NDArray[np.int64], float]:
    """Return two parts as labels [C], 0 with the first client, and the largest cosine across.

    No other two parts have a smaller one (the paper's algorithm 1): joining the most similar
    clients first is single linkage. Complete linkage, in the authors' code, need not find it.
    """
    # Lazily: SciPy takes a while to import.
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - cosines
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="single")
    labels = renumber(cut_tree(tree, [2])[:, 0])
    return labels, float(cosines[np.ix_(labels == 0, labels == 1)].max())


def _shared(rows: list[ClientReply]) -> list[str]:
    """The names of the tensors that all of these clients sent."""
    names = rows[0].tensors if rows else ()
    return [name for name in names if all(name in row.tensors for row in rows)]


def _decision(cluster: int, size: int, split: bool) -> Decision:
    """A test that knows neither a silhouette nor a Hopkins value."""
    unknown = float("nan")
    return Decision(STAGE, cluster, size, 1 + split, unknown, unknown, unknown, split, split)
