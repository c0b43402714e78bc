"""A number for each pair of clients, kept for the pairs that were ever measured and no others.

With cohorts of C out of N clients, few of the N (N - 1) / 2 pairs ever meet; where all have met,
this takes the memory of one dense float64 matrix.

Shapes: N clients, C clients of a cohort, E pairs, K groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """A symmetric statistic of the pairs among `num_clients` N clients.

    keys: int64 [E], i * N + j of each measured pair i < j, sorted. values: float64 [E].
    """

    num_clients: int
    keys: Ids
    values: Values

    @classmethod
    def measured(
        cls,
        num_clients: int,
        rows: NDArray[np.integer],
        columns: NDArray[np.integer],
        matrix: Values,
    ) -> "Pairs":
        """Take `matrix` [C, M]: client ids of its rows and of its columns, some of those rows.

        Where both are rows and columns, the upper triangle counts. NaN is no measurement.
        """
        i, j = rows[:, None].astype(np.int64), columns[None, :].astype(np.int64)
        counts = (i < j) | ((i > j) & ~np.isin(rows, columns)[:, None])
        counts &= ~np.isnan(matrix)
        keys = (np.minimum(i, j) * num_clients + np.maximum(i, j))[counts]
        order = np.argsort(keys, kind="stable")
        return cls(num_clients, keys[order], matrix[counts][order])

    @classmethod
    def of(cls, matrix: Values) -> "Pairs":
        """Take all of a symmetric matrix [N, N]."""
        everybody = np.arange(len(matrix))
        return cls.measured(len(matrix), everybody, everybody, matrix)

    @classmethod
    def read(cls, memory: Mapping[str, np.ndarray], name: str, num_clients: int) -> "Pairs":
        """Take what `stored` returned; no pairs where there is nothing of this name."""
        if name not in memory:
            return cls(num_clients, np.empty(0, dtype=np.int64), np.empty(0))
        return cls(num_clients, memory[f"{name}.pairs"], memory[name])

    def stored(self, name: str) -> dict[str, np.ndarray]:
        """Return the pairs as named arrays."""
        return {name: self.values, f"{name}.pairs": self.keys}

    @property
    def ends(self) -> tuple[Ids, Ids]:
        """The clients i < j of each pair, int64 [E] both."""
        return self.keys // self.num_clients, self.keys % self.num_clients

    def among(self, clients: Mask) -> Mask:
        """Return of which pairs [E] both ends are in `clients` [N]."""
        i, j = self.ends
        return np.asarray(clients[i] & clients[j])

    def known_to(self, other: "Pairs") -> Mask:
        """Return which pairs [E] the other statistic has too."""
        return np.isin(self.keys, other.keys, assume_unique=True)

    def only(self, kept: Mask) -> "Pairs":
        """Return some of the pairs, by a mask [E]."""
        return Pairs(self.num_clients, self.keys[kept], self.values[kept])

    def mixed(self, new: "Pairs", keep: float) -> "Pairs":
        """Return the exponential mean after a new measurement.

        A pair measured for the first time takes `new`; one measured again takes
        keep * old + (1 - keep) * new; a pair absent this time keeps `old`.
        """
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must lie in 0..1, got {keep}")
        keys = np.union1d(self.keys, new.keys)
        old_at, new_at = np.searchsorted(keys, self.keys), np.searchsorted(keys, new.keys)
        values, before = np.empty(len(keys)), np.full(len(keys), np.nan)
        values[old_at] = before[old_at] = self.values
        old = before[new_at]
        values[new_at] = np.where(np.isnan(old), new.values, keep * old + (1 - keep) * new.values)
        return Pairs(self.num_clients, keys, values)

    def block(self, clients: NDArray[np.integer], own: float = 0.0) -> Values:
        """Return the matrix [C, C] of some clients: `own` on the diagonal, NaN if not measured."""
        place = np.full(self.num_clients, -1)
        place[clients] = np.arange(len(clients))
        i, j = self.ends
        i, j = place[i], place[j]
        inside = (i >= 0) & (j >= 0)
        matrix = np.full((len(clients), len(clients)), np.nan)
        matrix[i[inside], j[inside]] = matrix[j[inside], i[inside]] = self.values[inside]
        np.fill_diagonal(matrix, own)
        return matrix

    def degrees(self, clients: NDArray[np.integer]) -> Ids:
        """Return with how many of the other `clients` [C] each of them was measured."""
        inside = np.zeros(self.num_clients, dtype=bool)
        inside[clients] = True
        i, j = self.only(self.among(inside)).ends
        met = np.bincount(np.concatenate([i, j]), minlength=self.num_clients)
        return np.asarray(met[clients])

    def means_to(self, groups: NDArray[np.integer]) -> Values:
        """Return the mean [N, K] from each client to each group; NaN if no pair was measured.

        groups: [N], 0..K-1, or negative for clients that are in none.
        """
        count = int(groups.max(initial=-1)) + 1
        total, known = np.zeros((2, self.num_clients * count))
        for one, other in (self.ends, self.ends[::-1]):
            grouped = groups[other] >= 0
            cell = one[grouped] * count + groups[other[grouped]]
            total += np.bincount(cell, self.values[grouped], minlength=len(total))
            known += np.bincount(cell, minlength=len(known))
        means = np.divide(total, known, out=np.full(len(total), np.nan), where=known > 0)
        return np.asarray(means.reshape(self.num_clients, count))

    def met_mates(self, groups: NDArray[np.integer]) -> Ids:
        """Return with how many others of its group each client [N] was measured."""
        i, j = self.ends
        mates = groups[i] == groups[j]
        return np.bincount(np.concatenate([i[mates], j[mates]]), minlength=self.num_clients)

    def mean_to_mates(self, groups: NDArray[np.integer]) -> Values:
        """Return the mean [N] from each client to the others of its group; 0 if none is known."""
        i, j = self.ends
        mates = groups[i] == groups[j]
        ends = np.concatenate([i[mates], j[mates]])
        total = np.bincount(ends, np.tile(self.values[mates], 2), minlength=self.num_clients)
        known = np.bincount(ends, minlength=self.num_clients)
        return np.asarray(total / np.maximum(known, 1))

    def complete(self) -> Ids:
        """Return clients that have all met each other, sorted: those with most gaps leave first.

        Greedy, as the largest such set is hard to find; of equals the smallest id leaves.
        """
        clients = np.unique(np.concatenate(self.ends))
        left = len(clients)
        if len(self.keys) == left * (left - 1) // 2:
            return clients
        i, j = (np.searchsorted(clients, end) for end in self.ends)
        ends, met = np.concatenate([i, j]), np.concatenate([j, i])
        met = met[np.argsort(ends, kind="stable")]
        degree = np.bincount(ends)
        starts = np.concatenate([[0], np.cumsum(degree)])
        gone = np.iinfo(np.int64).max // 2
        while degree[loneliest := int(degree.argmin())] < left - 1:
            degree[met[starts[loneliest] : starts[loneliest + 1]]] -= 1
            degree[loneliest] = gone
            left -= 1
        return clients[degree < gone // 2]
