"""The federation: what each client holds, and the public samples that belong to nobody.

Shapes: N clients, P public samples, Y classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.dataset import Arrays
from fedtsd.data.partition import Partition
from fedtsd.seeding import numpy_rng

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Samples: inputs float32 [n, ...], labels int64 [n]."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ClientData:
    """One client's data. All three splits follow the client's own law."""

    train: Split
    val: Split
    test: Split

    def to(self, device: torch.device) -> "ClientData":
        """Return the data on a device."""
        return ClientData(self.train.to(device), self.val.to(device), self.test.to(device))


@dataclass(frozen=True)
class Federation:
    """All clients, the public inputs float32 [P, ...], and the names of the Y classes.

    groups: int64 [N], the group that the partition planted each client in, if it planted any.
    """

    clients: tuple[ClientData, ...]
    public: Tensor
    classes: tuple[str, ...]
    groups: np.ndarray | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.public.shape[1:])

    def to(self, device: torch.device) -> "Federation":
        """Return the federation on a device."""
        clients = tuple(client.to(device) for client in self.clients)
        return Federation(clients, self.public.to(device), self.classes, self.groups)

    def label_counts(self, split: str) -> np.ndarray:
        """Return how many samples of each class each client has in a split, int64 [N, Y]."""
        return np.stack(
            [
                np.bincount(getattr(client, split).labels.numpy(), minlength=len(self.classes))
                for client in self.clients
            ]
        )


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


def build_federation(
    arrays: Arrays, public_size: int, partition: Partition, shares: Shares, seed: int
) -> Federation:
    """Hold out the public samples, deal the rest to clients, and cut each client's share.

    Inputs are standardised per channel with the mean and standard deviation of the public samples:
    everybody may know those, and no client's data is touched for it.
    """
    num_classes = len(arrays.classes)
    order = numpy_rng(seed, "public").permutation(len(arrays.labels))
    public, private = order[:public_size], np.sort(order[public_size:])
    parts = partition.assign(arrays.labels[private], num_classes, numpy_rng(seed, "partition"))
    pixels = np.asarray(arrays.inputs[np.sort(public)], dtype=np.float32)
    axes = (0, *range(2, pixels.ndim))
    mean = pixels.mean(axis=axes, keepdims=True)
    std = pixels.std(axis=axes, keepdims=True) + 1e-6

    def split_of(samples: np.ndarray) -> Split:
        inputs = (np.asarray(arrays.inputs[samples], dtype=np.float32) - mean) / std
        return Split(torch.from_numpy(inputs), torch.from_numpy(arrays.labels[samples]))

    clients = []
    for client, part in enumerate(parts):
        cut = shares.cut(private[part], numpy_rng(seed, "split", client))
        clients.append(ClientData(**{name: split_of(np.sort(cut[name])) for name in SPLITS}))
    standard = torch.from_numpy((pixels - mean) / std)
    return Federation(tuple(clients), standard, arrays.classes, partition.groups)
