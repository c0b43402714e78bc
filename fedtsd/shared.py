"""Tensors that forked processes share: what one writes, all see.

Maps are sparse: memory and disk are taken up row by row as rows are written.
"""

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from fedtsd.errors import StorageError


def shared_tensor(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor of zeros in memory that this process and those it forks share."""
    size = math.prod(shape) * dtype.itemsize
    return _tensor(mmap.mmap(-1, max(size, mmap.PAGESIZE)), shape, dtype)


class DiskRows:
    """A float32 matrix [rows, width] of zeros in a file that nobody else sees.

    The system keeps in memory what fits and leaves the rest on disk, so rows may be many more than
    memory holds. The file has no name and is gone with the last process that has it open.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._file, path = tempfile.mkstemp(prefix="fedtsd-")
        os.unlink(path)
        weakref.finalize(self, os.close, self._file)
        self._row_bytes = width * torch.float32.itemsize
        size = max(rows * self._row_bytes, mmap.PAGESIZE)
        os.ftruncate(self._file, size)
        self.tensor = _tensor(mmap.mmap(self._file, size), (rows, width), torch.float32)

    @property
    def num_bytes(self) -> int:
        """The disk space that is taken up."""
        return os.fstat(self._file).st_blocks * 512

    def reserve(self, row: int) -> None:
        """Take the disk space of a row before it is written.

        Raises StorageError where there is none; without this, writing would kill the process.
        """
        if not self._row_bytes or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._file, row * self._row_bytes, self._row_bytes)
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: no space for what clients keep ({error.strerror}); "
                "set TMPDIR to a folder with more"
            ) from error


def _tensor(buffer: mmap.mmap, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.zeros(*shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype, count=count).view(*shape)
