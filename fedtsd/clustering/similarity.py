"""How alike clients are: by their outputs, their labels, their updates.

Letters: N clients, C clients of one cohort, B public samples, Y classes, D flattened parameters.
The Jensen-Shannon divergence (JS; Lin 1991) is divided by ln 2 throughout, so it lies in 0..1
and its square root is a metric (Endres and Schindelin 2003).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Matrix = NDArray[np.float64]
Positions = NDArray[np.integer]

# Numbers held by one temporary block: .5 MB of float64, so that two fit into a core's cache.
_BLOCK = 2**16
# What is left of a unit vector without the mean one has no direction if it is shorter: rounding.
NO_DIRECTION = 1e-6


def js_divergence(outputs: Floats, landmarks: Positions | None = None) -> tuple[Matrix, Matrix]:
    """JS of every pair of clients, and of every public sample.

    `outputs` [N, B, Y] are probabilities over the last axis (renormalised here, so that float32
    rounding does not count as a difference). Returns the mean over samples [N, N], with an exact
    symmetry and zero diagonal, and the mean over the pairs [B] (0 where N = 1). With `landmarks`,
    positions [M] of clients, everybody is compared with these alone: [N, M], and the mean over
    the pairs of a landmark and another client.
    """
    if outputs.ndim != 3 or 0 in outputs.shape:
        raise ValueError(f"outputs must have shape [N, B, Y], none of them 0, got {outputs.shape}")
    clients, samples, _ = outputs.shape
    per_sample = np.zeros(samples)
    if landmarks is None:
        halves, entropy = _halves(outputs)
        mean = np.zeros((clients, clients))
        for i in range(clients - 1):
            others = halves[:, i + 1 :], entropy[i + 1 :]
            mean[i, i + 1 :] = _js_to(halves[:, i], entropy[i], *others, per_sample)
        return mean + mean.T, per_sample / max(clients * (clients - 1) // 2, 1)
    others = _halves(outputs[landmarks])
    mean = np.zeros((clients, len(landmarks)))
    step = max(1, 16 * _BLOCK // outputs[0].size)
    for start in range(0, clients, step):
        halves, entropy = _halves(outputs[start : start + step])
        for i in range(len(entropy)):
            mean[start + i] = _js_to(halves[:, i], entropy[i], *others, per_sample)
    return mean, per_sample / max((clients - 1) * len(landmarks), 1)


def label_divergence(counts: Floats | NDArray[np.integer]) -> Matrix:
    """JS [N, N] of the clients' label laws, from label counts [N, Y]."""
    return js_divergence(np.asarray(counts, dtype=np.float64)[:, None, :])[0]


def blocks_of(rows: Iterable[Iterable[Floats]]) -> Iterator[Matrix]:
    """Matrices [C, d], d by d columns, whose C rows are the concatenated arrays of each row."""
    for parts in zip(*rows, strict=True):
        flat = [part.reshape(-1) for part in parts]
        # Models are wide: 8 MB blocks bound the float64 copy.
        step = max(1, 16 * _BLOCK // len(flat))
        for start in range(0, len(flat[0]), step):
            yield np.stack([part[start : start + step] for part in flat], dtype=np.float64)


def cosines_of(
    models: Sequence[Sequence[Floats]],
    sent: Sequence[Floats],
    landmarks: Positions | None = None,
) -> Matrix:
    """Cosines [C, C] between the directions in which C models moved from `sent`, less their mean.

    By direction, as how far a client moved says how much it trained, and the longest would rule the
    mean. Who did not move has none: 0. One that equals the mean has a cosine of 0 with all others,
    1 with itself. With `landmarks`, positions [M] of models, each is compared with these alone, and
    theirs is the mean: [C, M].
    """
    chosen = np.arange(len(models)) if landmarks is None else landmarks
    products, squares = np.zeros((len(models), len(chosen))), np.zeros(len(models))
    for block in blocks_of([sent, *models]):
        moves = block[1:]
        moves -= block[0]
        products += moves @ (moves if landmarks is None else moves[landmarks]).T
        squares += np.einsum("cd,cd->c", moves, moves)
    if not np.isfinite(squares).all():
        raise ValueError("updates must be finite, got NaN or infinity")
    if landmarks is None:
        products = (products + products.T) / 2
    # Models are large, so they are read once: lengths and mean are taken off the products. That
    # loses what is smaller than `NO_DIRECTION`, and so does the float32 of the models.
    unit = _unit(squares)
    products *= np.outer(unit, unit[chosen])
    to_mean = products.mean(axis=1)
    of_mean = to_mean[chosen].mean()
    products -= np.add.outer(to_mean, to_mean[chosen]) - of_mean
    left = np.where(squares > 0, 1.0, 0.0) - 2 * to_mean + of_mean
    unit = _unit(np.where(left > NO_DIRECTION**2, left, 0.0))
    cosines: Matrix = np.clip(products * np.outer(unit, unit[chosen]), -1, 1)
    cosines[chosen, np.arange(len(chosen))] = 1
    return cosines


def _unit(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """What makes vectors with these squared lengths [C] unit ones; 0 for those without length."""
    return np.divide(1, np.sqrt(squares), out=np.zeros(len(squares)), where=squares > 0)


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
    while rank.max() < count - 1:
        first = int(np.argmin(np.where(placed, count, rank)))
        placed[first] = True
        # `first` goes before its equals; the rest of them split by their distance to it.
        before = (np.arange(count) != first).astype(np.float64)
        rank = _ranks(np.column_stack([rank, before, distance[first]]))
    return np.argsort(rank)


def _ranks(keys: Matrix) -> NDArray[np.intp]:
    """Dense lexicographic rank [N] of the rows of `keys` [N, K]; equal rows share a rank."""
    rank = np.zeros(len(keys), dtype=np.intp)
    for column in keys.T:
        order = np.lexsort((column, rank))
        differs = (np.diff(rank[order]) != 0) | (np.diff(column[order]) != 0)
        rank[order[1:]] = np.cumsum(differs)
        rank[order[0]] = 0
        if differs.all():
            break
    return rank


def _halves(outputs: Floats) -> tuple[Matrix, Matrix]:
    """Half of each normalised law [Y, N, B], and the entropy [N, B] of the whole ones.

    With classes first, sums over them run along whole, contiguous planes. Two halves add up to the
    law in the middle; the least number there is stands for 0, so that 0 log 0 = 0.
    """
    laws = np.ascontiguousarray(np.moveaxis(outputs, -1, 0), dtype=np.float64)
    total = laws.sum(axis=0)
    if not (np.isfinite(total).all() and laws.min() >= 0 and total.min() > 0):
        raise ValueError("outputs must be finite and >= 0, with a positive sum over the classes")
    halves: Matrix = np.maximum(laws / total / 2, np.finfo(np.float64).tiny)
    return halves, _entropy(2 * halves)


def _js_to(
    half: Matrix, entropy: Matrix, halves: Matrix, entropies: Matrix, per_sample: Matrix
) -> Matrix:
    """Mean JS [M] of one law [Y, B] to others [Y, M, B]; adds that of each sample to `per_sample`.

    JS is the entropy of the law in the middle, less the mean entropy of both.
    """
    classes, many, samples = halves.shape
    mean = np.empty(many)
    step = max(1, _BLOCK // (classes * samples))
    for start in range(0, many, step):
        others = slice(start, start + step)
        js = _entropy(half[:, None] + halves[:, others]) - (entropy + entropies[others]) / 2
        js = np.clip(js / np.log(2), 0, 1)
        mean[others] = js.mean(axis=1)
        per_sample += js.sum(axis=0)
    return mean


def _entropy(laws: Matrix) -> Matrix:
    """Entropy in nats over the first axis of [Y, ...], positive everywhere."""
    terms = np.log(laws)
    terms *= laws
    entropy: Matrix = -terms.sum(axis=0)
    return entropy
