"""Dealing: how samples reach clients once it is known which classes and how many.

Shapes: n samples, N clients, Y classes.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FITTING_STEPS = 100


@dataclass(frozen=True)
class Dealt:
    """The sample indices of each client, sorted.

    moved: how many samples clients got against the rule of the partition, so that all reach their
    size: the rule left a client too small, or its classes had run out.
    """

    parts: list[np.ndarray]
    moved: int = 0


def by_class(labels: np.ndarray, num_classes: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the shuffled sample indices of each class."""
    return [rng.permutation(np.flatnonzero(labels == c)) for c in range(num_classes)]


def cut(order: np.ndarray, sizes: np.ndarray) -> Dealt:
    """Cut a row of sample indices into pieces of the given sizes [N]; the rest stays unused."""
    ends = np.cumsum(sizes)
    return _sorted(np.split(order[: ends[-1]], ends[:-1]))


def share_classes(pools: list[np.ndarray], shares: np.ndarray) -> list[np.ndarray]:
    """Cut each class into consecutive parts by the clients' shares of it, [Y, N]."""
    num_clients, owners = shares.shape[1], []
    for pool, of_class in zip(pools, shares, strict=True):
        cuts = np.round(np.cumsum(of_class)[:-1] * len(pool)).astype(np.int64)
        owners.append(_repeated(num_clients, np.diff(cuts, prepend=0, append=len(pool))))
    return _collect(np.concatenate(pools), np.concatenate(owners), num_clients)


def share_evenly(pools: list[np.ndarray], holds: np.ndarray) -> list[np.ndarray]:
    """Cut each class into equal parts for those who hold it, bool [N, Y]."""
    held, owners = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for pool, by in zip(pools, holds.T, strict=True):
        if by.any():
            holders = np.flatnonzero(by)
            held.append(pool)
            owners.append(holders[_repeated(len(holders), even(len(pool), len(holders)))])
    return _collect(np.concatenate(held), np.concatenate(owners), len(holds))


def even(total: int, count: int) -> np.ndarray:
    """Return `count` sizes that sum to `total`; the first are larger by one where they must."""
    each, over = divmod(total, count)
    return each + (np.arange(count) < over).astype(np.int64)


def _repeated(count: int, times: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(count), times)


def _collect(samples: np.ndarray, owners: np.ndarray, num_clients: int) -> list[np.ndarray]:
    """Return the samples of each client, in their order; owners: whose each sample is."""
    sizes = np.bincount(owners, minlength=num_clients)
    return np.split(samples[np.argsort(owners, kind="stable")], np.cumsum(sizes)[:-1])


def hand_out(
    weights: np.ndarray, asked: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Return who holds which class, bool [N, Y], `count` classes each.

    Clients take turns by weight [N], the heaviest first, and take the classes least asked for, to
    which each adds its weight; asked: what the classes [Y] start with. Ties are broken at random.
    """
    asked, holds = asked.copy(), np.zeros((len(weights), len(asked)), dtype=bool)
    turn = rng.permutation(len(weights))
    for client in turn[np.argsort(-weights[turn], kind="stable")]:
        chosen = np.lexsort((rng.random(len(asked)), asked))[:count]
        holds[client, chosen] = True
        asked[chosen] += weights[client]
    return holds


def fit_laws(laws: np.ndarray, sizes: np.ndarray, supply: np.ndarray) -> np.ndarray:
    """Return the laws [N, Y] nearest to these by which clients ask for no more than there is.

    sizes [N] and supply [Y] are counts of samples. Iterative proportional fitting (Deming and
    Stephan 1940). Without it, where sizes use up the data, the last clients would get what others
    left, and be more skewed than their laws.
    """
    for _ in range(FITTING_STEPS):
        asked = np.maximum(sizes @ laws, 1e-300)
        laws = laws * np.minimum(supply / asked, 1.0)
        laws = laws / np.maximum(laws.sum(axis=1, keepdims=True), 1e-300)
    return laws


def draw_laws(
    pools: list[np.ndarray],
    laws: np.ndarray,
    sizes: np.ndarray,
    rng: np.random.Generator,
    exact: bool = False,
) -> Dealt:
    """Draw samples for each client by its label law [N, Y] and size [N], without replacement.

    pools: the shuffled sample indices of each class, at least as many as the sizes sum to. exact:
    take the expected counts (rounded) first, so that classes with equal weight come in equal
    numbers. A class that has run out is left out; a client whose classes have all run out takes
    from what remains. Each pass fills the client or empties a class, so the loop ends.
    """
    used = np.zeros(len(pools), dtype=np.int64)
    supply = np.array([len(pool) for pool in pools])
    parts: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(laws)
    moved = 0
    for client in rng.permutation(len(laws)):
        taken: list[np.ndarray] = []
        need, first = int(sizes[client]), exact
        while need:
            left = supply - used
            law = np.where(left > 0, laws[client], 0.0)
            in_law = law.sum() > 0
            if not in_law:
                law = left.astype(np.float64)
            law = law / law.sum()
            want = np.floor(need * law).astype(np.int64) if first else rng.multinomial(need, law)
            first = False
            take = np.minimum(want, left)
            for c in np.flatnonzero(take):
                taken.append(pools[c][used[c] : used[c] + take[c]])
            used += take
            need -= int(take.sum())
            moved += 0 if in_law else int(take.sum())
        parts[client] = np.concatenate(taken)
    return _sorted(parts, moved)


def repair(
    parts: list[np.ndarray],
    min_size: int,
    rng: np.random.Generator,
    unused: Sequence[np.ndarray] = (),
) -> Dealt:
    """Give clients below `min_size` random samples of whoever holds most at that moment.

    unused: samples that nobody holds; they are given away first, where the held ones do not do.
    Raises ValueError if all together are too few.
    """
    parts = [rng.permutation(part) for part in parts]
    spare = np.empty(0, dtype=np.int64)
    if len(parts) * min_size > sum(map(len, parts)):
        spare = rng.permutation(np.concatenate([spare, *unused]))
        if len(parts) * min_size > sum(map(len, parts)) + len(spare):
            raise ValueError(f"min_size: {len(parts)} clients cannot have {min_size} samples each")
    moved = 0
    # The richest first; of equals, the first client. Entries that are out of date are put right.
    heap = [(-len(part), client) for client, part in enumerate(parts)]
    heapq.heapify(heap)
    for client in range(len(parts)):
        while (need := min_size - len(parts[client])) > 0:
            if len(spare):
                gift, spare = spare[:need], spare[need:]
            else:
                richest = _richest(heap, parts)
                count = min(need, max(1, len(parts[richest]) - min_size))
                gift, parts[richest] = parts[richest][:count], parts[richest][count:]
            parts[client] = np.concatenate([parts[client], gift])
            moved += len(gift)
        heapq.heappush(heap, (-len(parts[client]), client))
    return _sorted(parts, moved)


def _richest(heap: list[tuple[int, int]], parts: list[np.ndarray]) -> int:
    """Return who holds most; of equals, the first client."""
    while heap[0][0] != -len(parts[heap[0][1]]):
        client = heapq.heappop(heap)[1]
        heapq.heappush(heap, (-len(parts[client]), client))
    return heap[0][1]


def mix(parts: list[np.ndarray], share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Let each client put a random share of its samples into one pot and draw as many from it."""
    parts = [rng.permutation(part) for part in parts]
    counts = [round(share * len(part)) for part in parts]
    given = [part[:count] for part, count in zip(parts, counts, strict=True)]
    pot = np.split(rng.permutation(np.concatenate(given)), np.cumsum(counts)[:-1])
    mixed = zip(parts, counts, pot, strict=True)
    return [np.sort(np.concatenate([part[count:], drawn])) for part, count, drawn in mixed]


def _sorted(parts: list[np.ndarray], moved: int = 0) -> Dealt:
    return Dealt([np.sort(part) for part in parts], moved)
