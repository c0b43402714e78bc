"""What groups clients that is no structure in their data: when they came, how much they trained.

Labels of a proposal are held against it; more agreement than chance has means no structure.

Shapes: C clients.
"""

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.similarity import Matrix

Labels = NDArray[np.integer]

_LEAST_RATIO = 1.5
"""Groups whose members work less unlike than that (geometric means) do not differ by it."""


def follows_visits(labels: Labels, visits: Labels, rng: np.random.Generator) -> bool:
    """Return whether labels agree with the rounds of the last visits more than chance would.

    A model that moves on makes updates of one round alike. Permutation test of the adjusted Rand
    index: above the 95 % quantile of 200 permutations.
    """
    # Lazily: scikit-learn takes a second to import.
    from sklearn.metrics import adjusted_rand_score

    agreement = adjusted_rand_score(labels, visits)
    by_chance = [adjusted_rand_score(rng.permutation(labels), visits) for _ in range(200)]
    return bool(agreement > np.quantile(by_chance, 0.95))


def follows_work(labels: Labels, work: Labels, rng: np.random.Generator) -> bool:
    """Return whether labels [C] tell who trains much from who trains little beyond chance.

    work: samples that each client trains on in a round, epochs counted. More steps make a model
    surer of itself and an update point elsewhere, whatever the data. Permutation test of the share
    of the variance of log work that lies between the groups: above the 99 % quantile of 999
    permutations, and two groups differ by `_LEAST_RATIO`.
    """
    logs = np.log(np.maximum(work, 1))
    sizes = np.bincount(labels)
    means = np.bincount(labels, weights=logs)[sizes > 0] / sizes[sizes > 0]
    if means.max() - means.min() < np.log(_LEAST_RATIO):
        return False
    inside = (labels == np.unique(labels)[:, None]) / np.sqrt(sizes[sizes > 0])[:, None]
    centred = logs - logs.mean()
    between = ((inside @ centred) ** 2).sum()
    by_chance = rng.permuted(np.tile(centred, (999, 1)), axis=1)
    return bool(between > np.quantile(((by_chance @ inside.T) ** 2).sum(axis=1), 0.99))


def share_of(labels: Labels, divergence: Matrix, part: Matrix) -> float:
    """Return what `part` [C, C] has of the `divergence` [C, C] between groups, 0 to 1.

    0 where there is none.
    """
    apart = labels[:, None] != labels
    whole = divergence[apart].sum()
    return min(1.0, float(part[apart].sum() / whole)) if whole > 0 else 0.0


def may_be_structure(labels: Labels, work: Labels, rng: np.random.Generator) -> bool:
    """Return whether two groups have two members, and the groups do not follow work [C].

    One client alone is no group: small data make one odd at times.
    """
    sizes = np.sort(np.bincount(labels))
    return len(sizes) > 1 and bool(sizes[-2] > 1) and not follows_work(labels, work, rng)
