"""How alike clients are: by their outputs, their labels, their updates.

Letters: N clients, C clients of one cohort, B public samples, Y classes, D flattened parameters.
The Jensen-Shannon divergence (JS; Lin 1991) is divided by ln 2 throughout, so it lies in 0..1
and its square root is a metric (Endres and Schindelin 2003).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Matrix = NDArray[np.float64]

# Numbers held by one temporary block: 2 MB of float64, which stays in a core's cache.
_BLOCK = 2**18
# Below this share of the longest row, a centred row is rounding error and has no direction.
_NO_DIRECTION = 1e-12


def js_divergence(outputs: Floats) -> tuple[Matrix, Matrix]:
    """JS of every pair of clients, and of every public sample.

    `outputs` [N, B, Y] are probabilities over the last axis (renormalised here, so that float32
    rounding does not count as a difference). Returns the mean over samples [N, N], with an exact
    symmetry and zero diagonal, and the mean over the N (N - 1) / 2 pairs [B] (0 where N = 1).
    """
    laws = _class_first(outputs)
    _, clients, samples = laws.shape
    entropy = _entropy(laws)
    mean = np.zeros((clients, clients))
    per_sample = np.zeros(samples)
    step = max(1, _BLOCK // (laws.shape[0] * samples))
    for i in range(clients - 1):
        for start in range(i + 1, clients, step):
            others = slice(start, min(start + step, clients))
            middle = (laws[:, i, None] + laws[:, others]) / 2
            js = _entropy(middle) - (entropy[i] + entropy[others]) / 2
            js = np.clip(js / np.log(2), 0, 1)
            mean[i, others] = js.mean(axis=1)
            per_sample += js.sum(axis=0)
    pairs = clients * (clients - 1) // 2
    return mean + mean.T, per_sample / max(pairs, 1)


def label_divergence(counts: Floats | NDArray[np.integer]) -> Matrix:
    """JS [N, N] of the clients' label laws, from label counts [N, Y]."""
    return js_divergence(np.asarray(counts, dtype=np.float64)[:, None, :])[0]


def running_mean(old: Matrix, new: Matrix, keep: float) -> Matrix:
    """Exponential mean of a pair statistic [N, N] in which NaN stands for "not measured".

    A pair measured for the first time takes `new`; one measured again takes
    keep * old + (1 - keep) * new; a pair absent this time keeps `old`.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must lie in 0..1, got {keep}")
    if old.shape != new.shape:
        raise ValueError(f"old and new must have equal shapes, got {old.shape} and {new.shape}")
    mixed = np.where(np.isnan(old), new, keep * old + (1 - keep) * new)
    return np.where(np.isnan(new), old, mixed)


def centred_cosines(updates: Floats) -> Matrix:
    """Cosines [C, C] of the rows of `updates` [C, D] after their mean row is taken off.

    A row that equals the mean has no direction: its cosine is 0 with all others, 1 with itself.
    """
    if updates.ndim != 2 or updates.shape[0] == 0:
        raise ValueError(f"updates must have shape [C, D] with C >= 1, got {updates.shape}")
    clients, parameters = updates.shape
    gram = np.zeros((clients, clients))
    raw = np.zeros(clients)
    step = max(1, 16 * _BLOCK // clients)  # models are wide: 32 MB blocks bound the float64 copy
    for start in range(0, parameters, step):
        block = updates[:, start : start + step].astype(np.float64)
        raw += np.einsum("cd,cd->c", block, block)
        # Centred before the product: centring the Gram matrix instead would lose small differences.
        block -= block.mean(axis=0)
        gram += block @ block.T
    if not np.isfinite(gram).all():
        raise ValueError("updates must be finite, got NaN or infinity")
    norm = np.sqrt(gram.diagonal())
    directed = norm > _NO_DIRECTION * np.sqrt(raw.max())
    unit = np.divide(1, norm, out=np.zeros(clients), where=directed)
    cosines: Matrix = np.clip((gram + gram.T) / 2 * np.outer(unit, unit), -1, 1)
    np.fill_diagonal(cosines, 1)
    return cosines


def cosine_distance(cosines: Matrix) -> Matrix:
    """Chord sqrt(2 (1 - S)) in 0..2 between unit vectors with cosines S [C, C]; zero diagonal."""
    distance = np.sqrt(2 * (1 - np.clip(cosines, -1, 1)))
    np.fill_diagonal(distance, 0)
    return distance


def check_distances(distance: Matrix, name: str = "distance") -> None:
    """Raise ValueError unless `distance` is a finite, non-negative, symmetric [N, N]."""
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1] or distance.shape[0] == 0:
        raise ValueError(f"{name} must have shape [N, N] with N >= 1, got {distance.shape}")
    if not (np.isfinite(distance).all() and distance.min() >= 0):
        raise ValueError(f"{name} must be finite and >= 0; a pair never measured cannot be used")
    if not np.allclose(distance, distance.T, rtol=1e-6, atol=1e-9):
        raise ValueError(f"{name} must be symmetric")


def canonical_order(distance: Matrix) -> NDArray[np.intp]:
    """An order [N] of the clients that follows from `distance` [N, N] and not from their ids.

    Rows are sorted before they are compared, so a permutation of the clients cannot even change
    the rounding. Clients with equal rows (copies, symmetric toys) are told apart by their
    distances to the clients placed so far.
    """
    count = len(distance)
    rank = _ranks(np.sort(distance, axis=1))
    placed = np.zeros(count, dtype=np.bool_)
    while len(np.unique(rank)) < count:
        first = int(np.argmin(np.where(placed, count, rank)))
        placed[first] = True
        # `first` goes before its equals; the rest of them split by their distance to it.
        before = (np.arange(count) != first).astype(np.float64)
        rank = _ranks(np.column_stack([rank, before, distance[first]]))
    return np.argsort(rank)


def _ranks(keys: Matrix) -> NDArray[np.intp]:
    """Dense lexicographic rank [N] of the rows of `keys` [N, K]; equal rows share a rank."""
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1]).reshape(-1)


def _class_first(outputs: Floats) -> Matrix:
    """Normalised laws [Y, N, B]: sums over classes then run along whole, contiguous planes."""
    if outputs.ndim != 3 or 0 in outputs.shape:
        raise ValueError(f"outputs must have shape [N, B, Y], none of them 0, got {outputs.shape}")
    laws = np.ascontiguousarray(np.moveaxis(outputs, -1, 0), dtype=np.float64)
    total = laws.sum(axis=0)
    if not (np.isfinite(total).all() and laws.min() >= 0 and total.min() > 0):
        raise ValueError("outputs must be finite and >= 0, with a positive sum over the classes")
    normalised: Matrix = laws / total
    return normalised


def _entropy(laws: Matrix) -> Matrix:
    """Entropy in nats over the first axis of [Y, ...], with 0 log 0 = 0."""
    terms = np.log(np.maximum(laws, np.finfo(np.float64).tiny))
    terms *= laws
    entropy: Matrix = -terms.sum(axis=0)
    return entropy
