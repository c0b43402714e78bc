"""What the trained models of one round tell when they are clustered as points of a space.

The server meets C models of D parameters. Their Gram matrix [C, C] holds all that K-means needs,
whatever D is. Shapes: C clients, D flattened parameters, R coordinates.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.similarity import Floats, Matrix, blocks_of
from fedtsd.clustering.split import Labels, renumber

# An eigenvalue of a Gram matrix below this share of the largest is rounding error.
_NO_SIZE = 1e-10


def gram_of(rows: Iterable[Iterable[Floats]], count: int, centred: bool) -> Matrix:
    """The products [C, C] of `count` = C rows, each given as arrays to be concatenated.

    centred: after the mean row is taken off.
    """
    products = np.zeros((count, count))
    for block in blocks_of(rows):
        if centred:
            block -= block.mean(axis=0)
        products += block @ block.T
    return np.asarray((products + products.T) / 2)


def axes_of(gram: Matrix) -> tuple[Matrix, NDArray[np.float64]]:
    """The left singular vectors [C, R] and singular values [R] of the rows behind a Gram matrix.

    Largest first, without those that are 0; at least one.
    """
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _NO_SIZE * max(values[0], np.finfo(np.float64).tiny)
    kept[0] = True
    return vectors[:, kept], np.sqrt(np.maximum(values[kept], 0))


def k_means(points: Matrix, count: int, restarts: int, rng: np.random.Generator) -> Labels:
    """K-means labels [C] of points [C, R], numbered by each cluster's first point.

    The best of `restarts` runs with K-means++ seeds. `count` clusters, or fewer where fewer points
    differ.
    """
    # Lazily: scikit-learn takes a second to import.
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31))
    apart = len(np.unique(points.round(12), axis=0))
    if apart == 1:
        return np.zeros(len(points), dtype=np.int64)
    found = KMeans(min(count, apart), n_init=restarts, random_state=seed).fit_predict(points)
    return renumber(found)
