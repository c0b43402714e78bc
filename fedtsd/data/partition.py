"""Partitions: who holds which samples.

Every partition maps labels [n] to N disjoint arrays of sample indices, always ends, and gives each
client at least `min_size` samples. Sizes are all samples shared out, or `samples_per_client` each.

Shapes: n samples, N clients, Y classes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Partition(Protocol):
    """What `conf/partition/*.yaml` describes."""

    num_clients: int

    @property
    def groups(self) -> np.ndarray | None:
        """The planted group of each client, int64 [N]; None where there are none."""
        ...

    def check(self, num_samples: int, num_classes: int) -> None:
        """Raise ValueError naming the field if the data set is too small or has too few classes."""
        ...

    def assign(
        self, labels: np.ndarray, num_classes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Return the sample indices of each client, sorted."""
        ...


@dataclass(frozen=True)
class _Sized:
    num_clients: int
    min_size: int
    samples_per_client: int | None

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise ValueError(f"num_clients: must be at least 1, got {self.num_clients}")
        if self.min_size < 2:
            raise ValueError(f"min_size: must be at least 2 (train and test), got {self.min_size}")
        if self.samples_per_client is not None and self.samples_per_client < self.min_size:
            raise ValueError(
                f"samples_per_client: must be null or at least min_size ({self.min_size}), "
                f"got {self.samples_per_client}"
            )

    @property
    def groups(self) -> np.ndarray | None:
        return None

    def check(self, num_samples: int, num_classes: int) -> None:
        each = self.samples_per_client or self.min_size
        if self.num_clients * each > num_samples:
            raise ValueError(
                f"num_clients: {self.num_clients} clients with at least {each} samples each "
                f"need {self.num_clients * each} samples, the data set has {num_samples}"
            )


@dataclass(frozen=True)
class Iid(_Sized):
    """Samples are dealt at random; sizes differ by at most one."""

    def assign(
        self, labels: np.ndarray, num_classes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        self.check(len(labels), num_classes)
        order = rng.permutation(len(labels))
        if self.samples_per_client is not None:
            order = order[: self.num_clients * self.samples_per_client]
        return [np.sort(part) for part in np.array_split(order, self.num_clients)]


@dataclass(frozen=True)
class Dirichlet(_Sized):
    """Label skew: small `alpha` gives each client few classes.

    All samples: the shares of a class over clients are drawn from Dirichlet(alpha) (Yurochkin et
    al. 2019). With `samples_per_client`: the label law of each client is (Hsu et al. 2019), and a
    class that runs out is left out of the laws drawn after it.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < np.inf:
            raise ValueError(f"alpha: must be above 0, got {self.alpha}")

    def assign(
        self, labels: np.ndarray, num_classes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        self.check(len(labels), num_classes)
        pools = [rng.permutation(np.flatnonzero(labels == c)) for c in range(num_classes)]
        if self.samples_per_client is None:
            parts = self._share_classes(pools, rng)
            parts = repair(parts, self.min_size, rng)
        else:
            laws = rng.dirichlet(np.full(num_classes, self.alpha), size=self.num_clients)
            parts = draw_laws(pools, laws, self.samples_per_client, rng)
        return [np.sort(part) for part in parts]

    def _share_classes(self, pools: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        owned: list[list[np.ndarray]] = [[] for _ in range(self.num_clients)]
        for pool in pools:
            shares = rng.dirichlet(np.full(self.num_clients, self.alpha))
            cuts = np.round(np.cumsum(shares)[:-1] * len(pool)).astype(np.int64)
            for client, part in enumerate(np.split(pool, cuts)):
                owned[client].append(part)
        return [np.concatenate(parts) for parts in owned]


@dataclass(frozen=True)
class _Holders(_Sized):
    """Each client holds a subset of the classes, in equal parts."""

    def hand_out(self, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        """Return who holds which class, bool [N, Y]."""
        raise TypeError(f"{type(self).__name__} does not say who holds which class")

    def assign(
        self, labels: np.ndarray, num_classes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        self.check(len(labels), num_classes)
        holds = self.hand_out(num_classes, rng)
        pools = [rng.permutation(np.flatnonzero(labels == c)) for c in range(num_classes)]
        if self.samples_per_client is not None:
            laws = holds / holds.sum(axis=1, keepdims=True)
            parts = draw_laws(pools, laws, self.samples_per_client, rng, exact=True)
            return [np.sort(part) for part in parts]
        owned: list[list[np.ndarray]] = [[] for _ in range(self.num_clients)]
        for c, pool in enumerate(pools):
            holders = np.flatnonzero(holds[:, c])
            if len(holders):
                for client, part in zip(holders, np.array_split(pool, len(holders)), strict=True):
                    owned[client].append(part)
        parts = repair([np.concatenate(part) for part in owned], self.min_size, rng)
        return [np.sort(part) for part in parts]


@dataclass(frozen=True)
class Pathological(_Holders):
    """Each client holds `classes_per_client` classes (McMahan et al. 2017), in equal parts.

    Classes are handed out in turn, so that each has nearly the same number of holders. A class
    that nobody holds (fewer places than classes) stays unused.
    """

    classes_per_client: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes_per_client < 1:
            raise ValueError(
                f"classes_per_client: must be at least 1, got {self.classes_per_client}"
            )

    def check(self, num_samples: int, num_classes: int) -> None:
        super().check(num_samples, num_classes)
        if self.classes_per_client > num_classes:
            raise ValueError(
                f"classes_per_client: must be at most the {num_classes} classes of the data set, "
                f"got {self.classes_per_client}"
            )

    def hand_out(self, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        holds = np.zeros((self.num_clients, num_classes), dtype=bool)
        holders = np.zeros(num_classes)
        for client in rng.permutation(self.num_clients):
            # The least held classes first, ties in random order.
            order = np.lexsort((rng.random(num_classes), holders))[: self.classes_per_client]
            holds[client, order] = True
            holders[order] += 1
        return holds


@dataclass(frozen=True)
class LabelGroups(_Holders):
    """Planted groups of clients with disjoint classes, as even in size as they can be.

    Client i is in group i modulo `num_groups`; which classes a group has is drawn at random.
    """

    num_groups: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_groups <= self.num_clients:
            raise ValueError(
                f"num_groups: must be 1 to num_clients ({self.num_clients}), got {self.num_groups}"
            )

    @property
    def groups(self) -> np.ndarray:
        return np.arange(self.num_clients) % self.num_groups

    def check(self, num_samples: int, num_classes: int) -> None:
        super().check(num_samples, num_classes)
        if self.num_groups > num_classes:
            raise ValueError(
                f"num_groups: must be at most the {num_classes} classes of the data set, "
                f"got {self.num_groups}"
            )

    def hand_out(self, num_classes: int, rng: np.random.Generator) -> np.ndarray:
        holds = np.zeros((self.num_clients, num_classes), dtype=bool)
        owners = np.array_split(rng.permutation(num_classes), self.num_groups)
        for client, group in enumerate(self.groups):
            holds[client, owners[group]] = True
        return holds


def draw_laws(
    pools: list[np.ndarray],
    laws: np.ndarray,
    size: int,
    rng: np.random.Generator,
    exact: bool = False,
) -> list[np.ndarray]:
    """Draw `size` samples for each client by its label law [N, Y], without replacement.

    pools: the shuffled sample indices of each class. exact: take the expected counts (rounded)
    first, so that classes with equal weight come in equal numbers. A class that has run out is
    left out; a client whose classes have all run out takes from what remains. Each pass fills the
    client or empties a class, so the loop ends.
    """
    used = np.zeros(len(pools), dtype=np.int64)
    supply = np.array([len(pool) for pool in pools])
    parts: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(laws)
    for client in rng.permutation(len(laws)):
        taken: list[np.ndarray] = []
        need, first = size, exact
        while need:
            left = supply - used
            law = np.where(left > 0, laws[client], 0.0)
            if law.sum() <= 0:
                law = left.astype(np.float64)
            law = law / law.sum()
            want = np.floor(need * law).astype(np.int64) if first else rng.multinomial(need, law)
            first = False
            take = np.minimum(want, left)
            for c in np.flatnonzero(take):
                taken.append(pools[c][used[c] : used[c] + take[c]])
            used += take
            need -= int(take.sum())
        parts[client] = np.concatenate(taken)
    return parts


def repair(parts: list[np.ndarray], min_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Give clients below `min_size` random samples of whoever holds most at that moment."""
    parts = [rng.permutation(part) for part in parts]
    for client in range(len(parts)):
        while len(parts[client]) < min_size:
            richest = max(range(len(parts)), key=lambda i: len(parts[i]))
            spare = len(parts[richest]) - min_size
            moved = min(min_size - len(parts[client]), max(1, spare))
            parts[client] = np.concatenate([parts[client], parts[richest][:moved]])
            parts[richest] = parts[richest][moved:]
    return parts
