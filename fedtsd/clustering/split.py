"""Proposing a split of one cluster, and cleaning it of members that do not belong.

Labels [N] are 0..K-1, numbered by each cluster's smallest member. Both functions work in an order
that follows from the distances, so ties are not settled by client ids.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.similarity import canonical_order, check_distances

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

# Distances, silhouettes and means closer than this are equal: the difference is rounding.
_EQUAL = 1e-12


@dataclass(frozen=True)
class Proposal:
    """`labels` [N] and their mean `silhouette` in -1..1; 0 where there is only one cluster."""

    labels: Labels
    silhouette: float


def propose(distance: Array, max_clusters: int | None = None) -> Proposal:
    """The average-linkage cut of `distance` [N, N] with the best mean silhouette.

    Tries 2..min(N // 2, max_clusters) clusters; the fewest win a tie. One cluster where nothing
    can be cut: fewer than 4 clients, or all distances equal.
    """
    # Lazily: SciPy takes a while to import.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    check_distances(distance)
    if max_clusters is not None and max_clusters < 2:
        raise ValueError(f"max_clusters must be None or at least 2, got {max_clusters}")
    count = len(distance)
    most = count // 2 if max_clusters is None else min(count // 2, max_clusters)
    pairs = squareform(distance, checks=False)
    if most < 2 or np.ptp(pairs) <= _EQUAL * pairs.max():
        return Proposal(np.zeros(count, dtype=np.int64), 0.0)
    order = canonical_order(distance)
    ordered = _symmetric(distance[np.ix_(order, order)])
    tree = linkage(squareform(ordered, checks=False), method="average")
    best, highest = 1, -np.inf
    for clusters, silhouette in sorted(silhouettes(ordered, tree, most).items()):
        if silhouette > highest + _EQUAL:
            best, highest = clusters, silhouette
    labels = fcluster(tree, best, criterion="maxclust")
    return Proposal(renumber(_restore(labels, order)), highest)


def silhouettes(distance: Array, tree: Array, most: int) -> dict[int, float]:
    """Mean silhouette (Rousseeuw 1987) of the cuts of `tree` into 2..`most` < N clusters.

    `tree` is a linkage of `distance` [N, N]. Merges at one height cannot be cut apart: such a
    number of clusters is missing. All cuts come from one pass up the tree. A merge adds up the
    distances to two clusters; the mean distance to both together is not below the lesser of the
    two, so only clients nearest to one of them must look for their nearest cluster again.
    """
    count = len(distance)
    sums, sizes = distance.copy(), np.ones(count)  # of cluster k: distances to it, sums[k] [N]
    own, nearest = np.arange(count), np.zeros(count, dtype=np.intp)  # the clients' clusters
    cluster_of = np.arange(2 * count)  # of each node of the tree
    found = {}
    for merge, (left, right, height, _) in enumerate(tree):
        clusters = count - merge
        if clusters == most:
            nearest = _nearest(sums, sizes, own, np.arange(count))
        if clusters <= most and height > tree[merge - 1, 2]:
            found[clusters] = _mean_silhouette(sums, sizes, own, nearest)
        if clusters == 2:
            break
        into, gone = cluster_of[[int(left), int(right)]]
        sums[into] += sums[gone]
        sizes[into] += sizes[gone]
        sizes[gone] = 0
        own[own == gone] = into
        cluster_of[count + merge] = into
        if clusters <= most:
            stale = np.flatnonzero((nearest == into) | (nearest == gone))
            nearest[stale] = _nearest(sums, sizes, own, stale)
    return found


def silhouette_of_each(distance: Array, labels: NDArray[np.integer]) -> Array:
    """Silhouette [N] of each client in -1..1: above 0 if it is nearer to its mates than to others.

    Labels must name at least two clusters.
    """
    # Lazily: scikit-learn takes a second to import.
    from sklearn.metrics import silhouette_samples

    return np.asarray(silhouette_samples(distance, labels, metric="precomputed"))


def eject(labels: NDArray[np.integer], dissimilarity: Array, limit: float) -> Labels:
    """Move misfits to one residual cluster; returns new labels [N].

    A misfit's mean dissimilarity to its cluster mates exceeds `limit`. The worst one of a cluster
    leaves first and the means are taken again, because a wrong member also raises the means of
    those it sits among. Members left alone join the residual, which is not checked itself.
    """
    check_distances(dissimilarity, "dissimilarity")
    if len(labels) != len(dissimilarity):
        raise ValueError(f"labels must have length N = {len(dissimilarity)}, got {len(labels)}")
    order = canonical_order(dissimilarity)
    ordered = dissimilarity[np.ix_(order, order)]
    kept = renumber(labels)[order]
    residual = -1
    for cluster in np.unique(kept):
        stay = _settle(np.flatnonzero(kept == cluster), ordered, limit)
        kept[(kept == cluster) & ~np.isin(np.arange(len(kept)), stay)] = residual
    return renumber(_restore(kept, order))


def renumber(labels: NDArray[np.integer]) -> Labels:
    """The same clusters, numbered 0..K-1 by their smallest member."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _nearest(
    sums: Array, sizes: Array, own: NDArray[np.intp], clients: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The cluster nearest to each of `clients` by mean distance, its own left out."""
    alive = np.flatnonzero(sizes)
    means = sums[np.ix_(alive, clients)] / sizes[alive, None]
    means[alive[:, None] == own[clients]] = np.inf
    return np.asarray(alive[means.argmin(axis=0)])


def _mean_silhouette(
    sums: Array, sizes: Array, own: NDArray[np.intp], nearest: NDArray[np.intp]
) -> float:
    """Mean over clients of (other - mates) / max of both; 0 for who is alone or at distance 0."""
    clients = np.arange(len(own))
    mates = sums[own, clients] / np.maximum(sizes[own] - 1, 1)
    other = sums[nearest, clients] / sizes[nearest]
    widest = np.maximum(mates, other)
    counts = (sizes[own] > 1) & (widest > 0)
    values = np.divide(other - mates, widest, out=np.zeros(len(own)), where=counts)
    return float(values.mean())


def _settle(members: NDArray[np.intp], dissimilarity: Array, limit: float) -> NDArray[np.intp]:
    """The `members` that stay: none where fewer than two would."""
    inside = dissimilarity[np.ix_(members, members)]
    total = inside.sum(axis=1) - inside.diagonal()
    stays = np.ones(len(members), dtype=np.bool_)
    for mates in range(len(members) - 1, 0, -1):
        mean = np.where(stays, total / mates, -np.inf)
        if mean.max() <= limit + _EQUAL:
            return members[stays]
        worst = np.argmax(mean >= mean.max() - _EQUAL)
        stays[worst] = False
        total -= inside[:, worst]
    return members[:0]


def _symmetric(distance: Array) -> Array:
    exact: Array = (distance + distance.T) / 2
    np.fill_diagonal(exact, 0)
    return exact


def _restore(labels: NDArray[np.integer], order: NDArray[np.intp]) -> Labels:
    """Labels of the clients by id, from labels in `order`."""
    restored = np.empty(len(order), dtype=np.int64)
    restored[order] = labels
    return restored
