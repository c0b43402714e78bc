"""Run an experiment in a folder without the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.execution import execute
from fedtsd.run_folder import TABLES, RunFolder

TIME_COLUMNS = ["seconds"]


class Quiet:
    """An observer that does nothing."""

    def start(self, done: int) -> None:
        return None

    def round(self, row: Mapping[str, Any]) -> None:
        return None

    def stop(self) -> None:
        return None


class StoppedError(Exception):
    """Stands for a kill between two rounds."""


class StopAfter(Quiet):
    """An observer that ends the run after a round."""

    def __init__(self, round: int) -> None:
        self._round = round

    def round(self, row: Mapping[str, Any]) -> None:
        if row["round"] == self._round:
            raise StoppedError


def run_toy(cfg: Config, federation: Federation, path: Path, *observers: Quiet) -> None:
    """Run, or continue what is in the folder."""
    folder = (
        RunFolder(path) if (path / "status.json").exists() else RunFolder.create(path, "x: 0\n")
    )
    execute(cfg, federation, folder, observers)


def run_twice(cfg: Config, federation: Federation, path: Path, stop: int) -> tuple[Path, Path]:
    """Run whole, and once more in two parts with a stop after a round; return both folders."""
    whole, parts = path / "whole", path / "parts"
    run_toy(cfg, federation, whole)
    with pytest.raises(StoppedError):
        run_toy(cfg, federation, parts, StopAfter(stop))
    run_toy(cfg, federation, parts)
    return whole, parts


def tables_of(path: Path) -> dict[str, pd.DataFrame]:
    """Read all tables of a run, without times."""
    return {n: table(path, n).drop(columns=TIME_COLUMNS, errors="ignore") for n in TABLES}


def table(path: Path, name: str) -> pd.DataFrame:
    """Read a table of a run."""
    return pd.read_csv(path / f"{name}.csv")
