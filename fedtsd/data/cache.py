"""Data sets kept on disk as arrays (.npy), and `meta.json`, which vouches for them."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fedtsd.data.dataset import Arrays
from fedtsd.errors import DataError


@contextmanager
def filling(folder: Path, meta: dict[str, Any]) -> Iterator[Path]:
    """Give a place to write .npy files to; when all are written, they become those of `folder`.

    meta: anything to keep beside them, complete at the end. meta.json comes last and vouches for
    the arrays: no half cache is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as place:
        yield Path(place)
        arrays = sorted(Path(place).glob("*.npy"))
        vouched = {path.stem: _mark(path) for path in arrays}
        Path(place, "meta.json").write_text(json.dumps(meta | vouched, indent=2))
        (folder / "meta.json").unlink(missing_ok=True)
        for path in (*arrays, Path(place, "meta.json")):
            shutil.move(path, folder / path.name)


def read_kept(folder: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read meta.json and the named arrays; `inputs` as a read-only memory map.

    Raises ValueError if something is missing or damaged.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        for name in names:
            size = (folder / f"{name}.npy").stat().st_size
            if size != meta[name]["bytes"]:
                raise ValueError(f"{name}.npy has {size} bytes instead of {meta[name]['bytes']}")
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if name == "inputs" else None)
            for name in names
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(str(error)) from error
    return meta, arrays


class RowWriter:
    """Writes an .npy file of uint8 rows whose number is known at the end only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._num_rows = 0
        self._row: tuple[int, ...] | None = None

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._row is not None:
            self._file.seek(0)
            self._write_header()
        self._file.close()

    def append(self, rows: np.ndarray) -> None:
        """Append rows [k, ...], all of one shape."""
        if self._row is None:
            self._row = rows.shape[1:]
            self._write_header()
        self._file.write(np.ascontiguousarray(rows, dtype=np.uint8).data)
        self._num_rows += len(rows)

    def _write_header(self) -> None:
        # NumPy leaves room in the header, so that the first axis may grow without moving the rows.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": "|u1",
                "fortran_order": False,
                "shape": (self._num_rows, *(self._row or ())),
            },
        )


def write_cache(folder: Path, inputs: np.ndarray, labels: np.ndarray, source: str) -> None:
    """Keep the arrays of an image set."""
    with filling(folder, {"source": source, "shape": list(inputs.shape)}) as place:
        np.save(place / "inputs.npy", inputs)
        np.save(place / "labels.npy", labels)


def read_cache(folder: Path, shape: tuple[int, ...], classes: tuple[str, ...]) -> Arrays:
    """Read the arrays of this shape [n, C, H, W]; the inputs as a read-only memory map.

    Raises DataError if the cache is damaged, with the command that mends it.
    """
    try:
        _, arrays = read_kept(folder, ("inputs", "labels"))
        for name, wanted, kind in (("inputs", shape, np.uint8), ("labels", shape[:1], np.int64)):
            if arrays[name].shape != wanted or arrays[name].dtype != kind:
                raise ValueError(f"{name}.npy holds {arrays[name].dtype} {arrays[name].shape}")
    except ValueError as error:
        raise DataError(
            f"{folder}: the kept data set is damaged ({error}); "
            f"mend it with: fedtsd data get {folder.name} --force"
        ) from error
    return Arrays(arrays["inputs"], arrays["labels"], classes)


def _mark(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
