"""The folder of one run: its tables, its status, its checkpoints. All of it is written here."""

import csv
import io
import json
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from fedtsd import __version__
from fedtsd.checkpoint import read_checkpoint, write_atomically, write_checkpoint
from fedtsd.errors import RunFolderError
from fedtsd.score import ACCURACY, MAE, Score

_CLIENTS = (
    "round", "client", "cluster", "personal_layers", "stage", "split", "accuracy", "loss",
    "num_examples",
)  # fmt: skip
TABLES: dict[str, tuple[str, ...]] = {
    "rounds": (
        "round", "accuracy_mean", "accuracy_std", "accuracy_worst10", "loss_mean", "num_clusters",
        "personal_layers_mean", "hopkins", "hopkins_p", "bytes_up", "bytes_down", "samples",
        "seconds", "epsilon",
    ),
    "clients": _CLIENTS,
    "newcomers": _CLIENTS,
    "assignments": ("round", "client", "cluster", "personal_layers"),
    "clustering": (
        "round", "stage", "cluster", "size", "num_clusters_proposed", "silhouette", "hopkins",
        "hopkins_p", "passed", "split",
    ),
    "traffic": ("round", "client", "bytes_up", "bytes_down", "samples", "seconds"),
    "exchanged": ("round", "direction", "item", "num_clients", "num_bytes"),
}  # fmt: skip
MEASURED = {ACCURACY.name: ("accuracy",), MAE.name: ("mae", "rmse")}
"""What stands in the tables in the place of accuracy."""
COMMAND = ["fedtsd", *sys.argv[1:]]  # as typed; Hydra is given another argv later
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "hydra-core")


class RunFolder:
    """A run folder that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._score = ACCURACY

    @classmethod
    def create(cls, path: Path, config: str) -> "RunFolder":
        """Start a new run; `config` is the resolved config as YAML.

        Raises RunFolderError if a run is there already: it is never overwritten.
        """
        if (path / "status.json").exists() or (path / "config.yaml").exists():
            raise RunFolderError(f"{path}: holds a run already; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        write_atomically(path / "config.yaml", config.encode())
        folder.write_json("environment", environment())
        folder.set_status("running", started=_now())
        folder.rewind(-1)
        return folder

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Open an unfinished run to continue it.

        Raises RunFolderError if there is no run, or if it is finished.
        """
        if not (path / "config.yaml").is_file():
            raise RunFolderError(f"{path}: no run to resume here: config.yaml is missing")
        folder = cls(path)
        if folder.status().get("state") == "done":
            raise RunFolderError(f"{path}: the run is finished; there is nothing to resume")
        return folder

    @contextmanager
    def lock(self, patience: float = 5.0) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises RunFolderError if another process still has it after `patience` seconds.
        """
        try:
            with FileLock(self.path / ".lock", timeout=patience):
                yield
        except Timeout as error:
            raise RunFolderError(f"{self.path}: another process is running it") from error

    @property
    def is_locked(self) -> bool:
        """Whether a process holds the folder, on this machine or one that shares its locks."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    def status(self) -> dict[str, Any]:
        """Return status.json, empty if it was never written."""
        file = self.path / "status.json"
        if not file.is_file():
            return {}
        status: dict[str, Any] = json.loads(file.read_text())
        return status

    def set_status(self, state: str, **facts: Any) -> None:
        """Write status.json; earlier facts stay."""
        self.write_json("status", {**self.status(), "state": state, "updated": _now(), **facts})

    def set_failed(self, error: BaseException) -> None:
        """Record a failure with its traceback."""
        trace = "".join(traceback.format_exception(error))
        self.set_status("failed", error=f"{type(error).__name__}: {error}", traceback=trace)

    def config(self) -> dict[str, Any]:
        """Return the resolved config of the run."""
        config: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text())
        return config

    def append(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a table; floats keep every bit, None and NaN become empty cells."""
        columns = columns_of(table, self._score)
        known, text = set(columns), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            if odd := row.keys() - known:
                raise ValueError(f"{table}: no columns {', '.join(sorted(odd))}")
            writer.writerow([_cell(row.get(column)) for column in columns])
        with (self.path / f"{table}.csv").open("a") as file:
            file.write(text.getvalue())

    def rewind(self, round: int, score: Score = ACCURACY) -> None:
        """Cut all tables back to the rows of rounds up to `round`; -1 leaves the header.

        score: what the run is scored by, which names some columns.
        """
        self._score = score
        for table in TABLES:
            columns = columns_of(table, score)
            file = self.path / f"{table}.csv"
            lines = file.read_text().splitlines(keepends=True)[1:] if file.exists() else []
            # A kill may leave half a line; it belongs to a round that is run again.
            kept = [line for line in lines if line.endswith("\n") and _round_of(line) <= round]
            write_atomically(file, (",".join(columns) + "\n" + "".join(kept)).encode())

    def write_json(self, name: str, content: Any) -> None:
        """Write NAME.json atomically."""
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / f"{name}.json", text.encode())

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write NAME.npz atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path / f"{name}.npz", buffer.getvalue())

    def save_checkpoint(self, round: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of a round; the one before it is kept, older ones are removed."""
        write_checkpoint(self._checkpoints / f"round-{round:06d}.safetensors", state)
        for old in sorted(self._checkpoints.glob("round-*.safetensors"))[:-2]:
            old.unlink()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest state, None if no round was saved yet."""
        found = sorted(self._checkpoints.glob("round-*.safetensors"))
        return read_checkpoint(found[-1]) if found else None

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"


def columns_of(table: str, score: Score) -> tuple[str, ...]:
    """Return the columns of a table in a run with this score."""
    names = {"accuracy": MEASURED[score.name]}
    names |= {a: (b,) for a, b in zip(ACCURACY.columns, score.columns, strict=True)}
    return tuple(new for old in TABLES[table] for new in names.get(old, (old,)))


def environment() -> dict[str, Any]:
    """Return where the run happens: versions, host, device, git commit of the working folder."""
    import torch

    return {
        "fedtsd": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "host": platform.node(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "command": COMMAND,
    }


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _cell(value: Any) -> Any:
    if type(value) is int:  # most cells, and there are thousands in a round
        return value
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    return repr(float(value)) if isinstance(value, float) else value


def _round_of(line: str) -> int:
    return int(line.split(",", 1)[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
