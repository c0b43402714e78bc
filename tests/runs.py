"""Run an experiment in a folder without the command line."""

from pathlib import Path
from typing import Any

import pandas as pd

from fedtsd import experiment
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.run_folder import RunFolder

TIME_COLUMNS = ["seconds"]


class Quiet:
    """A progress display that shows nothing."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def round(self, row: dict[str, Any]) -> None:
        return None


def run_toy(cfg: Config, federation: Federation, path: Path, progress: Any = None) -> None:
    """Run, or continue what is in the folder."""
    folder = (
        RunFolder(path) if (path / "status.json").exists() else RunFolder.create(path, "x: 0\n")
    )
    original = experiment.Progress
    experiment.Progress = lambda *_: progress or Quiet()
    try:
        experiment.execute(cfg, federation, folder)
    finally:
        experiment.Progress = original


def table(path: Path, name: str) -> pd.DataFrame:
    """Read a table of a run."""
    return pd.read_csv(path / f"{name}.csv")
