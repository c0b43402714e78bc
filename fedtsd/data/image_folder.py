"""One's own images in folders: FOLDER/site/class/image, or FOLDER/class/image without sites.

They are decoded once and kept as arrays under the data root, by the fingerprint of the files and
the settings that change pixels.

Shapes: n samples, S sites, Y classes.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fedtsd.data.cache import RowWriter, filling, read_kept
from fedtsd.data.dataset import Arrays, Facts, check_standardise, default_root
from fedtsd.data.decoding import (
    ColourFoundError,
    Style,
    blocks,
    read_images,
    unreadable,
)
from fedtsd.data.files import check_public_size, fingerprint
from fedtsd.data.image_tree import LAYOUTS, Tree, count, few, labelled_images, names_in
from fedtsd.errors import DataError

ON_BAD = ("error", "skip")
TOLD = {"class_names", "site_names", "skipped", "notes"}
"""What `meta.json` says beside the marks of the arrays."""


@dataclass(frozen=True)
class ImageFolder:
    """Images of sites and classes, each named by its folder.

    layout: `site_class` or, without sites, `class`. size: height and width that images are resized
    to, not keeping their ratio; None means that all must have one size. channels: 1 or 3; None
    means 1 if every image is stored as grey, else 3. pool: side of the squares that are averaged
    into one pixel. classes: the legal ones, in the order of their labels; None means those that
    occur, sorted. on_bad: whether an image that cannot be read is an `error`, or `skip`ped.

    Images are turned upright as their EXIF data say; transparency is dropped; of several frames
    the first one counts. Samples are sorted by site, class and file name.
    """

    name: str
    path: str | None
    layout: str
    size: tuple[int, ...] | None
    channels: int | None
    pool: int
    classes: tuple[str, ...] | None
    on_bad: str
    public_size: int | None
    standardise: str

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError("path: must be a folder of images, such as data/images, got null")
        for name, legal in (("layout", LAYOUTS), ("on_bad", ON_BAD)):
            if (value := getattr(self, name)) not in legal:
                raise ValueError(f"{name}: must be one of {', '.join(legal)}, got {value!r}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(
                f"size: must be null or [height, width], at least 1 each, got {list(self.size)}"
            )
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels: must be null, 1 or 3, got {self.channels}")
        if self.pool < 1 or any(side % self.pool for side in self.size or ()):
            raise ValueError(
                f"pool: must be at least 1 and divide the sides of size, got {self.pool}"
            )
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError(
                f"classes: must be null or at least two different names, got {list(self.classes)}"
            )
        check_public_size(self.public_size)
        check_standardise(self.standardise)

    @property
    def facts(self) -> Facts:
        """The facts; images are decoded for them, unless they are kept already."""
        meta, arrays = self._kept(default_root())
        sites = np.bincount(arrays["sites"], minlength=len(meta["site_names"]))
        return Facts(
            num_samples=len(arrays["labels"]),
            shape=arrays["inputs"].shape[1:],
            classes=tuple(meta["class_names"]),
            sites=tuple(meta["site_names"]),
            site_sizes=tuple(sites.tolist()) if meta["site_names"] else (),
            notes=(*self._survey.tree.notes, *meta["notes"]),
        )

    @property
    def skipped(self) -> tuple[str, ...]:
        """The images that cannot be read, as paths in the folder."""
        return tuple(self._kept(default_root())[0]["skipped"])

    def load(self, root: Path) -> Arrays:
        meta, arrays = self._kept(root)
        sites = arrays["sites"] if meta["site_names"] else None
        return Arrays(arrays["inputs"], arrays["labels"], tuple(meta["class_names"]), sites=sites)

    def read_unlabelled(self, path: Path) -> np.ndarray:
        """Return the images in a folder, however deep, as uint8 [m, C, H, W] like those of `load`.

        Raises DataError if one cannot be read or has, without `size`, another size.
        """
        return read_images(path, self.facts.shape, self.size is not None, self.pool)

    @property
    def _folder(self) -> Path:
        return Path(self.path or "").expanduser()

    def _kept(self, root: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what is kept under `root`; decode if nothing is, or if it is damaged."""
        place = root / "own" / self._key()
        try:
            return _read(place)
        except ValueError:
            pass
        try:
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / ".lock"):  # runs of a sweep ask at the same time
                try:
                    return _read(place)
                except ValueError:
                    self._decode(place)
            return _read(place)
        except OSError as error:
            raise DataError(
                f"{self._folder}: decoded images cannot be kept in {place} ({error}); choose "
                "another place with FEDTSD_DATA"
            ) from error

    def _key(self) -> str:
        settings = (self.size, self.channels, self.pool, self.on_bad)
        place = str(self._folder.resolve())
        kind = (place, self.layout, self.classes, self._survey.fingerprint, settings)
        return hashlib.blake2b(repr(kind).encode(), digest_size=8).hexdigest()

    @property
    def _survey(self) -> "_Survey":
        folder = self._folder
        if not folder.is_dir():
            raise DataError(
                f"{folder}: there is no such folder; dataset.path must name a folder of images"
            )
        return _survey(folder, self.layout, self.classes, _latest_change(folder))

    def _decode(self, place: Path) -> None:
        tree = self._survey.tree
        try:
            self._write(tree, place, self.channels)
        except ColourFoundError:
            self._write(tree, place, 3)

    def _write(self, tree: Tree, place: Path, channels: int | None) -> None:
        height_width = None if self.size is None else (self.size[0], self.size[1])
        style = Style(height_width, channels, self.pool)
        meta: dict[str, Any] = {"source": str(self._folder.resolve())}
        bad: list[tuple[str, str]] = []
        with filling(place, meta) as new:
            with RowWriter(new / "inputs.npy") as inputs:
                for block in blocks(self._folder, tree.files, style):
                    bad += block.bad
                    if len(block.images):
                        inputs.append(block.images)
            self._check_bad(bad)
            skipped = {file for file, _ in bad}
            good = np.array([file not in skipped for file in tree.files])
            labels = np.array(tree.class_of, dtype=np.int64)[good]
            sites = np.array(tree.site_of, dtype=np.int64)[good]
            _check_sites(self._folder, tree, sites)
            np.save(new / "labels.npy", labels)
            np.save(new / "sites.npy", sites)
            meta |= {"class_names": tree.classes, "site_names": tree.sites}
            meta["skipped"] = sorted(skipped)
            meta["notes"] = [*_skipped_note(bad), *_label_notes(tree, labels, sites)]

    def _check_bad(self, bad: Sequence[tuple[str, str]]) -> None:
        if bad and self.on_bad == "error":
            raise DataError(
                f"{self._folder}: {unreadable(bad)}; mend or remove them, or set "
                "dataset.on_bad=skip"
            )


def _read(place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    meta, arrays = read_kept(place, ("inputs", "labels", "sites"))
    if missing := sorted(TOLD - meta.keys()):
        raise ValueError(f"meta.json does not say {missing[0]}")
    if len({len(array) for array in arrays.values()}) != 1:
        raise ValueError("the arrays differ in length")
    return meta, arrays


@dataclass(frozen=True)
class _Survey:
    tree: Tree
    fingerprint: str


@lru_cache(maxsize=4)
def _survey(
    folder: Path, layout: str, classes: tuple[str, ...] | None, changed: tuple[int, ...]
) -> _Survey:
    """Look at the files once per process, as long as none is added, removed or replaced.

    The layout is checked first: it may be the wrong folder, with much else in it.
    """
    tree = labelled_images(folder, layout, classes)
    try:
        return _Survey(tree, fingerprint(folder))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _latest_change(folder: Path) -> tuple[int, ...]:
    """Return when the entries of the folder and of those two levels below it last changed."""
    first = _folders(folder)
    second = [place for one in first for place in _folders(one)]
    return tuple(os.stat(place).st_mtime_ns for place in (folder, *first, *second))


def _folders(place: Path) -> list[Path]:
    return [place / name for name in names_in(place) if (place / name).is_dir()]


def _check_sites(folder: Path, tree: Tree, sites: np.ndarray) -> None:
    if len(sites) == 0:
        raise DataError(f"{folder}: none of its {len(tree.files)} images can be read")
    for s, site in enumerate(tree.sites):
        if not np.any(sites == s):
            number = tree.site_of.count(s)
            raise DataError(
                f"{folder / site}: none of the site's {count(number, 'image')} can be read"
            )


def _skipped_note(bad: Sequence[tuple[str, str]]) -> list[str]:
    if not bad:
        return []
    told = few([f"{file} ({reason})" for file, reason in bad])
    return [f"skipped {count(len(bad), 'image')} that cannot be read: {told}"]


def _label_notes(tree: Tree, labels: np.ndarray, sites: np.ndarray) -> list[str]:
    """Say which classes no site has, or only one, and which sites have one class only."""
    held = np.zeros((max(1, len(tree.sites)), len(tree.classes)), dtype=bool)
    held[sites, labels] = True
    notes = []
    if empty := [tree.classes[c] for c in np.flatnonzero(~held.any(axis=0))]:
        notes.append(f"{count(len(empty), 'class has', 'classes have')} no image: {few(empty)}")
    if len(tree.sites) < 2:
        return notes
    lone = np.flatnonzero(held.sum(axis=0) == 1)
    if told := [f"{tree.classes[c]} ({tree.sites[held[:, c].argmax()]})" for c in lone]:
        what = count(len(lone), "class is", "classes are")
        notes.append(f"{what} at one site only: {few(told)}")
    poor = np.flatnonzero(held.sum(axis=1) == 1)
    if told := [f"{tree.sites[s]} ({tree.classes[held[s].argmax()]})" for s in poor]:
        what = count(len(poor), "site has", "sites have")
        notes.append(f"{what} one class only: {few(told)}")
    return notes
