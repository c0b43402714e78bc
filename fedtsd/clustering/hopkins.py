"""The Hopkins test: do the clients form groups at all?

After Hopkins and Skellam (1954), amended because the textbook form calls most IID federations
clustered: reference points come from a Gaussian with the data's own spread instead of the bounding
box, and the p-value from simulation instead of the Beta(m, m) law, which does not hold for
points that are few and high-dimensional. The amendment is this project's own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.similarity import canonical_order, check_distances

Array = NDArray[np.float64]

# An axis whose squared spread is below this share of the first's is rounding error; it would not
# move any distance, but it would raise the power d.
_FLAT = 1e-12
# Up to so many clients all axes are computed, above only those kept: a third of the time.
_ALL_AXES = 500


@dataclass(frozen=True)
class HopkinsResult:
    """`value` in 0..1: .5 for one Gaussian cloud, towards 1 for groups; `p_value` in (0, 1]."""

    value: float
    p_value: float


@dataclass(frozen=True)
class Hopkins:
    """The test's settings.

    `dimensions`: axes d kept of the clients' configuration. `sample_share`: share of the N clients
    whose neighbour distance is read in one repetition. `repetitions`: samples averaged into one
    value. `reference_draws`: Gaussian clouds behind the p-value, which is at least
    1 / (1 + reference_draws).
    """

    dimensions: int
    sample_share: float
    repetitions: int
    reference_draws: int

    def __post_init__(self) -> None:
        for field in ("dimensions", "repetitions", "reference_draws"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 < self.sample_share <= 1:
            raise ValueError(f"sample_share must lie in (0, 1], got {self.sample_share}")

    def test(self, distance: Array, rng: np.random.Generator) -> HopkinsResult:
        """Test a metric `distance` [N, N]; H = .5 and p = 1 where all distances are zero."""
        check_distances(distance)
        if not distance.any():
            return HopkinsResult(value=0.5, p_value=1.0)
        # `rng` samples clients by position. In an order that follows from the distances alone,
        # the same federation with renumbered clients gives the same result.
        order = canonical_order(distance)
        scaled = distance[np.ix_(order, order)] / distance.max()  # powers of d must not underflow
        points = classical_mds(scaled, self.dimensions)
        clouds = _gaussian_clouds(points, self.reference_draws, rng)
        values = self._values(np.concatenate([points[None], clouds]), rng)
        reached = int((values[1:] >= values[0]).sum())
        p_value = (1 + reached) / (1 + self.reference_draws)
        return HopkinsResult(value=float(values[0]), p_value=p_value)

    def _values(self, clouds: Array, rng: np.random.Generator) -> Array:
        """H [T] of T clouds [T, N, d], each the mean of `repetitions` samples."""
        _, points, axes = clouds.shape
        sampled = min(points, max(2, int(points * self.sample_share)))
        values = [self._value(cloud, sampled, axes, rng) for cloud in clouds]
        return np.array(values)

    def _value(self, cloud: Array, sampled: int, axes: int, rng: np.random.Generator) -> float:
        from scipy.spatial import cKDTree  # lazily: SciPy takes a while to import

        tree = cKDTree(cloud)
        # The nearest neighbour of a point of the cloud is itself, so the second is asked for.
        gaps = np.asarray(tree.query(cloud, k=[2])[0])[:, 0] ** axes
        chosen = rng.random((self.repetitions, len(cloud))).argpartition(sampled - 1)[:, :sampled]
        reference = rng.standard_normal((self.repetitions, sampled, axes))
        reference = reference * cloud.std(axis=0) + cloud.mean(axis=0)
        far = (np.asarray(tree.query(reference)[0]) ** axes).sum(axis=1)
        return float((far / (far + gaps[chosen].sum(axis=1))).mean())


def classical_mds(distance: Array, dimensions: int) -> Array:
    """Centred points [N, d] on the first d <= `dimensions` axes, widest first (Torgerson 1952).

    The axes keep their own spread (not whitened); flat and imaginary ones are dropped.
    """
    squared = distance**2
    means = squared.mean(axis=0)
    product = -(squared - means - means[:, None] + means.mean()) / 2
    spread, axes = _widest((product + product.T) / 2, min(dimensions, len(distance) - 1))
    real = spread > _FLAT * spread[0]
    points: Array = _upright(axes[:, real]) * np.sqrt(spread[real])
    return points


def _widest(product: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest eigenvalues, falling, and their eigenvectors [N, count]."""
    size = len(product)
    if size <= _ALL_AXES:
        spread, axes = np.linalg.eigh(product)
    else:
        from scipy.linalg import eigh

        spread, axes = eigh(product, subset_by_index=[size - max(count, 1), size - 1])
    kept = slice(None, -1 - count, -1)
    return spread[kept], axes[:, kept]


def _gaussian_clouds(points: Array, draws: int, rng: np.random.Generator) -> Array:
    """Clouds [draws, N, d] with exactly the per-axis spread of the centred `points` [N, d].

    The spread is all that Gaussian data say about their law, so clouds drawn given it make the
    p-value exact for Gaussian data of at most d dimensions. Clouds drawn from that spread would
    scatter around it and, unlike `points`, have correlated axes: p would come out too large.
    """
    drawn = rng.standard_normal((draws, *points.shape))
    orthonormal, _ = np.linalg.qr(drawn - drawn.mean(axis=1, keepdims=True))
    clouds: Array = orthonormal * np.sqrt(len(points)) * points.std(axis=0)
    return clouds


def _upright(axes: Array) -> Array:
    """Unit axes [N, d] whose largest entry is positive: an eigenvector's sign is arbitrary."""
    largest = np.abs(axes).argmax(axis=0)
    upright: Array = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    return upright
