"""What each holder has, made from the data set when it is asked for.

A data set may lie in a memory map that is larger than memory; what clients hold of it are indices.
The float32 tensors that training needs are made per client when they are asked for. Where those of
all clients fit `KEPT_BYTES` they stay, in memory that forked processes share; else the latest do.

Shapes: n samples, H holders.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.dataset import Arrays
from fedtsd.data.shift import Shift, Viewer
from fedtsd.data.standard import Standard, moments_of, standard_of
from fedtsd.shared import shared_tensor

SPLITS = ("train", "val", "test")
KEPT_BYTES = 4 << 30
LOOKED_AT = 64
"""Samples of a client that are compared with and without its shift, to say how far it goes."""


@dataclass(frozen=True)
class Split:
    """Samples: inputs float32 [n, ...], and labels int64 [n].

    In regression, labels are float32 [n], standardised values; `unit` is what 1 stands for.
    """

    inputs: Tensor
    labels: Tensor
    unit: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Tensor) -> "Split":
        """Return the samples with these indices [m]."""
        chosen = chosen.to(self.labels.device)
        return Split(self.inputs[chosen], self.labels[chosen], self.unit)

    def to(self, device: torch.device) -> "Split":
        """Return the split on a device."""
        return Split(self.inputs.to(device), self.labels.to(device), self.unit)


@dataclass(frozen=True)
class ClientData:
    """One client's data. All three splits follow the client's own law."""

    train: Split
    val: Split
    test: Split

    def to(self, device: torch.device) -> "ClientData":
        """Return the data on a device."""
        return ClientData(self.train.to(device), self.val.to(device), self.test.to(device))

    @property
    def num_bytes(self) -> int:
        """What the inputs take."""
        return sum(split.inputs.nbytes for split in (self.train, self.val, self.test))


@dataclass(frozen=True, eq=False)
class View:
    """What a holder sees of its samples: those of the data set, moved by its shift."""

    arrays: Arrays
    shift: Shift | None
    seed: int

    def seen(self, holder: int, split: str, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and labels as they look at the holder, before standardisation."""
        inputs, labels = np.asarray(self.arrays.inputs[samples]), self.arrays.labels[samples]
        if self.shift is None:
            return inputs, labels
        viewer = Viewer(holder, split, len(self.arrays.classes), self.seed)
        return self.shift.apply(inputs, labels, viewer)

    def inputs(self, holder: int, split: str, samples: np.ndarray) -> np.ndarray:
        """Return the inputs alone."""
        return self.seen(holder, split, samples)[0]

    def value_standard(
        self, cuts: Sequence[Mapping[str, np.ndarray]], present: Sequence[int]
    ) -> Standard | None:
        """Return mean and scale of the values to predict, from sums over training samples."""
        if self.arrays.values is None:
            return None
        values = self.arrays.values[np.concatenate([cuts[i]["train"] for i in present])]
        return moments_of(values[:, None]).standard(None)


class Shelf:
    """The tensors of all holders side by side, in memory that forked processes share.

    Memory is taken up as holders are put there, by whichever process asks for one first.
    """

    def __init__(
        self, sizes: np.ndarray, shape: tuple[int, ...], labels: torch.dtype, unit: float
    ) -> None:
        """Make room: `sizes` int64 [H, 3] counts the samples of each holder in each split."""
        ends = np.cumsum(sizes).reshape(sizes.shape)
        self._starts, self._ends = (ends - sizes).tolist(), ends.tolist()
        total = int(sizes.sum())
        self._inputs = shared_tensor((total, *shape))
        self._labels = shared_tensor((total,), labels)
        self._has = shared_tensor((len(sizes),), torch.bool)
        self._unit = unit

    @classmethod
    def of(
        cls, view: View, cuts: Sequence[Mapping[str, np.ndarray]], unit: float
    ) -> "Shelf | None":
        """Return an empty shelf for these holders, None if it would be larger than KEPT_BYTES."""
        sizes = np.array([[len(cut[name]) for name in SPLITS] for cut in cuts])
        shape = view.arrays.inputs.shape[1:]
        if sizes.sum() * math.prod(shape) * torch.float32.itemsize > KEPT_BYTES:
            return None
        labels = torch.int64 if view.arrays.values is None else torch.float32
        return cls(sizes, shape, labels, unit)

    def has(self, holder: int) -> bool:
        """Return whether the holder's tensors are there."""
        return bool(self._has[holder])

    def put(self, holder: int, data: ClientData) -> None:
        """Copy a holder's tensors to their place."""
        for place, name in zip(self._places(holder), SPLITS, strict=True):
            split: Split = getattr(data, name)
            self._inputs[place], self._labels[place] = split.inputs, split.labels
        self._has[holder] = True

    def get(self, holder: int) -> ClientData:
        """Return a holder's tensors, where they lie."""
        splits = (
            Split(self._inputs[place], self._labels[place], self._unit)
            for place in self._places(holder)
        )
        return ClientData(**dict(zip(SPLITS, splits, strict=True)))

    def _places(self, holder: int) -> list[slice]:
        return [slice(*ends) for ends in zip(self._starts[holder], self._ends[holder], strict=True)]


class Holdings(Sequence[ClientData]):
    """What each of H holders has.

    cuts: the indices of each holder's samples by split. standard: what inputs are standardised by,
    or None: each holder by its own training inputs. values: likewise for the values to predict.
    """

    def __init__(
        self,
        view: View,
        cuts: Sequence[Mapping[str, np.ndarray]],
        standard: Standard | None,
        values: Standard | None,
        device: torch.device | None = None,
    ) -> None:
        self._view = view
        self._cuts = cuts
        self._standard = standard
        self._values = values
        self._device = device or torch.device("cpu")
        self._kept: OrderedDict[int, ClientData] = OrderedDict()
        self._kept_bytes = 0
        self._unit = 1.0 if values is None else float(values.scale.item())
        on_cpu = self._device.type == "cpu"
        self._shelf = Shelf.of(view, cuts, self._unit) if on_cpu else None

    def __len__(self) -> int:
        return len(self._cuts)

    @overload
    def __getitem__(self, index: int) -> ClientData: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ClientData]: ...

    def __getitem__(self, index: int | slice) -> ClientData | Sequence[ClientData]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._shelf is not None:
            if not self._shelf.has(index):
                self._shelf.put(index, self._make(index))
            return self._shelf.get(index)
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        data = self._make(index).to(self._device)
        self._kept[index] = data
        self._kept_bytes += data.num_bytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].num_bytes
        return data

    def to(self, device: torch.device) -> "Holdings":
        """Return the same holdings, made on a device."""
        if device == self._device:
            return self
        return Holdings(self._view, self._cuts, self._standard, self._values, device)

    def size(self, holder: int, split: str) -> int:
        """Return how many samples a holder has in a split."""
        return len(self._cuts[holder][split])

    def labels(self, holder: int, split: str) -> np.ndarray:
        """Return the labels of a holder's samples as it sees them, int64; in regression, strata."""
        samples = self._cuts[holder][split]
        shift = self._view.shift
        seen: np.ndarray = self._view.arrays.labels[samples]
        if shift is not None and shift.changes_labels:
            seen = self._view.seen(holder, split, samples)[1]
        return seen

    def moved(self, holder: int) -> tuple[float, float]:
        """Return how far the shift moves a holder's training samples.

        The root mean square change of the inputs in standard deviations of the unmoved ones, and
        the share of labels that change; over the first samples.
        """
        if self._view.shift is None:
            return 0.0, 0.0
        samples = self._cuts[holder]["train"][:LOOKED_AT]
        arrays = self._view.arrays
        inputs, labels = self._view.seen(holder, "train", samples)
        before = np.asarray(arrays.inputs[samples], dtype=np.float32)
        standard = self._standard or standard_of(arrays.inputs[samples], arrays.scaled)
        change = (np.asarray(inputs, dtype=np.float32) - before) / standard.scale
        return float(np.sqrt(np.mean(change**2))), float(np.mean(labels != arrays.labels[samples]))

    def _make(self, holder: int) -> ClientData:
        seen = {name: self._view.seen(holder, name, self._cuts[holder][name]) for name in SPLITS}
        standard = self._standard or standard_of(seen["train"][0], self._view.arrays.scaled)
        return ClientData(
            **{name: self._split(holder, name, *seen[name], standard) for name in SPLITS}
        )

    def _split(
        self, holder: int, name: str, inputs: np.ndarray, labels: np.ndarray, standard: Standard
    ) -> Split:
        tensor = torch.from_numpy(standard.apply(inputs))
        all_values = self._view.arrays.values
        if all_values is None or self._values is None:
            return Split(tensor, torch.from_numpy(labels))
        values = self._values.apply(all_values[self._cuts[holder][name], None])[:, 0]
        return Split(tensor, torch.from_numpy(values), self._unit)
