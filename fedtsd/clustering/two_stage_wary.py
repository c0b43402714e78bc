"""Two-stage clustering in which clients that say the same count once.

Two honest clients never train to quite the same outputs or updates; their nearest neighbours are
about as far from all of them. Attackers that pass for one client are at no distance from it: C of N
lift the silhouette of a cut between them and its mates by C / N, and it goes with them.

Shapes: C clients, D of them distinct.
"""

from dataclasses import dataclass

import numpy as np

from fedtsd.clustering.hopkins import HopkinsResult
from fedtsd.clustering.split import Proposal, renumber, silhouette_of_each
from fedtsd.clustering.two_stage import TwoStage

USUAL = 0.75
"""Quantile of the distances to nearest neighbours that counts as usual: more clients than this
share would have to be copies to pass for it."""


@dataclass(frozen=True)
class WaryTwoStage(TwoStage):
    """Clients nearer than `copy_below` of a usual nearest neighbour count as one, in both stages.

    They stay together, in the cluster that is nearest to what they say. Who is copied is no misfit,
    and is never cut off with its copies alone.
    """

    copy_below: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.copy_below < 1:
            raise ValueError(f"copy_below: must be in [0, 1), got {self.copy_below}")

    def examine(
        self, distance: np.ndarray, rng: np.random.Generator
    ) -> tuple[Proposal, HopkinsResult]:
        who = copies(distance, self.copy_below)
        apart = between(distance, who)
        proposal, result = super().examine(apart, rng)
        kept = accompanied(proposal, apart, np.bincount(who) > 1)
        return Proposal(renumber(kept.labels[who]), kept.silhouette), result

    def cleaned(self, labels: np.ndarray, divergence: np.ndarray) -> np.ndarray:
        who = copies(np.sqrt(divergence), self.copy_below)  # as they were when labels were given
        first = np.unique(who, return_index=True)[1]
        apart = between(divergence, who)
        # Attackers lead the model away from whom they copy, so it looks like a misfit. It stays.
        copied = np.bincount(who) > 1
        held = copied[:, None] | copied
        apart[held] = np.minimum(apart[held], self.eject_above)
        kept = super().cleaned(labels[first], apart)
        return renumber(kept[who])


def accompanied(proposal: Proposal, distance: np.ndarray, copied: np.ndarray) -> Proposal:
    """Join who is copied, bool [D], and alone in a cut to the nearest of the other clusters."""
    labels = proposal.labels
    for one in np.flatnonzero(copied):
        sizes = np.bincount(labels)
        if sizes[labels[one]] == 1 and len(sizes) > 1:
            means = np.bincount(labels, weights=distance[one]) / sizes
            means[labels[one]] = np.inf
            labels = renumber(np.where(np.arange(len(labels)) == one, means.argmin(), labels))
    if labels is proposal.labels:
        return proposal
    several = labels.max() > 0
    silhouette = float(silhouette_of_each(distance, labels).mean()) if several else 0.0
    return Proposal(labels, silhouette)


def copies(distance: np.ndarray, below: float) -> np.ndarray:
    """Return whom each of C clients stands for, int64 [C], 0..D-1: equal for copies.

    Who is as near to a copy of somebody is a copy of them, too.
    """
    # Lazily: SciPy takes a while to import.
    from scipy.sparse.csgraph import connected_components

    apart = distance + np.diag(np.full(len(distance), np.inf))
    limit = below * np.quantile(apart.min(axis=1), USUAL)
    return renumber(connected_components(apart < limit, directed=False)[1])


def between(distance: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Return the mean distances [D, D] between those that count, of all that stand for them."""
    members = np.eye(int(who.max()) + 1)[who]
    sizes = members.sum(axis=0)
    mean = (members.T @ distance @ members) / np.outer(sizes, sizes)
    mean = (mean + mean.T) / 2
    np.fill_diagonal(mean, 0)
    return np.asarray(mean)
