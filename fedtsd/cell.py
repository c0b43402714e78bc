"""The cells of a sweep as its folder keeps them: sweep.json is the plan, summary.csv the state."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtsd.disk import write_atomically
from fedtsd.run_folder import RunFolder
from fedtsd.score import ACCURACY, SCORES, Score, score_of

PLAN = "sweep.json"
COSTS = ("bytes_up", "bytes_down", "seconds")
ENDED = ("done", "failed", "interrupted")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its folder, its overrides, the values of the swept keys, its rounds."""

    folder: Path
    overrides: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    rounds: int

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says; state `missing` if the cell was never begun."""
        return {"state": "missing", **RunFolder(self.folder).status()}

    @property
    def state(self) -> str:
        """missing, running, interrupted, failed or done."""
        return str(self.status["state"])

    @property
    def done(self) -> bool:
        """Whether the cell has its result."""
        return self.state == "done"

    @property
    def is_running(self) -> bool:
        """Whether some process is at work on it now, whatever its status says."""
        return RunFolder(self.folder).is_locked

    @property
    def rounds_done(self) -> int:
        """Rounds that its table has."""
        try:
            lines = (self.folder / "rounds.csv").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0
        return max(lines - 1, 0)

    def summary(self) -> dict[str, Any]:
        """Return summary.json, empty before the run is done."""
        path = self.folder / "summary.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return found


def write_plan(folder: Path, plan: Iterable[Cell]) -> None:
    """Write sweep.json: what the sweep consists of, whether it was run or not."""
    cells = [
        {
            "folder": cell.folder.name,
            "overrides": list(cell.overrides),
            "values": dict(cell.values),
            "rounds": cell.rounds,
        }
        for cell in plan
    ]
    text = json.dumps({"cells": cells}, indent=1) + "\n"
    write_atomically(folder / PLAN, text.encode())


def read_plan(text: str, folder: Path) -> list[Cell]:
    """Return the cells that the content of a sweep.json names, in `folder`."""
    return [
        Cell(
            folder / Path(cell["folder"]).name,
            tuple(cell["overrides"]),
            tuple(cell["values"].items()),
            cell["rounds"],
        )
        for cell in json.loads(text)["cells"]
    ]


def write_summary(folder: Path, plan: Iterable[Cell]) -> None:
    """Write summary.csv: one row per cell with the values of the swept keys, state and result."""
    plan = list(plan)
    keys = list(dict.fromkeys(key for cell in plan for key, _ in cell.values))
    facts = [_facts(cell) for cell in plan]
    known = {name for row in facts for name in row}
    scores = [score for score in SCORES.values() if score.mean in known] or [ACCURACY]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*keys, *_columns(scores)], lineterminator="\n", restval="")
    writer.writeheader()
    for cell, row in zip(plan, facts, strict=True):
        writer.writerow({**dict(cell.values), **row})
    write_atomically(folder / "summary.csv", text.getvalue().encode())


def _columns(scores: Iterable[Score]) -> list[str]:
    """The columns beside the swept keys; of results, those of the scores that the cells have."""
    last = [column for score in scores for column in score.columns]
    best = [f"best_by_validation_{score.name}" for score in scores]
    return ["state", *last, "best_by_validation_round", *best, *COSTS, "folder", "error"]


def _facts(cell: Cell) -> dict[str, Any]:
    status = cell.status
    facts = {"state": status["state"], "folder": cell.folder.name, "error": status.get("error")}
    if status["state"] != "done":
        return facts
    summary = cell.summary()
    score, last, best = score_of(summary), summary["last"], summary["best_by_validation"] or {}
    return {
        **facts,
        **{column: last[column] for column in score.columns},
        "best_by_validation_round": best.get("round"),
        f"best_by_validation_{score.name}": best.get(score.mean),
        **{key: summary[key] for key in COSTS},
    }
