"""The federation: what each client holds, and the public samples that belong to nobody.

Shapes: N clients, P public samples, Y classes.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.dataset import Arrays, Dataset
from fedtsd.data.deal import Dealt
from fedtsd.data.drift import Drift
from fedtsd.data.holdings import SPLITS, ClientData, Holdings, Split, View
from fedtsd.data.pool import Partition, Pool
from fedtsd.data.public import PublicSource
from fedtsd.data.shift import Shift
from fedtsd.data.standard import Standard, moments_of, raw_standard, standard_of
from fedtsd.errors import DataError
from fedtsd.seeding import numpy_rng

__all__ = ["SPLITS", "ClientData", "Deal", "Federation", "Shares", "Split", "build_federation"]


@dataclass(frozen=True)
class Federation:
    """All clients, the public inputs float32 [P, ...], and the names of the Y classes.

    clients: what each holder has: the N clients, then what drifting clients hold later.
    moves: from round `drift_round` on, client -> the holder whose place it takes.
    groups: int64 [N], the group planted each client is in at the end of a run, if any were planted.
    names: what people call the clients; None where they are just numbers.
    newcomers: ids of the clients that are kept out of training at first.
    num_outputs: of a model for these data: Y, or 1 for regression.
    num_sums: numbers that each client told the server once, so that inputs could be standardised.
    notes: what a person should know of the data, one line each.
    """

    clients: Sequence[ClientData]
    public: Tensor
    classes: tuple[str, ...]
    groups: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    newcomers: tuple[int, ...] = ()
    drift_round: int | None = None
    moves: Mapping[int, int] = field(default_factory=dict)
    regression: bool = False
    num_sums: int = 0
    notes: tuple[str, ...] = ()

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.clients) - len(self.moves)

    @property
    def num_outputs(self) -> int:
        """Outputs of a model: one per class, or the value that a regression predicts."""
        return 1 if self.regression else len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.public.shape[1:])

    def data_of(self, client: int, round: int) -> ClientData:
        """Return what a client holds in a round."""
        return self.clients[self._holder(client, round)]

    def num_training(self, client: int, round: int) -> int:
        """Return how many training samples a client has in a round."""
        if isinstance(self.clients, Holdings):
            return self.clients.size(self._holder(client, round), "train")
        return len(self.data_of(client, round).train)

    def to(self, device: torch.device) -> "Federation":
        """Return the federation on a device."""
        if isinstance(self.clients, Holdings):
            clients: Sequence[ClientData] = self.clients.to(device)
        else:
            clients = tuple(client.to(device) for client in self.clients)
        return dataclasses.replace(self, clients=clients, public=self.public.to(device))

    def _holder(self, client: int, round: int) -> int:
        drifted = self.drift_round is not None and round >= self.drift_round
        return self.moves.get(client, client) if drifted else client

    def label_counts(self, split: str) -> np.ndarray:
        """Return how many samples of each class each client has in a split at first, int64 [N, Y].

        In regression, of each stratum.
        """
        return self.holder_counts(split)[: self.num_clients]

    def holder_counts(self, split: str) -> np.ndarray:
        """Return the same for every holder: the clients, then what drifting clients hold later."""
        if isinstance(self.clients, Holdings):
            labels = [self.clients.labels(i, split) for i in range(len(self.clients))]
        else:
            labels = [getattr(client, split).labels.numpy() for client in self.clients]
        return np.stack([np.bincount(part, minlength=len(self.classes)) for part in labels])


@dataclass(frozen=True)
class Shares:
    """How a client's samples are cut: `test` of all, then `val` of the rest; at least one each."""

    test: float
    val: float

    def __post_init__(self) -> None:
        for name in ("test", "val"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")
        if self.test == 0:
            raise ValueError("test: must be above 0, as every client is evaluated on its own data")

    def cut(self, samples: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Split sample indices at random into train, val and test; none of them is empty
        except val, where its share is 0 or there are just two samples.
        """
        order = rng.permutation(samples)
        num_test = min(max(1, round(len(order) * self.test)), len(order) - 1)
        rest = len(order) - num_test
        num_val = min(max(1, round(rest * self.val)), rest - 1) if self.val else 0
        return {
            "test": order[:num_test],
            "val": order[num_test : num_test + num_val],
            "train": order[num_test + num_val :],
        }


@dataclass(frozen=True)
class Deal:
    """Everything that says who holds what: the parts of a config that make a federation.

    newcomers: the share of clients kept out of training at first.
    """

    dataset: Dataset
    public: PublicSource
    partition: Partition
    shares: Shares
    shift: Shift | None = None
    drift: Drift | None = None
    newcomers: float = 0.0

    def newcomers_of(self, num_clients: int, seed: int) -> np.ndarray:
        """Return the ids of the newcomers, sorted."""
        rng = numpy_rng(seed, "newcomers")
        return np.sort(rng.choice(num_clients, self.num_newcomers(num_clients), replace=False))

    def num_newcomers(self, num_clients: int) -> int:
        """Return how many of N clients are newcomers."""
        return round(self.newcomers * num_clients)


def build_federation(arrays: Arrays, deal: Deal, root: Path, seed: int) -> Federation:
    """Hold out the public samples, deal the rest to clients, and cut each client's share.

    root: where data sets are kept; public samples may come from another one. Raises DataError if
    a site has too few samples left to train and test on.
    """
    facts = deal.dataset.facts
    held_out = deal.public.held_out_for(deal.dataset)
    order = numpy_rng(seed, "public").permutation(len(arrays.labels))
    public, private = np.sort(order[:held_out]), np.sort(order[held_out:])
    drawn = deal.public.draw(
        np.asarray(arrays.inputs[public]), deal.dataset, root, numpy_rng(seed, "public draw")
    )
    num_clients = deal.partition.clients_of(facts)
    drifting, partition = _drifting(deal, num_clients, seed)
    names = partition.names_of(facts)
    dealt = _dealt(partition, arrays, private, deal.dataset, seed)
    _check_sizes(dealt.parts, names)
    cuts = []
    for holder, part in enumerate(dealt.parts):
        cut = deal.shares.cut(private[part], numpy_rng(seed, "split", holder))
        cuts.append({name: np.sort(cut[name]) for name in SPLITS})
    newcomers = deal.newcomers_of(num_clients, seed)
    groups = _groups(deal, len(cuts))
    moves = _moves(drifting, groups, num_clients)
    view = View(arrays, deal.shift, seed)
    present = [i for i in range(num_clients) if i not in newcomers]
    standard, num_sums = _standard(deal.dataset.standardise, view, cuts, present, drawn)
    values = view.value_standard(cuts, present)
    clients = Holdings(view, cuts, standard, values)
    place = np.array([moves.get(i, i) for i in range(num_clients)])
    return Federation(
        clients=clients,
        public=torch.from_numpy((standard or standard_of(drawn, arrays.scaled)).apply(drawn)),
        classes=arrays.classes,
        groups=None if groups is None else np.unique(groups[place], return_inverse=True)[1],
        names=names,
        newcomers=tuple(newcomers.tolist()),
        drift_round=deal.drift.round if deal.drift and moves else None,
        moves=moves,
        regression=arrays.values is not None,
        num_sums=num_sums + (0 if values is None else 3),
        notes=(*facts.notes, *partition.notes_of(facts), *_notes(dealt, held_out, names)),
    )


def _dealt(
    partition: Partition, arrays: Arrays, private: np.ndarray, dataset: Dataset, seed: int
) -> Dealt:
    """Deal out the samples `private` of the data set."""
    sites = None if arrays.sites is None else arrays.sites[private]
    sizes = dataset.facts.site_sizes
    pool = Pool(arrays.labels[private], len(arrays.classes), sites, sizes)
    try:
        return partition.deal(pool, numpy_rng(seed, "partition"))
    except ValueError as error:  # too few samples, which only the classes that are held show
        raise DataError(f"partition: {error}") from error


def _notes(dealt: Dealt, held_out: int, names: tuple[str, ...] | None) -> Iterator[str]:
    if dealt.moved:
        yield (
            f"{dealt.moved} samples were given to clients against the partition's rule, as there "
            "were too few that fit it, or a client had fewer than min_size"
        )
    if names is not None and held_out:
        yield (
            f"the {held_out} public samples are the sites' own, which a real federation could not "
            "do; public=folder takes samples that may be shared, public=noise none at all"
        )


def _drifting(deal: Deal, num_clients: int, seed: int) -> tuple[np.ndarray, Partition]:
    """Return the clients that drift, and the partition that deals for as many more."""
    if deal.drift is None:
        return np.array([], dtype=np.int64), deal.partition
    count = deal.drift.num_drifting(num_clients)
    chosen = numpy_rng(seed, "drift").choice(num_clients, count, replace=False)
    drifting = np.sort(chosen)
    return drifting, deal.partition.resized(num_clients + len(drifting))


def _groups(deal: Deal, num_holders: int) -> np.ndarray | None:
    """Return the planted group of each holder: of the partition, of the shift, or of both."""
    planted = [deal.partition.groups_of(num_holders)]
    if deal.shift is not None:
        planted.append(deal.shift.groups_of(num_holders))
    found = [groups for groups in planted if groups is not None]
    if not found:
        return None
    return np.asarray(np.unique(np.stack(found), axis=1, return_inverse=True)[1]).reshape(-1)


def _moves(drifting: np.ndarray, groups: np.ndarray | None, num_clients: int) -> dict[int, int]:
    """Return whose place each drifting client takes: of another planted group, if possible."""
    free = num_clients + np.arange(len(drifting))
    if groups is not None:
        # Lazily: SciPy's optimisers take a while to import.
        from scipy.optimize import linear_sum_assignment

        same = groups[drifting][:, None] == groups[free][None, :]
        free = free[linear_sum_assignment(same)[1]]
    return dict(zip(drifting.tolist(), free.tolist(), strict=True))


def _check_sizes(parts: Sequence[np.ndarray], names: tuple[str, ...] | None) -> None:
    for holder, part in enumerate(parts):
        if len(part) < 2:
            who = f"client {holder}" if names is None else f"site {names[holder]!r}"
            raise DataError(
                f"partition: {who} has {len(part)} samples beside the public ones, at least 2 are "
                "needed to train and to test"
            )


def _standard(
    how: str,
    view: View,
    cuts: Sequence[Mapping[str, np.ndarray]],
    present: Sequence[int],
    public: np.ndarray,
) -> tuple[Standard | None, int]:
    """Return what all inputs are standardised by, and how many numbers each client tells for it.

    None: each client by its own training inputs.
    """
    if how == "public":
        return standard_of(public, view.arrays.scaled), 0
    if how == "none":
        return raw_standard(public), 0
    if how == "site":
        return None, 0
    sums = sum(
        (moments_of(view.inputs(i, "train", cuts[i]["train"])) for i in present[1:]),
        start=moments_of(view.inputs(present[0], "train", cuts[present[0]]["train"])),
    )
    return sums.standard(view.arrays.scaled), sums.size
