"""Files that a person brings: which ones a path means, what stands for them in a run's key, and
how many of their samples become public.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fedtsd.errors import DataError

if TYPE_CHECKING:
    from fedtsd.data.dataset import Dataset

READ_BELOW = 64 * 2**20
"""Bytes up to which the contents count; of more, the times of change do, as reading takes long."""
CLOCK_TICK = 2 * 10**9
"""Nanoseconds in which a file may change twice without another time of change."""


def fingerprint(path: Path) -> str:
    """Return 16 hex digits that change if a file, or any file in a folder, does.

    They cover the names (below the folder), the sizes, and the contents or, from 64 MB on, the
    times of change. Where the path lies does not matter. Hidden files do not count.

    Raises DataError if there is nothing at the path.
    """
    path = path.expanduser()
    found = [path] if path.is_file() else files_in(path)
    stats = [file.stat() for file in found]
    small = sum(stat.st_size for stat in stats) < READ_BELOW
    digest = hashlib.blake2b(digest_size=8)
    for file, stat in zip(found, stats, strict=True):
        name = file.name if file == path else file.relative_to(path).as_posix()
        mark = _contents(file, stat) if small else stat.st_mtime_ns
        digest.update(repr((name, stat.st_size, mark)).encode())
    return digest.hexdigest()


def _contents(file: Path, stat: os.stat_result) -> str:
    """Return a hash of the contents; a file that has not changed since is not read again."""
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if time.time_ns() - changed < CLOCK_TICK:
        return hashlib.blake2b(file.read_bytes()).hexdigest()
    return _contents_at(file, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=4096)
def _contents_at(file: Path, *seen: int) -> str:
    return hashlib.blake2b(file.read_bytes()).hexdigest()


def files_in(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, without hidden ones.

    Links to folders are followed, except back to a folder above. Raises DataError if there is no
    such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such file or folder")
    return sorted(_walk(folder, ()))


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    place = folder.resolve()
    if place in above:
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*above, place))
        elif entry.is_file():
            yield entry


def share_of(num_samples: int) -> int:
    """Return how many samples become public unless a person says: a tenth, 10 to 1000, at most
    half.
    """
    return min(max(10, num_samples // 10), 1000, num_samples // 2)


def public_size_of(dataset: "Dataset") -> int:
    """Return how many samples of a data set become public, also where it says null."""
    size: int | None = dataset.public_size
    return share_of(dataset.facts.num_samples) if size is None else size


def check_public_size(size: int | None) -> None:
    """Raise ValueError unless the number is legal; null leaves it to `share_of`."""
    if size is not None and size < 1:
        raise ValueError(f"public_size: must be null or at least 1, got {size}")
