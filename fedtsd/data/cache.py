"""Image sets kept on disk: `inputs.npy`, `labels.npy`, and `meta.json`, which vouches for both."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedtsd.data.dataset import Arrays
from fedtsd.errors import DataError


def write_cache(folder: Path, inputs: np.ndarray, labels: np.ndarray, source: str) -> None:
    """Write the arrays; meta.json comes last and vouches for them: no half cache is read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    meta: dict[str, Any] = {"source": source, "shape": list(inputs.shape)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as place:
        for name, array in (("inputs", inputs), ("labels", labels)):
            path = Path(place, f"{name}.npy")
            np.save(path, array)
            with path.open("rb") as file:
                meta[name] = {
                    "bytes": path.stat().st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
        Path(place, "meta.json").write_text(json.dumps(meta, indent=2))
        for name in ("inputs.npy", "labels.npy", "meta.json"):
            shutil.move(Path(place, name), folder / name)


def read_cache(folder: Path, shape: tuple[int, ...], classes: tuple[str, ...]) -> Arrays:
    """Read the arrays of this shape [n, C, H, W]; the inputs as a read-only memory map.

    Raises DataError if the cache is damaged, with the command that mends it.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        for name in ("inputs", "labels"):
            size = (folder / f"{name}.npy").stat().st_size
            if size != meta[name]["bytes"]:
                raise ValueError(f"{name}.npy has {size} bytes instead of {meta[name]['bytes']}")
        inputs = np.load(folder / "inputs.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        if inputs.shape != shape or inputs.dtype != np.uint8:
            raise ValueError(f"inputs.npy holds {inputs.dtype} {inputs.shape}")
        if labels.shape != shape[:1] or labels.dtype != np.int64:
            raise ValueError(f"labels.npy holds {labels.dtype} {labels.shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: the kept data set is damaged ({error}); "
            f"mend it with: fedtsd data get {folder.name} --force"
        ) from error
    return Arrays(inputs, labels, classes)
