"""What is dealt out, and what all partitions have in common.

Shapes: n samples, N clients, Y classes, S sites.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from fedtsd.data.dataset import Facts
from fedtsd.data.deal import Dealt, cut, even
from fedtsd.data.sizes import Sizes


@dataclass(frozen=True)
class Pool:
    """What is dealt out: labels int64 [n] in 0 to Y - 1, and whose each sample is, int64 [n].

    In regression the labels are strata of the target; `sites` is None where the data have none.
    site_sizes: samples of each site before any were held out; empty means as many as in the pool.
    """

    labels: np.ndarray
    num_classes: int
    sites: np.ndarray | None = None
    site_sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


class Partition(Protocol):
    """What `conf/partition/*.yaml` describes."""

    def clients_of(self, facts: Facts) -> int:
        """Return N for a data set."""
        ...

    def names_of(self, facts: Facts) -> tuple[str, ...] | None:
        """Return the names of the N clients; None where they are numbers."""
        ...

    def notes_of(self, facts: Facts) -> tuple[str, ...]:
        """Return what a person should know of what is dealt, one line each."""
        ...

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        """The planted group of each client, int64 [N]; None where there are none."""
        ...

    def resized(self, num_clients: int) -> "Partition":
        """Return the same partition for another number of clients.

        Raises ValueError if the data say how many there are.
        """
        ...

    def check(self, facts: Facts, num_samples: int) -> None:
        """Raise ValueError naming the field if the data set does not fit.

        num_samples: what is left of the data set to deal out.
        """
        ...

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        """Return the samples of each client, and how many of them break the partition's rule."""
        ...

    def assign(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the sample indices of each client, sorted."""
        ...


@dataclass(frozen=True)
class Dealer:
    """Settings of every partition that deals samples out.

    sizes: how many samples each client gets; null: all samples are shared out as the rule of the
    partition has it, or `samples_per_client` to each. With both, that is the mean.
    """

    num_clients: int
    min_size: int
    samples_per_client: int | None
    sizes: Sizes | None

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise ValueError(f"num_clients: must be at least 1, got {self.num_clients}")
        check_min_size(self.min_size)
        if self.samples_per_client is not None and self.samples_per_client < self.min_size:
            raise ValueError(
                f"samples_per_client: must be null or at least min_size ({self.min_size}), "
                f"got {self.samples_per_client}"
            )

    def clients_of(self, facts: Facts) -> int:
        return self.num_clients

    def names_of(self, facts: Facts) -> tuple[str, ...] | None:
        return None

    def notes_of(self, facts: Facts) -> tuple[str, ...]:
        return ()

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        return None

    def resized(self, num_clients: int) -> Self:
        return dataclasses.replace(self, num_clients=num_clients)

    def check(self, facts: Facts, num_samples: int) -> None:
        each = self.samples_per_client or self.min_size
        if self.num_clients * each > num_samples:
            raise ValueError(
                f"num_clients: {self.num_clients} clients with at least {each} samples each "
                f"need {self.num_clients * each} samples, the data set has {num_samples}"
            )

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        """Deal at random: what a partition without skew does."""
        sizes = self.planned_sizes(len(pool), rng)
        return cut(rng.permutation(len(pool)), sizes)

    def assign(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return self.deal(pool, rng).parts

    def wanted_sizes(self, num_samples: int, rng: np.random.Generator) -> np.ndarray | None:
        """The size of each client, int64 [N]; None where the rule shares out all samples."""
        each = self.samples_per_client
        if self.sizes is not None:
            total = num_samples if each is None else each * self.num_clients
            return self.sizes.draw(self.num_clients, total, self.min_size, rng)
        return None if each is None else np.full(self.num_clients, each)

    def planned_sizes(self, num_samples: int, rng: np.random.Generator) -> np.ndarray:
        """The size of each client, int64 [N]; even to one sample where nothing else is wanted."""
        wanted = self.wanted_sizes(num_samples, rng)
        return even(num_samples, self.num_clients) if wanted is None else wanted


def check_min_size(min_size: int) -> None:
    """Raise ValueError unless a client of `min_size` samples can train and test."""
    if min_size < 2:
        raise ValueError(f"min_size: must be at least 2 (train and test), got {min_size}")
