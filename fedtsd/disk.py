"""Writing so that neither a kill nor a full disk leaves half a file, and refusals in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedtsd.errors import StorageError

REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
"""What a disk says that is full, over quota or read-only, or of a path that cannot be a folder: the
user's to mend, not a defect."""


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what the disk refuses in this block into a StorageError that names a file.

    path: the file that is named where the error of the system names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise StorageError(f"{error.filename or path}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers and kills see the old content or the new, nothing between.

    Raises StorageError where the disk refuses it; the old content stays.
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


def append_whole(path: Path, content: bytes) -> None:
    """Append to a file all of `content`, or nothing and raise StorageError.

    Only a kill can leave a part of it.
    """
    with refusals(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            left = memoryview(content)
            while left:  # a disk that fills up may take a part before it refuses
                left = left[file.write(left) :]
        except OSError:
            if len(left) < len(content):
                file.truncate(before)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to; what is there at the end is moved to `path`.

    Contents are on disk before the name is: after a power cut, too, the file is the old one or the
    new one. An error leaves nothing beside it.
    """
    beside = path.with_name(f".{path.name}.writing")
    with refusals(path):
        try:
            yield beside
            flush(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        with suppress(OSError):  # not every file system can flush a folder
            flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
