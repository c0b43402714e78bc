"""What a data set is: facts known before it is loaded, and arrays afterwards.

Shapes: n samples, Y classes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import platformdirs


@dataclass(frozen=True)
class Arrays:
    """A whole data set.

    inputs: uint8 [n, channels, height, width], possibly a read-only memory map.
    labels: int64 [n], 0 to Y - 1. classes: the Y class names.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of a data set without loading it: samples, shape of one, class names."""

    num_samples: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]


class Dataset(Protocol):
    """What `conf/dataset/*.yaml` describes. `public_size` samples are held out for everybody."""

    name: str
    public_size: int

    def __hash__(self) -> int:
        """Equal settings hash alike: data sets are loaded once per process."""
        ...

    @property
    def facts(self) -> Facts:
        """The facts, with the shape as it comes out of `load`."""
        ...

    def load(self, root: Path) -> Arrays:
        """Load the data set, from `root` if it is kept on disk."""
        ...


def default_root() -> Path:
    """Return where data sets are kept: $FEDTSD_DATA, or the user's cache folder."""
    chosen = os.environ.get("FEDTSD_DATA")
    return Path(chosen) if chosen else platformdirs.user_cache_path("fedtsd") / "data"


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8 x 8 pixels; they ship with scikit-learn (Alpaydin, Kaynak)."""

    name: str
    public_size: int

    @property
    def facts(self) -> Facts:
        return Facts(1797, (1, 8, 8), tuple("0123456789"))

    def load(self, root: Path) -> Arrays:
        # Lazily: scikit-learn takes a second to import.
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        inputs = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        return Arrays(inputs, labels.astype(np.int64), self.facts.classes)
