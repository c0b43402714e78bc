"""TensorBoard: event files that `tensorboard --logdir` shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtsd.observer import Observer
from fedtsd.trackers.tracker import Guarded, ending, numbers, parameters, require, run_id


@dataclass(frozen=True)
class TensorBoard:
    """folder: the log directory shared by several runs, or null for a folder inside the run's."""

    folder: str | None

    def check(self) -> None:
        """Raise ValueError if tensorboard is missing."""
        require("tensorboard", extra="tensorboard")

    def open(self, config: Mapping[str, Any], folder: Path) -> Observer:
        """Record as scalars and hyper-parameters, in `tensorboard/` of the run's folder."""
        place = folder / "tensorboard"
        if self.folder is not None:
            place = Path(self.folder) / f"{folder.name}-{run_id(folder)}"
        return Guarded("tensorboard", _Record(parameters(config), place.absolute()))


class _Record:
    def __init__(self, config: dict[str, Any], place: Path) -> None:
        self._config = config
        self._place = place
        self._writer: Any = None
        self._round = 0

    def start(self, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # Rounds after the checkpoint are run again; TensorBoard then hides their first record.
        purge = done + 1 if self._place.exists() else None
        self._round = done
        self._writer = SummaryWriter(str(self._place), purge_step=purge)
        *begin, self._end = hparams(self._config, {})  # type: ignore[no-untyped-call]
        for summary in begin:
            self._writer.file_writer.add_summary(summary)

    def round(self, row: Mapping[str, Any]) -> None:
        self._round = int(row["round"])
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, self._round)

    def stop(self) -> None:
        if self._writer is None:
            return
        self._writer.add_text("status", ending(), self._round)
        if ending() == "done":
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()
