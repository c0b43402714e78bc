"""What a data set is: facts known before it is loaded, and arrays afterwards.

Shapes: n samples, F features, Y classes, S sites.
"""

import os
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Protocol

import numpy as np
import platformdirs

from fedtsd.data.files import check_public_size

STANDARDS = ("public", "moments", "site", "none")


@dataclass(frozen=True)
class Arrays:
    """A whole data set.

    inputs: uint8 [n, channels, height, width] or float32 [n, F], possibly a read-only memory map;
    NaN where a feature is missing.
    labels: int64 [n], 0 to Y - 1: the class or, in regression, the stratum (an interval of values).
    classes: the Y names of classes or strata.
    values: float32 [n], what a regression predicts, in the target's own unit; None otherwise.
    sites: int64 [n], 0 to S - 1, whose sample it is, where the data say so.
    scaled: bool [F], the features that are standardised; None for all. One-hot columns are not.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    values: np.ndarray | None = None
    sites: np.ndarray | None = None
    scaled: np.ndarray | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a data set without loading it.

    shape: of one sample. classes: names of the classes; in regression, of the strata.
    sites: names of the S sites, empty where the data have none. site_sizes: samples of each.
    notes: what a person should know of the data, one line each: what was skipped, what is odd.
    """

    num_samples: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    regression: bool = False
    sites: tuple[str, ...] = ()
    site_sizes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether a sample is [channels, height, width]."""
        return len(self.shape) == 3

    @property
    def num_outputs(self) -> int:
        """Outputs of a model: one per class, or the value that a regression predicts."""
        return 1 if self.regression else len(self.classes)


class Dataset(Protocol):
    """What `conf/dataset/*.yaml` describes.

    public_size: samples held out for everybody, where public samples come from the data set itself;
    None for a share of them (`files.public_size_of`).
    standardise: what inputs are centred and scaled by: `public` samples; `moments`, sums that
    clients send once; each `site`'s own training data; or `none`.
    """

    name: str
    public_size: int | None
    standardise: str

    def __hash__(self) -> int:
        """Equal settings hash alike: data sets are loaded once per process."""
        ...

    @property
    def facts(self) -> Facts:
        """The facts, with the shape as it comes out of `load`.

        Raises DataError with one line naming the file, row or folder if data at a path are bad.
        """
        ...

    def load(self, root: Path) -> Arrays:
        """Load the data set, from `root` if it is kept on disk."""
        ...


def check_standardise(name: str) -> None:
    """Raise ValueError unless `name` is a way to standardise."""
    if name not in STANDARDS:
        raise ValueError(f"standardise: must be one of {', '.join(STANDARDS)}, got {name!r}")


def default_root() -> Path:
    """Return where data sets are kept: $FEDTSD_DATA, or the user's cache folder."""
    chosen = os.environ.get("FEDTSD_DATA")
    return Path(chosen) if chosen else platformdirs.user_cache_path("fedtsd") / "data"


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8 x 8 pixels; they ship with scikit-learn (Alpaydin, Kaynak)."""

    name: str
    public_size: int
    standardise: str

    def __post_init__(self) -> None:
        check_standardise(self.standardise)
        check_public_size(self.public_size)

    @property
    def facts(self) -> Facts:
        return Facts(1797, (1, 8, 8), tuple("0123456789"))

    def load(self, root: Path) -> Arrays:
        # Its file without its code, which takes a second to import.
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        rows = np.loadtxt(str(file), delimiter=",")
        inputs = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        return Arrays(inputs, rows[:, -1].astype(np.int64), self.facts.classes)
