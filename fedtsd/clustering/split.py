"""Proposing a split of one cluster, and cleaning it of members that do not belong.

Labels [N] are 0..K-1, numbered by each cluster's smallest member. Both functions work in an order
that follows from the distances, so ties are not settled by client ids.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

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
    check_distances(distance)
    if max_clusters is not None and max_clusters < 2:
        raise ValueError(f"max_clusters must be None or at least 2, got {max_clusters}")
    count = len(distance)
    most = count // 2 if max_clusters is None else min(count // 2, max_clusters)
    best = Proposal(np.zeros(count, dtype=np.int64), 0.0)
    pairs = distance[np.triu_indices(count, 1)]
    if most < 2 or np.ptp(pairs) <= _EQUAL * pairs.max():
        return best
    order = canonical_order(distance)
    ordered = _symmetric(distance[np.ix_(order, order)])
    tree = linkage(squareform(ordered, checks=False), method="average")
    highest = -np.inf
    for clusters in range(2, most + 1):
        labels = fcluster(tree, clusters, criterion="maxclust")
        if labels.max() != clusters:
            continue  # merges at one height cannot be cut apart: a smaller cut is already judged
        silhouette = float(silhouette_score(ordered, labels, metric="precomputed"))
        if silhouette > highest + _EQUAL:
            highest = silhouette
            best = Proposal(renumber(_restore(labels, order)), silhouette)
    return best


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


def _settle(members: NDArray[np.intp], dissimilarity: Array, limit: float) -> NDArray[np.intp]:
    """The `members` that stay: none where fewer than two would."""
    while len(members) > 1:
        inside = dissimilarity[np.ix_(members, members)]
        mean = (inside.sum(axis=1) - inside.diagonal()) / (len(members) - 1)
        if mean.max() <= limit:
            return members
        members = np.delete(members, np.argmax(mean >= mean.max() - _EQUAL))
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
