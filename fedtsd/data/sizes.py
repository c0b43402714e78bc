"""Quantity skew: how many samples each client holds.

Shapes: N clients.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Sizes(Protocol):
    """What `conf/sizes/*.yaml` describes."""

    def draw(
        self, num_clients: int, total: int, min_size: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the size of each client, int64 [N], each at least `min_size`, `total` together.

        num_clients * min_size must be at most `total`.
        """
        ...


@dataclass(frozen=True)
class Equal:
    """All clients hold the same number; up to N - 1 samples stay unused."""

    def draw(
        self, num_clients: int, total: int, min_size: int, rng: np.random.Generator
    ) -> np.ndarray:
        return np.full(num_clients, total // num_clients)


@dataclass(frozen=True)
class Lognormal:
    """Sizes in proportion to exp(sigma z), z standard normal.

    The generator of the synthetic sets that comes with FedProx (Li et al. 2020) draws sizes so,
    with sigma 2 and 50 samples added.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma: must be at least 0, got {self.sigma}")

    def draw(
        self, num_clients: int, total: int, min_size: int, rng: np.random.Generator
    ) -> np.ndarray:
        logs = self.sigma * rng.standard_normal(num_clients)
        return apportion(np.exp(logs - logs.max()), total, min_size)


@dataclass(frozen=True)
class PowerLaw:
    """The client of rank k holds in proportion to k^-exponent (Zipf); ranks are dealt at random.

    Li et al. 2020 (FedProx) let the numbers of samples of their clients follow a power law.
    """

    exponent: float

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < math.inf:
            raise ValueError(f"exponent: must be at least 0, got {self.exponent}")

    def draw(
        self, num_clients: int, total: int, min_size: int, rng: np.random.Generator
    ) -> np.ndarray:
        ranks = 1.0 + rng.permutation(num_clients)
        return apportion(ranks**-self.exponent, total, min_size)


def draw_within(
    sizes: Sizes,
    groups: np.ndarray,
    totals: np.ndarray,
    min_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw sizes int64 [N] within groups, int64 [N]; totals: what each group has together."""
    drawn = np.empty(len(groups), dtype=np.int64)
    for group, total in enumerate(totals.tolist()):
        members = groups == group
        drawn[members] = sizes.draw(int(members.sum()), total, min_size, rng)
    return drawn


def apportion(weights: np.ndarray, total: int, least: int | np.ndarray) -> np.ndarray:
    """Return integers [N] in proportion to weights that sum to `total`, none below `least`.

    Whoever would fall below gets its least, and the others share what is left; fractions go to the
    largest remainders. The sum of `least` must be at most `total`.
    """
    least = np.broadcast_to(least, weights.shape)
    free = np.ones(len(weights), dtype=bool)
    shares = np.zeros(len(weights))
    while free.any():
        shares = weights * ((total - least[~free].sum()) / weights[free].sum())
        low = free & (shares < least)
        if not low.any():
            break
        free &= ~low
    counts = np.where(free, np.floor(shares), least).astype(np.int64)
    remainders = np.where(free, shares - np.floor(shares), -1.0)
    counts[np.argsort(-remainders, kind="stable")[: total - counts.sum()]] += 1
    return counts
