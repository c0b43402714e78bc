"""Membership inference: how well attacks tell who was in the training data, from many worlds.

In each of W worlds every one of E candidate samples was in the training data or not, by a fair coin
of its own. An attack scores each candidate of a world by what was seen there and by what the other
worlds teach about it (Carlini et al. 2022, LiRA); a higher score says `in`. As the coins are
independent, scores that see nothing have an AUC of 0.5.

Shapes: W worlds, E candidates, F numbers that are seen.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SMALLEST = 1e-12
RESAMPLES = 300


def likelihood_ratios(seen: Array, inside: Flags) -> Array:
    """Return the log likelihood ratios [W, E] of one number per candidate, `seen` [W, E].

    In and out of the data it is a Gaussian: a mean for each candidate, and one variance for all
    candidates, as there are few worlds (Carlini et al. 2022, section VI). Both are of the other
    worlds.
    """
    scores = np.empty(seen.shape)
    for world in range(len(seen)):
        values, flags = np.delete(seen, world, axis=0), np.delete(inside, world, axis=0)
        likelihoods = [_log_density(seen[world], values, chosen) for chosen in (flags, ~flags)]
        scores[world] = likelihoods[0] - likelihoods[1]
    return scores


def linear_scores(seen: Array, inside: Flags, ridge: float = 1.0) -> Array:
    """Return for each candidate [W, E] what a ridge regression on `seen` [W, F] says of it.

    It is fitted to the other worlds, on numbers brought to unit spread; `ridge` is the penalty
    beside the mean square of the kernel's diagonal.
    """
    scores = np.empty(inside.shape)
    for world in range(len(seen)):
        others = np.delete(seen, world, axis=0)
        spread = np.maximum(others.std(axis=0), SMALLEST)
        centred = (others - others.mean(axis=0)) / spread
        asked = (seen[world] - others.mean(axis=0)) / spread
        known = np.delete(inside, world, axis=0).astype(float)
        kernel = centred @ centred.T
        penalty = ridge * max(kernel.diagonal().mean(), SMALLEST) * np.eye(len(kernel))
        weights = np.linalg.solve(kernel + penalty, known - known.mean(axis=0))
        scores[world] = centred @ asked @ weights
    return scores


def auc(scores: Array, inside: Flags) -> float:
    """Return the chance that a member scores above a non-member, in 0..1; ties count half."""
    # Lazily: SciPy takes a while to import.
    from scipy.stats import rankdata

    flags = inside.reshape(-1)
    ranks = rankdata(scores.reshape(-1))
    members = int(flags.sum())
    others = len(flags) - members
    return float((ranks[flags].sum() - members * (members + 1) / 2) / (members * others))


def caught(scores: Array, inside: Flags, false_alarms: float = 0.01) -> float:
    """Return the share of members that are found while this share of non-members is accused."""
    limit = np.quantile(scores[~inside], 1 - false_alarms)
    return float((scores[inside] > limit).mean())


def interval(
    measure: Callable[[Array, Flags], float],
    scores: Array,
    inside: Flags,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return a 95 % interval of a measure: worlds and candidates are both drawn anew."""
    worlds, candidates = scores.shape
    found = []
    for _ in range(RESAMPLES):
        drawn = np.ix_(rng.integers(0, worlds, worlds), rng.integers(0, candidates, candidates))
        found.append(measure(scores[drawn], inside[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _log_density(asked: Array, values: Array, chosen: Flags) -> Array:
    """Return the log density [E] of a Gaussian fitted to the chosen ones of `values` [W - 1, E]."""
    counts = np.maximum(chosen.sum(axis=0), 1)
    means = np.where(chosen, values, 0).sum(axis=0) / counts
    squares = np.where(chosen, (values - means) ** 2, 0).sum()
    variance = max(squares / max(int(chosen.sum()) - len(means), 1), SMALLEST)
    return np.asarray(-((asked - means) ** 2) / (2 * variance) - np.log(variance) / 2)
