"""What a search found: a row per trial, the best one, and the two files that hold them."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fedtsd.checkpoint import write_atomically
from fedtsd.errors import RunFolderError

RULE = (
    "chosen by validation accuracy of the served model in the last round, mean over clients and "
    "seeds; test accuracy played no part in the choice"
)


@dataclass(frozen=True)
class Row:
    """A trial that has ended: the texts of its keys, and a validation accuracy (0..1) or an error.

    accuracies: one per seed. folders: one per seed, relative to the search's folder.
    """

    number: int
    texts: Mapping[str, str]
    accuracies: tuple[float, ...]
    folders: tuple[str, ...]
    error: str

    @property
    def accuracy(self) -> float | None:
        """Mean over seeds; None if the trial failed."""
        return None if self.error else float(np.mean(self.accuracies))


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the row of highest validation accuracy, the earliest of several; None if none is."""
    finished = [row for row in rows if row.accuracy is not None]
    return max(finished, key=lambda row: row.accuracy or 0.0, default=None)


def validation_accuracy(run: Path) -> float:
    """Return the served model's accuracy on validation data in the last round, mean over clients.

    Raises RunFolderError if no client has validation data.
    """
    clients = pd.read_csv(run / "clients.csv")
    rows = clients[
        (clients["round"] == clients["round"].max())
        & (clients["stage"] == _summary(run)["stage"])
        & (clients["split"] == "val")
    ]
    if rows.empty:
        raise RunFolderError(f"{run}: no client has validation data")
    return float(rows["accuracy"].mean())


def accuracy_on_test(runs: Sequence[Path]) -> float:
    """Return the test accuracy of the last round, mean over clients and runs, from summary.json."""
    return float(np.mean([_summary(run)["last"]["accuracy_mean"] for run in runs]))


def command(fixed: Sequence[str], row: Row, seeds: Sequence[int]) -> str:
    """Return the command line that runs a trial's setting, over all seeds of the search."""
    many = ["-m"] if len(seeds) > 1 else []
    texts = [f"{key}={text}" for key, text in row.texts.items()]
    seed = f"seed={','.join(map(str, seeds))}"
    return shlex.join(["fedtsd", "train", *many, *fixed, *texts, seed])


def write_trials(folder: Path, keys: Sequence[str], rows: Sequence[Row]) -> None:
    """Write trials.csv: number, state, validation accuracy, the keys, the folders, the error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_accuracy", *keys, "folders", "error"])
    for row in rows:
        state, accuracy = ("failed", "") if row.error else ("finished", repr(row.accuracy))
        values = [row.texts[key] for key in keys]
        writer.writerow([row.number, state, accuracy, *values, " ".join(row.folders), row.error])
    write_atomically(folder / "trials.csv", text.getvalue().encode())


def write_best(
    folder: Path, best: Row, line: str, seeds: Sequence[int], importance: Mapping[str, float]
) -> None:
    """Write best.yaml; `line` is the command that runs the best trial's setting again."""
    content: dict[str, Any] = {
        "rule": RULE,
        "trial": best.number,
        "parameters": {key: yaml.safe_load(text) for key, text in best.texts.items()},
        "seeds": list(seeds),
        "validation_accuracy": best.accuracy,
        "test_accuracy": accuracy_on_test([folder / run for run in best.folders]),
        "command": line,
        "folders": list(best.folders),
        "importance": {key: round(share, 3) for key, share in importance.items()},
    }
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    write_atomically(folder / "best.yaml", text.encode())


def _summary(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary
