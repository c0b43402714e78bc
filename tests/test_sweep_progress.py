import json
import re
from pathlib import Path

import pytest

from fedtsd.cell import Cell
from fedtsd.run_folder import RunFolder
from fedtsd.sweep_progress import SweepProgress, in_words


def cell(place: Path, seed: int, rounds: int = 4) -> Cell:
    return Cell(place / f"cell{seed}", ("x",), (("seed", str(seed)),), rounds)


def begin(cell: Cell, rounds_done: int = 0) -> RunFolder:
    folder = RunFolder.create(cell.folder, "")
    with (cell.folder / "rounds.csv").open("a") as file:
        file.write("1\n" * rounds_done)
    return folder


def finish(cell: Cell, accuracy: float = 0.9) -> None:
    last = {"accuracy_mean": accuracy, "accuracy_worst10": 0.5}
    (cell.folder / "summary.json").write_text(json.dumps({"last": last}))
    RunFolder(cell.folder).set_status("done")


def test_a_line_per_cell_that_ended_and_the_closing_count(tmp_path, capsys) -> None:
    cells = [cell(tmp_path, seed) for seed in range(4)]
    begin(cells[0], 4)
    finish(cells[0])
    changes = []
    with SweepProgress(cells, lambda: changes.append(1)):
        begin(cells[1], 4)
        finish(cells[1], 0.8)
        begin(cells[2]).set_failed(ValueError("no luck"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 cells: 1 done before, 3 to run"
    assert re.match(r"2/4  seed=1   80\.0% \(50\.0\)", lines[1]) or "no luck" in lines[1]
    assert sum("seed=1   80.0% (50.0)" in line for line in lines) == 1
    assert sum("seed=2  failed: ValueError: no luck" in line for line in lines) == 1
    assert lines[-1].startswith("2 of 4 cells done, 1 failed, 1 missing in ")
    assert lines[-1].endswith("; the same command runs the others")
    assert len(changes) >= 2


def test_a_cell_that_had_failed_is_news_only_when_it_ran_again(tmp_path, capsys) -> None:
    cells = [cell(tmp_path, seed) for seed in range(2)]
    for each in cells:
        begin(each).set_failed(ValueError("before"))
    with SweepProgress(cells, lambda: None):
        finish(cells[0])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "seed=" in line] == [lines[1]]
    assert "seed=0" in lines[1]
    assert lines[-1].startswith("1 of 2 cells done, 1 failed")


def test_the_time_left_follows_the_rounds_done_so_far(tmp_path, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("fedtsd.sweep_progress.time.monotonic", lambda: clock[0])
    cells = [cell(tmp_path, seed, rounds=10) for seed in range(3)]
    begin(cells[0], 4)  # 4 of 30 rounds were done in an earlier sitting
    progress = SweepProgress(cells, lambda: None)
    progress._started = clock[0]
    assert progress._left() == ""
    with (cells[0].folder / "rounds.csv").open("a") as file:
        file.write("1\n" * 6)
    clock[0] += 12.0  # 6 rounds took 12 s, 20 are left
    assert progress._left() == "about 40 s left"


def test_nothing_to_run_is_said(tmp_path, capsys) -> None:
    only = cell(tmp_path, 0)
    begin(only, 4)
    finish(only)
    with SweepProgress([only], lambda: None):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 cell: 1 done before, 0 to run"
    assert lines[-1].startswith("1 of 1 cells done in")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (34, "34 s"),
        (99, "99 s"),
        (120, "2 min"),
        (5900, "98 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_regression_is_told_by_its_error(tmp_path, capsys) -> None:
    cells = [cell(tmp_path, 0)]
    with SweepProgress(cells, lambda: None):
        begin(cells[0], 4)
        last = {"mae_mean": 43.21, "mae_worst10": 61.08}
        summary = {"metric": "mae", "last": last}
        (cells[0].folder / "summary.json").write_text(json.dumps(summary))
        RunFolder(cells[0].folder).set_status("done")
    assert "seed=0    43.2 (61.1)" in capsys.readouterr().err
