"""People's own arrays: a NumPy .npz file, or a folder of .npy files that stay on disk.

Shapes: n samples, F features, C channels, H x W pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedtsd.data.dataset import Arrays, Facts, check_standardise
from fedtsd.data.files import check_public_size, fingerprint, share_of
from fedtsd.data.npz_arrays import read_inputs, read_sites, read_target
from fedtsd.data.npz_entries import read_entries
from fedtsd.data.targets import check_task, one_class_notes
from fedtsd.errors import DataError

CHANNELS = ("first", "last")


@dataclass(frozen=True)
class ArrayFile:
    """Arrays x (or inputs), y (or labels, targets), and perhaps site and classes.

    x: images uint8 [n, C, H, W], [n, H, W] or, with `channels: last`, [n, H, W, C]; or numbers
    [n, F], NaN where missing. y: texts, numbers or true and false, [n]. site: numbers or texts [n].
    classes: names; where y is whole numbers, they count from 0.
    """

    name: str
    path: str | None
    channels: str
    task: str
    strata: int
    public_size: int | None
    standardise: str

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError("path: must be a .npz file, or a folder of .npy files, got null")
        if self.channels not in CHANNELS:
            raise ValueError(
                f"channels: must be one of {', '.join(CHANNELS)}, got {self.channels!r}"
            )
        check_task(self.task, self.strata)
        check_standardise(self.standardise)
        check_public_size(self.public_size)

    @property
    def content(self) -> "Content":
        """What the files hold now; they are read once for as long as they stay the same."""
        return _content(self, fingerprint(Path(self.path or "")))

    @property
    def facts(self) -> Facts:
        return self.content.facts

    @property
    def num_public(self) -> int:
        """`public_size`, also where it is null."""
        return share_of(self.facts.num_samples) if self.public_size is None else self.public_size

    def load(self, root: Path) -> Arrays:
        return self.content.arrays


@dataclass(frozen=True)
class Content:
    """What the files hold."""

    facts: Facts
    arrays: Arrays


@lru_cache(maxsize=2)
def _content(settings: ArrayFile, mark: str) -> Content:
    path = Path(settings.path or "").expanduser()
    found, others = read_entries(path)
    inputs, scaled, notes = read_inputs(found["x"], settings.channels)
    target, target_notes = read_target(
        found["y"], found.get("classes"), settings.task, settings.strata
    )
    codes, sites = read_sites(found.get("site"))
    for key, array in (("y", target.labels), ("site", codes)):
        if array is not None and len(array) != len(inputs):
            raise DataError(
                f"{found[key].place}: has {len(array):,} samples, "
                f"{found['x'].place} has {len(inputs):,}"
            )
    site_notes = () if codes is None else one_class_notes(codes, sites, target)
    facts = Facts(
        len(inputs),
        inputs.shape[1:],
        target.classes,
        target.values is not None,
        sites,
        () if codes is None else tuple(np.bincount(codes).tolist()),
        (*others, *notes, *target_notes, *site_notes),
    )
    arrays = Arrays(inputs, target.labels, target.classes, target.values, codes, scaled)
    return Content(facts, arrays)
