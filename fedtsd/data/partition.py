"""Partitions: who holds which samples.

Every partition maps a pool of n samples to N disjoint arrays of sample indices, always ends, and
gives each client at least `min_size` samples. At its IID end it deals exactly as `Iid` does, with
the same draws; only `BySite` has no such end.

Shapes: n samples, N clients, Y classes, S sites.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedtsd.data.dataset import Facts
from fedtsd.data.deal import (
    Dealt,
    by_class,
    cut,
    draw_laws,
    fit_laws,
    hand_out,
    mix,
    repair,
    share_classes,
    share_evenly,
)
from fedtsd.data.pool import Dealer, Partition, Pool, check_min_size
from fedtsd.data.sizes import Sizes, apportion, draw_within
from fedtsd.errors import DataError

__all__ = [
    "BySite",
    "Dirichlet",
    "Iid",
    "LabelGroups",
    "Partition",
    "Pathological",
    "Pool",
    "Shards",
]

WITH_SITES = (
    "needs data that say whose each sample is: dataset=image_folder with a folder per site, "
    "dataset=table with a column or a file per site, or dataset=arrays with site"
)


@dataclass(frozen=True)
class Iid(Dealer):
    """Samples are dealt at random (the control of McMahan et al. 2017); sizes are even to one."""


@dataclass(frozen=True)
class Dirichlet(Dealer):
    """Label skew: small `alpha` gives each client few classes; infinite `alpha` is IID.

    Where all samples are shared out, the shares of a class over clients are drawn from
    Dirichlet(alpha) (Yurochkin et al. 2019). With `samples_per_client` or `sizes`, the label law of
    each client is (Hsu et al. 2019), and a class that runs out is left out of the laws drawn after
    it; with `sizes` the laws are first fitted to what there is.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"alpha: must be above 0, got {self.alpha}")

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        if math.isinf(self.alpha):
            return super().deal(pool, rng)
        sizes = self.wanted_sizes(len(pool), rng)
        pools = by_class(pool.labels, pool.num_classes, rng)
        if sizes is None:
            over_clients = np.full(self.num_clients, self.alpha)
            shares = rng.dirichlet(over_clients, size=pool.num_classes)
            return repair(share_classes(pools, shares), self.min_size, rng)
        laws = rng.dirichlet(np.full(pool.num_classes, self.alpha), size=self.num_clients)
        if self.sizes is not None:
            laws = fit_laws(laws, sizes, np.array([len(of_class) for of_class in pools]))
        return draw_laws(pools, laws, sizes, rng)


@dataclass(frozen=True)
class Shards(Dealer):
    """Samples sorted by label are cut into shards; each client gets `shards_per_client`; null: IID.

    As McMahan et al. 2017 cut MNIST into 200 shards for 100 clients: most hold two classes, some
    more, as a shard may lie across a border.
    """

    shards_per_client: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("shards_per_client", self.shards_per_client)

    def check(self, facts: Facts, num_samples: int) -> None:
        super().check(facts, num_samples)
        each = self.samples_per_client or num_samples // self.num_clients
        if self.shards_per_client is not None and self.shards_per_client > each:
            raise ValueError(
                f"shards_per_client: must be at most the {each} samples of a client, "
                f"got {self.shards_per_client}"
            )

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        count = self.shards_per_client
        if count is None:
            return super().deal(pool, rng)
        sizes = self.planned_sizes(len(pool), rng)
        chosen = rng.permutation(len(pool))[: sizes.sum()]
        by_label = chosen[np.argsort(pool.labels[chosen], kind="stable")]
        # A client of 7 samples and 2 shards gets one of 3 and one of 4.
        lengths = (sizes[:, None] + np.arange(count)) // count
        shards = rng.permutation(lengths.size)
        owners = np.repeat(shards // count, lengths.ravel()[shards])
        return cut(by_label[np.argsort(owners, kind="stable")], sizes)


@dataclass(frozen=True)
class Pathological(Dealer):
    """Each client holds `classes_per_client` classes, in equal parts; null, as many as come: IID.

    The label skew of McMahan et al. 2017 without its shards, as in Li et al. 2022: classes are
    handed out in turn, so that each has nearly the same number of holders. With `sizes` the largest
    clients choose first, of the classes with most samples left. A class that nobody holds (fewer
    places than classes) stays unused, unless clients would be too small without it.
    """

    classes_per_client: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("classes_per_client", self.classes_per_client)

    def check(self, facts: Facts, num_samples: int) -> None:
        super().check(facts, num_samples)
        _check_classes("classes_per_client", self.classes_per_client, facts)

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        count = self.classes_per_client
        if count is None:
            return super().deal(pool, rng)
        sizes = self.wanted_sizes(len(pool), rng)
        if sizes is None or self.sizes is None:
            holds = hand_out(np.ones(self.num_clients), np.zeros(pool.num_classes), count, rng)
        else:
            supply = np.bincount(pool.labels, minlength=pool.num_classes)
            holds = hand_out(sizes / count, -supply.astype(np.float64), count, rng)
        pools = by_class(pool.labels, pool.num_classes, rng)
        if sizes is None:
            unheld = [pools[c] for c in np.flatnonzero(~holds.any(axis=0))]
            return repair(share_evenly(pools, holds), self.min_size, rng, unheld)
        return draw_laws(pools, holds / count, sizes, rng, exact=True)


@dataclass(frozen=True)
class LabelGroups(Dealer):
    """Planted groups of clients with disjoint classes, as even in number as they can be.

    Client i is in group i modulo `num_groups`; which classes a group has is drawn at random. Ghosh
    et al. 2020 and Sattler et al. 2020 try clustering on planted groups. With `sizes`, the clients
    of a group share out its classes. overlap: the share of a client's samples that comes from all
    classes; 1 is IID, and there are no groups.
    """

    num_groups: int
    overlap: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_groups <= self.num_clients:
            raise ValueError(
                f"num_groups: must be 1 to num_clients ({self.num_clients}), got {self.num_groups}"
            )
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap: must be in [0, 1], got {self.overlap}")

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        return np.arange(num_clients) % self.num_groups if self.overlap < 1 else None

    def check(self, facts: Facts, num_samples: int) -> None:
        super().check(facts, num_samples)
        _check_classes("num_groups", self.num_groups, facts)

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        groups = self.groups_of(self.num_clients)
        if groups is None:
            return super().deal(pool, rng)
        owner = np.empty(pool.num_classes, dtype=np.int64)
        owned = np.array_split(rng.permutation(pool.num_classes), self.num_groups)
        for group, classes in enumerate(owned):
            owner[classes] = group
        dealt = self._deal_apart(pool, groups, owner, rng)
        if self.overlap == 0:
            return dealt
        return Dealt(mix(dealt.parts, self.overlap, rng), dealt.moved)

    def _deal_apart(
        self, pool: Pool, groups: np.ndarray, owner: np.ndarray, rng: np.random.Generator
    ) -> Dealt:
        """Deal without overlap; owner: the group of each class, int64 [Y]."""
        holds = groups[:, None] == owner
        pools = by_class(pool.labels, pool.num_classes, rng)
        supply = np.array([len(of_class) for of_class in pools])
        sizes = self._sizes_apart(groups, np.bincount(owner, supply), rng)
        if sizes is None:
            return repair(share_evenly(pools, holds), self.min_size, rng)
        # Where a group uses up its classes, its clients take them as they come, else equally.
        laws = holds * (supply if self.samples_per_client is None else np.ones_like(supply))
        laws = laws / np.maximum(laws.sum(axis=1, keepdims=True), 1)
        return draw_laws(pools, laws, sizes, rng, exact=True)

    def _sizes_apart(
        self, groups: np.ndarray, supply: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray | None:
        """The size of each client, int64 [N], drawn within groups; supply: samples of each."""
        if self.sizes is None:
            return self.wanted_sizes(0, rng)
        members = np.bincount(groups)
        if self.samples_per_client is not None:
            totals = members * self.samples_per_client
        else:
            totals = apportion(supply, round(supply.sum()), members * self.min_size)
        return draw_within(self.sizes, groups, totals, self.min_size, rng)


@dataclass(frozen=True)
class BySite:
    """Each site of the data is a client: nothing is dealt, nothing is drawn.

    small_sites: what to do about sites with fewer than `min_size` samples, `error` or `skip`.
    `sizes` must be null: sites hold what they hold.
    """

    min_size: int
    small_sites: str
    sizes: Sizes | None

    def __post_init__(self) -> None:
        check_min_size(self.min_size)
        if self.small_sites not in ("error", "skip"):
            raise ValueError(f"small_sites: must be error or skip, got {self.small_sites!r}")
        if self.sizes is not None:
            raise ValueError("sizes: must be null, as sites hold what they hold")

    def kept(self, facts: Facts) -> tuple[int, ...]:
        """Return the numbers of the sites that become clients, in order."""
        return tuple(s for s, size in enumerate(facts.site_sizes) if size >= self.min_size)

    def clients_of(self, facts: Facts) -> int:
        return len(self.kept(facts))

    def names_of(self, facts: Facts) -> tuple[str, ...] | None:
        return tuple(facts.sites[site] for site in self.kept(facts))

    def notes_of(self, facts: Facts) -> tuple[str, ...]:
        small = self._small(facts)
        if not small:
            return ()
        return (f"skipped, as they have fewer than {self.min_size} samples: {small}",)

    def groups_of(self, num_clients: int) -> np.ndarray | None:
        return None

    def resized(self, num_clients: int) -> Partition:
        raise ValueError("num_clients: the sites of the data are the clients")

    def check(self, facts: Facts, num_samples: int) -> None:
        if not facts.sites:
            raise ValueError(f"by_site: {WITH_SITES}")
        small = self._small(facts)
        if small and (self.small_sites == "error" or not self.kept(facts)):
            raise ValueError(
                f"min_size: must be at most what every site has, got {self.min_size}; too small: "
                f"{small}; lower it, or set partition.small_sites=skip to leave them out"
            )

    def deal(self, pool: Pool, rng: np.random.Generator) -> Dealt:
        """Deal nothing. Raises DataError where the pool has no sites."""
        if pool.sites is None:
            raise DataError(f"partition=by_site {WITH_SITES}")
        sizes = pool.site_sizes or np.bincount(pool.sites).tolist()
        kept = [s for s, size in enumerate(sizes) if size >= self.min_size]
        return Dealt([np.flatnonzero(pool.sites == site) for site in kept])

    def assign(self, pool: Pool, rng: np.random.Generator) -> list[np.ndarray]:
        return self.deal(pool, rng).parts

    def _small(self, facts: Facts) -> str:
        """Name the first sites that are too small, with what they have."""
        sizes = zip(facts.sites, facts.site_sizes, strict=True)
        small = [f"{name} ({size})" for name, size in sizes if size < self.min_size]
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        return ", ".join(small[:5]) + more


def _check_count(field: str, count: int | None) -> None:
    if count is not None and count < 1:
        raise ValueError(f"{field}: must be null or at least 1, got {count}")


def _check_classes(field: str, count: int | None, facts: Facts) -> None:
    if count is not None and count > len(facts.classes):
        raise ValueError(
            f"{field}: must be at most the {len(facts.classes)} classes of the data set, "
            f"got {count}"
        )
