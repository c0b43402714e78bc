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
import yaml

from fedtsd.disk import write_atomically
from fedtsd.errors import RunFolderError
from fedtsd.score import Score

RULE = (
    "chosen by validation {noun} of the served model in the last round, mean over clients and "
    "seeds; test {noun} played no part in the choice"
)


@dataclass(frozen=True)
class Row:
    """A trial that has ended: the texts of its keys, and a validation score as stored, or an error.

    scores: one per seed. folders: one per seed, relative to the search's folder.
    """

    number: int
    texts: Mapping[str, str]
    scores: tuple[float, ...]
    folders: tuple[str, ...]
    error: str

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None if the trial failed."""
        return None if self.error else float(np.mean(self.scores))


def best_of(rows: Sequence[Row], score: Score) -> Row | None:
    """Return the row of the best validation score, the earliest of several; None if none is."""
    finished = [row for row in rows if row.mean is not None]
    return max(finished, key=lambda row: score.merit(row.mean or 0.0), default=None)


def validation_score(run: Path, score: Score) -> float:
    """Return the served model's score on validation data in the last round, mean over clients.

    Raises RunFolderError if no client has validation data.
    """
    found = _summary(run)["last"][score.validation]
    if found is None:
        raise RunFolderError(f"{run}: no client has validation data")
    return float(found)


def score_on_test(runs: Sequence[Path], score: Score) -> float:
    """Return the test score of the last round, mean over clients and runs, from summary.json."""
    return float(np.mean([_summary(run)["last"][score.mean] for run in runs]))


def command(fixed: Sequence[str], row: Row, seeds: Sequence[int]) -> str:
    """Return the command line that runs a trial's setting, over all seeds of the search."""
    many = ["-m"] if len(seeds) > 1 else []
    texts = [f"{key}={text}" for key, text in row.texts.items()]
    seed = f"seed={','.join(map(str, seeds))}"
    return shlex.join(["fedtsd", "train", *many, *fixed, *texts, seed])


def write_trials(folder: Path, keys: Sequence[str], rows: Sequence[Row], score: Score) -> None:
    """Write trials.csv: number, state, validation score, the keys, the folders, the error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", f"validation_{score.name}", *keys, "folders", "error"])
    for row in rows:
        state, mean = ("failed", "") if row.error else ("finished", repr(row.mean))
        values = [row.texts[key] for key in keys]
        writer.writerow([row.number, state, mean, *values, " ".join(row.folders), row.error])
    write_atomically(folder / "trials.csv", text.getvalue().encode())


def write_best(
    folder: Path,
    best: Row,
    line: str,
    seeds: Sequence[int],
    importance: Mapping[str, float],
    score: Score,
) -> None:
    """Write best.yaml; `line` is the command that runs the best trial's setting again."""
    content: dict[str, Any] = {
        "rule": RULE.format(noun=score.noun),
        "trial": best.number,
        "parameters": {key: yaml.safe_load(text) for key, text in best.texts.items()},
        "seeds": list(seeds),
        f"validation_{score.name}": best.mean,
        f"test_{score.name}": score_on_test([folder / run for run in best.folders], score),
        "command": line,
        "folders": list(best.folders),
        "importance": {key: round(share, 3) for key, share in importance.items()},
    }
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    write_atomically(folder / "best.yaml", text.encode())


def _summary(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary
