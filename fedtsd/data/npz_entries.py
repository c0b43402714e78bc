"""Which arrays a person's .npz file, or folder of .npy files, holds under which names."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedtsd.data.targets import few
from fedtsd.errors import DataError

KEYS = {
    "x": ("x", "inputs"),
    "y": ("y", "labels", "targets"),
    "site": ("site",),
    "classes": ("classes",),
}
"""What is read, and the names that it may have."""


@dataclass(frozen=True)
class Entry:
    """An array, and where it stands: the file and the key."""

    place: str
    array: np.ndarray

    @property
    def form(self) -> str:
        """Type and shape, as NumPy writes them."""
        return f"{self.array.dtype} {list(self.array.shape)}"


def read_entries(path: Path) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """Return the arrays by the first name in `KEYS`, and a note on those that are not read.

    Those of a folder are memory maps. Raises DataError naming the file and the key.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_archive(path)
    raise DataError(f"{path}: there is no such file or folder")


def _read_folder(folder: Path) -> tuple[dict[str, Entry], tuple[str, ...]]:
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    chosen, others = _chosen(folder, list(files))
    entries = {}
    for key, name in chosen.items():
        load = partial(np.load, files[name], mmap_mode="r", allow_pickle=False)
        entries[key] = Entry(str(files[name]), _loaded(str(files[name]), load))
    return entries, others


def _read_archive(path: Path) -> tuple[dict[str, Entry], tuple[str, ...]]:
    # NumPy leaves a file open that is no archive.
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: must be a .npz file, as np.savez writes, or a folder of .npy files"
        )
    archive = _loaded(str(path), partial(np.load, path, allow_pickle=False))
    entries = {}
    with archive:
        chosen, others = _chosen(path, archive.files)
        for key, name in chosen.items():
            place = f"{path}, key {name!r}"
            entries[key] = Entry(place, _loaded(place, partial(archive.__getitem__, name)))
    return entries, others


def _loaded(place: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DataError(
                f"{place}: holds Python objects; save it as numbers or, with .astype(str), as text"
            ) from error
        raise DataError(f"{place}: cannot be read: {error}") from error


def _chosen(path: Path, names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which name stands for which key, and a note on the names that stand for none."""
    chosen: dict[str, str] = {}
    for key, legal in KEYS.items():
        found = [name for name in legal if name in names]
        if len(found) > 1:
            raise DataError(f"{path}: has {' and '.join(found)}; must have one of them")
        if found:
            chosen[key] = found[0]
        elif key in ("x", "y"):
            raise DataError(
                f"{path}: lacks {' or '.join(legal)}; has {', '.join(names) or 'no arrays'}"
            )
    others = [name for name in names if name not in chosen.values()]
    return chosen, (f"not read: {few(others)}",) if others else ()
