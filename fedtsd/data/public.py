"""Where public unlabeled samples come from: everybody holds them, clients answer about them.

The server compares clients by their outputs on these samples. What they show need not be what the
clients have: FedMD (Li and Wang 2019) takes another data set, FedDF (Lin et al. 2020) unlabeled
samples of another domain. Noise and contaminated pools are here to find out how much it matters.

Shapes: P public samples, H of the data set's own samples that are held out for the source.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from fedtsd.data.dataset import Dataset
from fedtsd.data.files import public_size_of
from fedtsd.data.image_tree import all_images
from fedtsd.data.standard import moments_of
from fedtsd.errors import DataError

KINDS = ("uniform", "gaussian", "shuffled")


class PublicSource(Protocol):
    """What `conf/public/*.yaml` describes.

    size: P; None means as many as the data set would hold out of itself.
    """

    @property
    def size(self) -> int | None:
        """P as it was set."""
        ...

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError naming the field if the source does not fit the data set."""
        ...

    def size_for(self, dataset: Dataset) -> int:
        """Return P."""
        ...

    def held_out_for(self, dataset: Dataset) -> int:
        """Return H; clients hold none of these samples."""
        ...

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        """Return P raw inputs on the data set's own scale, of its type (uint8 or float32).

        own: the H held-out samples. root: where data sets are kept. Raises DataError if the source
        has too few samples.
        """
        ...


@runtime_checkable
class ReadsUnlabelled(Protocol):
    """A data set that can read samples without labels, as its own are read."""

    def read_unlabelled(self, path: Path) -> np.ndarray:
        """Return raw inputs [m, ...] in the data set's shape."""
        ...


@dataclass(frozen=True)
class _Sized:
    size: int | None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size: must be null or at least 1, got {self.size}")

    def size_for(self, dataset: Dataset) -> int:
        return public_size_of(dataset) if self.size is None else self.size

    def held_out_for(self, dataset: Dataset) -> int:
        return 0

    def check(self, dataset: Dataset) -> None:
        held_out, total = self.held_out_for(dataset), dataset.facts.num_samples
        if self.size is not None and held_out >= total:
            raise ValueError(
                f"size: must be below the {total} samples of the data set, got {self.size}"
            )


@dataclass(frozen=True)
class HeldOut(_Sized):
    """Samples of the data set itself: the best case, as if somebody had published a few."""

    def held_out_for(self, dataset: Dataset) -> int:
        return self.size_for(dataset)

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        return own


@dataclass(frozen=True)
class OtherDataset(_Sized):
    """Samples of another data set with inputs of the same shape (FedMD, Li and Wang 2019)."""

    dataset: Dataset

    def check(self, dataset: Dataset) -> None:
        if _origin(self.dataset) == _origin(dataset):
            raise ValueError(
                f"dataset: {dataset.name} is what the clients hold; take another data set, or "
                "public=held_out"
            )
        theirs, ours = self.dataset.facts, dataset.facts
        if theirs.shape != ours.shape:
            raise ValueError(
                f"dataset: samples of {self.dataset.name} have shape {_text(theirs.shape)}, those "
                f"of {dataset.name} {_text(ours.shape)}; they must be equal (pool makes images "
                "smaller)"
            )
        if (size := self.size_for(dataset)) > theirs.num_samples:
            raise ValueError(
                f"size: must be at most the {theirs.num_samples} samples of {self.dataset.name}, "
                f"got {size}"
            )

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        inputs = self.dataset.load(root).inputs
        return _choose(inputs, self.size_for(dataset), self.dataset.name, rng)


@dataclass(frozen=True)
class Folder(_Sized):
    """Samples in a folder (images, at any depth) or file (a table) of one's own, without labels.

    size: None means all of them.
    """

    path: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ValueError("path: must be a folder or file of samples, got null")

    def check(self, dataset: Dataset) -> None:
        if not self._place.exists():
            raise ValueError(f"path: there is no file or folder {self._place}")
        if _overlap(self._place, getattr(dataset, "path", None)):
            raise ValueError(f"path: {self._place} holds data of the clients")
        if not dataset.facts.is_image and not isinstance(dataset, ReadsUnlabelled):
            raise ValueError(f"path: {dataset.name} cannot read samples from a file or folder")

    def size_for(self, dataset: Dataset) -> int:
        if self.size is not None:
            return self.size
        if dataset.facts.is_image:
            return len(all_images(self._place))
        return len(self._read(dataset))

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        samples = self._read(dataset)
        if samples.shape[1:] != dataset.facts.shape:
            raise DataError(
                f"{self._place}: samples have shape {_text(samples.shape[1:])}, those of "
                f"{dataset.name} {_text(dataset.facts.shape)}"
            )
        size = len(samples) if self.size is None else self.size
        return _choose(samples, size, str(self._place), rng)

    @property
    def _place(self) -> Path:
        return Path(self.path or "").expanduser()

    def _read(self, dataset: Dataset) -> np.ndarray:
        if isinstance(dataset, ReadsUnlabelled):
            return dataset.read_unlabelled(self._place)
        from fedtsd.data.decoding import read_images

        return read_images(self._place, dataset.facts.shape)


@dataclass(frozen=True)
class Noise(_Sized):
    """Samples without content.

    uniform, gaussian: images are drawn pixel by pixel, uniform on 0..255, or normal around the
    middle with a quarter of the range as standard deviation, clipped; they need no held-out
    samples. A table's features have no scale of their own, so they follow the minimum and maximum,
    or the mean and standard deviation, of H = P held-out samples.
    shuffled: each pixel or feature of H = P held-out samples is permuted on its own, so that each
    keeps its distribution and their connection is lost.
    One-hot columns of a table stay valid: a noise sample takes all of them from one held-out
    sample, which keeps what connects one category with another.
    """

    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}, got {self.kind!r}")

    def held_out_for(self, dataset: Dataset) -> int:
        needs_own = self.kind == "shuffled" or not dataset.facts.is_image
        return self.size_for(dataset) if needs_own else 0

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        if not dataset.facts.is_image:
            return self._table(own, dataset.load(root).scaled, rng)
        if self.kind == "shuffled":
            return rng.permuted(own, axis=0)
        shape = (self.size_for(dataset), *dataset.facts.shape)
        if self.kind == "uniform":
            return rng.integers(0, 256, shape, dtype=np.uint8)
        values = rng.normal(127.5, 255 / 4, shape)
        return np.clip(np.round(values), 0, 255).astype(np.uint8)

    def _table(
        self, own: np.ndarray, scaled: np.ndarray | None, rng: np.random.Generator
    ) -> np.ndarray:
        """Return float32 [P, F]; a feature that is missing throughout stays missing."""
        if self.kind == "shuffled":
            drawn = rng.permuted(own, axis=0)
        elif self.kind == "uniform":
            low, high = np.fmin.reduce(own, axis=0), np.fmax.reduce(own, axis=0)
            drawn = low + (high - low) * rng.random(own.shape)
        else:
            moments = moments_of(own)
            count = np.where(moments.count, moments.count, np.nan)
            mean = moments.total / count
            std = np.sqrt(np.maximum(0.0, moments.squares / count - mean**2))
            drawn = rng.normal(mean, std, own.shape)
        if scaled is not None:
            drawn[:, ~scaled] = rng.permutation(own[:, ~scaled])
        return np.asarray(drawn, dtype=np.float32)


@dataclass(frozen=True)
class Mixed(_Sized):
    """A contaminated pool: P x `junk_share` samples of one source, the rest of another.

    The case where public samples on which clients disagree are worth looking for.
    """

    clean: PublicSource
    junk: PublicSource
    junk_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.junk_share <= 1:
            raise ValueError(f"junk_share: must be in [0, 1], got {self.junk_share}")
        for name in ("clean", "junk"):
            if (size := getattr(self, name).size) is not None:
                raise ValueError(
                    f"{name}.size: must be null, as size and junk_share say it, got {size}"
                )

    def check(self, dataset: Dataset) -> None:
        super().check(dataset)
        for name, part in self._parts(dataset).items():
            try:
                part.check(dataset)
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from error

    def held_out_for(self, dataset: Dataset) -> int:
        return sum(part.held_out_for(dataset) for part in self._parts(dataset).values())

    def draw(
        self, own: np.ndarray, dataset: Dataset, root: Path, rng: np.random.Generator
    ) -> np.ndarray:
        own = rng.permutation(own)  # they may come sorted by site and class
        drawn, start = [], 0
        for part in self._parts(dataset).values():
            end = start + part.held_out_for(dataset)
            drawn.append(part.draw(own[start:end], dataset, root, rng))
            start = end
        return rng.permutation(np.concatenate(drawn))

    def _parts(self, dataset: Dataset) -> dict[str, PublicSource]:
        """Return the sources with their sizes; one that gives no sample is left out."""
        total = self.size_for(dataset)
        num_junk = round(total * self.junk_share)
        sizes = {"clean": total - num_junk, "junk": num_junk}
        return {
            name: replace(getattr(self, name), size=size) for name, size in sizes.items() if size
        }


def _choose(inputs: np.ndarray, size: int, where: str, rng: np.random.Generator) -> np.ndarray:
    """Return `size` random samples; sorted, as a memory map is read fastest."""
    if size > len(inputs):
        raise DataError(f"{where}: has {len(inputs)} samples, public.size asks for {size}")
    return np.asarray(inputs[np.sort(rng.choice(len(inputs), size, replace=False))])


def _overlap(place: Path, own: str | None) -> bool:
    """Return whether one of the paths lies within the other."""
    if own is None:
        return False
    one, other = place.resolve(), Path(own).expanduser().resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _origin(dataset: Dataset) -> tuple[str, str | None]:
    return dataset.name, getattr(dataset, "path", None)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
