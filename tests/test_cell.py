import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedtsd.cell import Cell, write_summary
from fedtsd.run_folder import RunFolder
from fedtsd.score import ACCURACY, MAE, Score

COSTS = {"bytes_up": 10, "bytes_down": 20, "seconds": 1.5}


def finished(root: Path, name: str, score: Score, mean: float) -> Cell:
    """A finished cell; an old one, scored by accuracy, does not say so."""
    RunFolder.create(root / name, "x: 0\n")
    last: dict[str, Any] = dict(zip(score.columns, (mean, 0.1, 0.3), strict=True))
    summary: dict[str, Any] = {"last": last, "best_by_validation": {"round": 2, score.mean: 0.5}}
    summary |= COSTS | ({} if score is ACCURACY else {"metric": score.name})
    (root / name / "summary.json").write_text(json.dumps(summary))
    RunFolder(root / name).set_status("done")
    return Cell(root / name, (), (("kind", name),), 3)


@pytest.mark.parametrize("score", [ACCURACY, MAE])
def test_a_summary_has_the_columns_of_its_score(tmp_path: Path, score: Score) -> None:
    waiting = Cell(tmp_path / "b", (), (("kind", "b"),), 3)
    write_summary(tmp_path, [finished(tmp_path, "a", score, 0.4), waiting])
    table = pd.read_csv(tmp_path / "summary.csv").set_index("kind")
    assert list(table.columns) == [
        "state", *score.columns, "best_by_validation_round", f"best_by_validation_{score.name}",
        *COSTS, "folder", "error",
    ]  # fmt: skip
    assert table.loc["a", list(score.columns)].tolist() == [0.4, 0.1, 0.3]
    assert table.loc["a", f"best_by_validation_{score.name}"] == 0.5
    assert table.loc["b", "state"] == "missing"


def test_cells_that_are_scored_otherwise_have_columns_of_their_own(tmp_path: Path) -> None:
    cells = [finished(tmp_path, "a", ACCURACY, 0.4), finished(tmp_path, "b", MAE, 7.0)]
    write_summary(tmp_path, cells)
    table = pd.read_csv(tmp_path / "summary.csv").set_index("kind")
    assert table["accuracy_mean"].dropna().to_dict() == {"a": 0.4}
    assert table["mae_mean"].dropna().to_dict() == {"b": 7.0}
