"""What a client's updates were like, in a few numbers that do not wait for others to be there.

Where few clients train in a round, most pairs never meet. Each client then leaves a signature: the
direction of its update less the mean direction in its cluster in that round, sketched to SIZE
numbers, as a direction, averaged over its visits. Cosines of signatures stand for those of updates.

The sketch adds coordinates up in SIZE buckets with random signs, the same for everybody and in
every round (count sketch, Charikar et al. 2002; feature hashing, Weinberger et al. 2009): inner
products of directions keep their mean, with a standard deviation of at most sqrt(2 / SIZE).

Shapes: N clients, C clients of a round, D parameters of a tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtsd.clustering.similarity import NO_DIRECTION, Floats, Matrix, blocks_of
from fedtsd.seeding import numpy_rng

SIZE = 256
_FEWEST = 4
"""Clients of a cluster in a round; the mean of fewer says too little of what is common."""


@dataclass(frozen=True)
class Signatures:
    """The signatures of all clients.

    directions: float64 [N, SIZE], running means of unit vectors, 0 for who has none. visits:
    int64 [N], the round in which each client's was last brought up to date; 0 for never.
    """

    directions: Matrix
    visits: NDArray[np.int64]

    @classmethod
    def read(cls, memory: Mapping[str, np.ndarray], name: str, num_clients: int) -> "Signatures":
        """Take what `stored` returned; none where there is nothing of this name."""
        directions, visits = np.zeros((num_clients, SIZE)), np.zeros(num_clients, dtype=np.int64)
        if name in memory:
            visits = memory[f"{name}.visits"]
            directions[visits > 0] = memory[name]
        return cls(directions, visits)

    def stored(self, name: str) -> dict[str, np.ndarray]:
        """Return the signatures as named arrays: float32 rows of those who have one, visits."""
        kept = self.directions[self.visits > 0].astype(np.float32)
        return {name: kept, f"{name}.visits": self.visits}

    def visited(
        self,
        clients: NDArray[np.integer],
        models: Sequence[Mapping[str, Floats]],
        sent: Mapping[str, Floats],
        round: int,
        keep: float,
    ) -> "Signatures":
        """Return them after a round in which `clients` [C] of one cluster sent these models.

        sent: the model that they had been sent. keep: weight of a client's past. Too few clients
        leave everything as it was.
        """
        if len(clients) < _FEWEST:
            return self
        new = directions_of(models, sent)
        old = self.directions[clients]
        first = self.visits[clients] == 0
        directions, visits = self.directions.copy(), self.visits.copy()
        directions[clients] = np.where(first[:, None], new, keep * old + (1 - keep) * new)
        visits[clients] = round
        return Signatures(directions, visits)

    def forgotten(self, clients: NDArray[np.integer]) -> "Signatures":
        """Return them without those of some clients."""
        directions, visits = self.directions.copy(), self.visits.copy()
        directions[clients], visits[clients] = 0.0, 0
        return Signatures(directions, visits)

    def centred(self, clients: NDArray[np.integer]) -> "Signatures":
        """Return them with what is common to some clients, a new cluster, taken off."""
        signed = clients[self.visits[clients] > 0]
        if not len(signed):
            return self
        directions = self.directions.copy()
        directions[signed] -= directions[signed].mean(axis=0)
        return Signatures(directions, self.visits)

    def cosines(self, clients: NDArray[np.integer]) -> Matrix:
        """Cosines [C, C] of signatures; 0 with who has no direction, 1 with itself."""
        chosen = self.directions[clients]
        norm = np.linalg.norm(chosen, axis=1, keepdims=True)
        unit = np.divide(chosen, norm, out=np.zeros_like(chosen), where=norm > NO_DIRECTION)
        cosines: Matrix = np.clip(unit @ unit.T, -1, 1)
        np.fill_diagonal(cosines, 1)
        return cosines


def directions_of(models: Sequence[Mapping[str, Floats]], sent: Mapping[str, Floats]) -> Matrix:
    """Sketches [C, SIZE] of the directions in which models moved from `sent`, less their mean.

    Each of length 1, or 0 if it equals the mean. Tensors that not all of them share are left out.
    """
    shared = [name for name in sorted(sent) if all(name in model for model in models)]
    sketches, squares = np.zeros((len(models), SIZE)), np.zeros(len(models))
    for name in shared:
        sketch, start = _sketch(name, sent[name].size), 0
        for block in blocks_of([[sent[name]], *([model[name]] for model in models)]):
            moves = block[1:] - block[0]
            stop = start + block.shape[1]
            sketches += moves @ sketch[start:stop]
            squares += np.einsum("cd,cd->c", moves, moves)
            start = stop
    unit = _over(sketches, np.sqrt(squares))
    unit -= unit.mean(axis=0)
    # What is left of equal directions is rounding error and has no direction.
    norm = np.linalg.norm(unit, axis=1)
    return _over(unit, np.where(norm > NO_DIRECTION, norm, 0))


def _over(rows: Matrix, lengths: NDArray[np.float64]) -> Matrix:
    """Rows [C, S] over their lengths [C]; 0 where a length is 0."""
    by = lengths[:, None]
    return np.asarray(np.divide(rows, by, out=np.zeros_like(rows), where=by > 0))


@lru_cache(maxsize=64)
def _sketch(name: str, size: int) -> Any:
    """The sparse matrix [D, SIZE] of a tensor: one sign in each row, in a bucket by chance."""
    # Lazily: SciPy takes a while to import.
    from scipy.sparse import csr_array

    rng = numpy_rng(0, f"signature of {name}")
    signs = rng.choice([-1.0, 1.0], size)
    return csr_array((signs, rng.integers(SIZE, size=size), np.arange(size + 1)), (size, SIZE))
