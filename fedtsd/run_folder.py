"""The folder of one run: its tables, its status, its checkpoints. All of it is written here."""

import csv
import io
import json
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from fedtsd.checkpoint import read_checkpoint, write_checkpoint
from fedtsd.disk import append_whole, flush, refusals, write_atomically
from fedtsd.environment import environment
from fedtsd.errors import RunFolderError, StorageError
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
    "codings": ("round", "cluster", "like", "class", "name"),
    "traffic": ("round", "client", "bytes_up", "bytes_down", "samples", "seconds"),
    "exchanged": ("round", "direction", "item", "num_clients", "num_bytes"),
    "replies": (
        "round", "asked", "taken", "crashed", "lost", "late", "refused", "duplicated", "abandoned",
        "simulated_seconds",
    ),
    "incidents": ("round", "client", "outcome", "reason"),
    "withheld": ("round", "cluster", "item", "num_clients"),
}  # fmt: skip
MEASURED = {ACCURACY.name: ("accuracy",), MAE.name: ("mae", "rmse")}
"""What stands in the tables in the place of accuracy."""

log = logging.getLogger(__name__)


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
        if (path / "config.yaml").exists():
            raise RunFolderError(f"{path}: holds a run already; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.write_json("environment", environment())
        folder.rewind(-1)
        folder.write_json("status", {"state": "running", "updated": _now(), "started": _now()})
        # Last: with it there is a run, and the same command that began it would be refused.
        write_atomically(path / "config.yaml", config.encode())
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
        lock = FileLock(self.path / ".lock", timeout=patience)
        try:
            with refusals(self.path):
                lock.acquire()
        except Timeout as error:
            raise RunFolderError(f"{self.path}: another process is running it") from error
        try:
            yield
        finally:
            lock.release()

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
        try:
            status: dict[str, Any] = json.loads(file.read_text())
        except ValueError as error:
            raise RunFolderError(f"{file}: is damaged ({error}); remove it to go on") from error
        return status

    def set_status(self, state: str, **facts: Any) -> None:
        """Write status.json; earlier facts stay, those given as None go."""
        told = {**self.status(), "state": state, "updated": _now(), **facts}
        self.write_json("status", {key: value for key, value in told.items() if value is not None})

    def set_failed(self, error: BaseException) -> None:
        """Record a failure with its traceback, unless the disk has no place for that either."""
        trace = "".join(traceback.format_exception(error))
        with suppress(StorageError):
            self.set_status("failed", error=f"{type(error).__name__}: {error}", traceback=trace)

    def config(self) -> dict[str, Any]:
        """Return the resolved config of the run. Raises RunFolderError if it cannot be read."""
        file = self.path / "config.yaml"
        try:
            config = yaml.safe_load(file.read_text())
        except (ValueError, yaml.YAMLError) as error:
            raise RunFolderError(f"{file}: is damaged: {str(error).splitlines()[0]}") from error
        if not isinstance(config, dict):
            raise RunFolderError(f"{file}: is damaged: it holds no config")
        return config

    def append(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a table; floats keep every bit, None and NaN become empty cells.

        Raises StorageError where the disk refuses them; then none of them is there.
        """
        columns = columns_of(table, self._score)
        known, text = set(columns), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            if odd := row.keys() - known:
                raise ValueError(f"{table}: no columns {', '.join(sorted(odd))}")
            writer.writerow([_cell(row.get(column)) for column in columns])
        if content := text.getvalue().encode():
            append_whole(self._table(table), content)

    def rewind(self, round: int, score: Score = ACCURACY) -> None:
        """Cut all tables back to the rows of rounds up to `round`; -1 leaves the header.

        score: what the run is scored by, which names some columns.
        """
        self._score = score
        for table in TABLES:
            columns = columns_of(table, score)
            kept = [line for line in self._lines(table) if _round_of(line) <= round]
            if table == "rounds" and len(kept) < round:
                raise RunFolderError(
                    f"{self._table(table)}: lacks rounds of the {round} that the checkpoint has "
                    "seen; start a new run"
                )
            text = ",".join(columns) + "\n" + "".join(kept)
            write_atomically(self._table(table), text.encode())

    def cut(self) -> None:
        """Cut off the rows of a round that was not written whole. It needs no space on the disk."""
        whole = max([_round_of(line) for line in self._lines("rounds")], default=0)
        for table in TABLES:
            header = self._table(table).read_text().partition("\n")[0] + "\n"
            kept = [line for line in self._lines(table) if _round_of(line) <= whole]
            os.truncate(self._table(table), len((header + "".join(kept)).encode()))

    def _table(self, name: str) -> Path:
        return self.path / f"{name}.csv"

    def _lines(self, table: str) -> list[str]:
        """Return the whole lines of a table below its header; a kill may leave half of one."""
        file = self._table(table)
        lines = file.read_text().splitlines(keepends=True)[1:] if file.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if odd := [line for line in whole if not line.partition(",")[0].isdecimal()]:
            raise RunFolderError(f"{file}: is damaged: no round begins the line {odd[0][:40]!r}")
        return whole

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
        for table in TABLES:  # after a power cut, too, tables have the rounds of the checkpoint
            with refusals(self._table(table)):
                flush(self._table(table))
        write_checkpoint(self._checkpoints / f"round-{round:06d}.safetensors", state)
        for old in sorted(self._checkpoints.glob("round-*.safetensors"))[:-2]:
            old.unlink()

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, None if no round was saved yet.

        A damaged checkpoint is passed over with a warning. Raises RunFolderError if all are
        damaged: a run that has come so far does not silently begin again.
        """
        found = sorted(self._checkpoints.glob("round-*.safetensors"), reverse=True)
        for path in found:
            try:
                return read_checkpoint(path)
            except RunFolderError as error:
                log.warning("%s; taking the checkpoint before it", error)
        if found:
            raise RunFolderError(
                f"{self._checkpoints}: none of {len(found)} checkpoints can be read (run.log says "
                "why); remove them to begin the run again from round 1"
            )
        return None

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"


def columns_of(table: str, score: Score) -> tuple[str, ...]:
    """Return the columns of a table in a run with this score."""
    names = {"accuracy": MEASURED[score.name]}
    names |= {a: (b,) for a, b in zip(ACCURACY.columns, score.columns, strict=True)}
    return tuple(new for old in TABLES[table] for new in names.get(old, (old,)))


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
