"""Sweeps as people run them: cells in folders, what is run again, launchers."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.cell import Cell, write_plan, write_summary
from fedtsd.cli import main
from fedtsd.data.dataset import Digits
from fedtsd.errors import ConfigError
from fedtsd.loading import _load_arrays
from fedtsd.run_folder import TABLES, RunFolder
from fedtsd.sweep import DIED, cores_per_cell, planned, settle, sweep_folder
from tests.runs import TIME_COLUMNS

QUICK = ["rounds=2", "partition.num_clients=8", "model.hidden=[8]"]
SWEEP = ["train", "-m", "method=fedavg", "training.lr=0.05,1e30", "seed=0,1", *QUICK]


def the_folder(outputs: Path) -> Path:
    (folder,) = (outputs / "outputs/sweeps").iterdir()
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def cells_of(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob("*/clients.csv")]
    assert found
    return found


def begun(folder: Path) -> dict[str, str]:
    return {
        p.parent.name: json.loads(p.read_text())["updated"] for p in folder.glob("*/status.json")
    }


def test_failed_cells_leave_the_others_alone_and_the_exit_code_tells(outputs, capsys) -> None:
    assert main(SWEEP) == 1
    captured = capsys.readouterr()
    folder = the_folder(outputs)
    assert captured.out == f"{folder.relative_to(outputs)}\n"
    rows = rows_of(folder)
    assert [(r["training.lr"], r["seed"], r["state"]) for r in rows] == [
        ("0.05", "0", "done"),
        ("0.05", "1", "done"),
        ("1e+30", "0", "failed"),
        ("1e+30", "1", "failed"),
    ]
    for row in rows:
        status = json.loads((folder / row["folder"] / "status.json").read_text())
        assert row["state"] == status["state"]
        if row["state"] == "failed":
            assert "try a smaller training.lr" in row["error"]
            assert "Traceback" in status["traceback"]
        else:
            summary = json.loads((folder / row["folder"] / "summary.json").read_text())
            assert float(row["accuracy_mean"]) == summary["last"]["accuracy_mean"]
    assert "2 of 4 cells done, 2 failed" in captured.err
    assert captured.err.count("training.lr=0.05 seed=") == 2  # one line per cell


def test_the_same_command_runs_only_what_is_not_done(outputs, capsys) -> None:
    assert main(SWEEP) == 1
    folder = the_folder(outputs)
    first = begun(folder)
    assert main(SWEEP) == 1
    assert "4 cells: 2 done before, 2 to run" in capsys.readouterr().err
    again = begun(folder)
    failed = {r["folder"] for r in rows_of(folder) if r["state"] == "failed"}
    assert {name for name in first if first[name] != again[name]} == failed


def test_more_values_extend_a_sweep_and_fewer_leave_the_rest_out(outputs, capsys) -> None:
    assert main(["train", "-m", "method=fedavg", "seed=0,1", *QUICK]) == 0
    folder = the_folder(outputs)
    assert main(["train", "-m", "method=fedavg", "seed=0,1,2", *QUICK]) == 0
    assert the_folder(outputs) == folder
    assert "3 cells: 2 done before, 1 to run" in capsys.readouterr().err
    assert [row["seed"] for row in rows_of(folder)] == ["0", "1", "2"]
    assert main(["train", "-m", "method=fedavg", "seed=0,2", *QUICK]) == 0
    assert [row["seed"] for row in rows_of(folder)] == ["0", "2"]
    assert len(begun(folder)) == 3  # nothing was removed


def test_other_fixed_values_are_another_sweep(outputs) -> None:
    one = sweep_folder(["method=fedavg,local", "rounds=2"], [])
    assert one == sweep_folder(["rounds=2", "method=fedavg,local,fedper"], [])
    assert one != sweep_folder(["method=fedavg,local", "rounds=3"], [])
    assert one != sweep_folder(["method=fedavg,local", "rounds=2", "seed=0,1"], [])
    assert sweep_folder(["seed=0,1"], ["hydra.sweep.dir=mine"]) == Path("mine")


def test_combinations_that_come_to_one_config_are_one_cell(tmp_path) -> None:
    cells = planned(["partition.alpha=0.1,0.10", "seed=0,1"], tmp_path)
    assert len(cells) == 2


def test_a_cell_is_named_by_what_changes_its_result(tmp_path) -> None:
    def name(*overrides: str) -> str:
        (cell,) = planned(list(overrides), tmp_path)
        return cell.folder.name

    assert name("seed=1") == name("seed=1", "checkpoint_every=2", "data.root=/elsewhere")
    assert name("seed=1").startswith("fedtsdp-digits-seed1-")
    assert len({name(f"training.lr={lr}") for lr in (0.1, 0.2, 0.3)}) == 3


def test_a_recipe_says_what_is_swept_and_the_command_line_wins(outputs, monkeypatch) -> None:
    from fedtsd.sweep import _recipe

    found = dict(o.split("=", 1) for o in _recipe([], ["experiment=paper_groups"]))
    assert found == {"method": "local,fedavg,fedtsdp", "seed": "0,1,2"}
    args = [
        "train",
        "-m",
        "experiment=paper_groups",
        "dataset=digits",
        "~dataset.pool",
        "method=local",
    ]
    small = ["partition.samples_per_client=20", "seed=3", "model=mlp", "rounds=1"]
    assert main([*args, *small, "method=local"]) == 0
    (row,) = rows_of(the_folder(outputs))
    assert row["folder"].startswith("local-digits-seed3")


def test_data_are_loaded_once_for_all_cells(outputs, monkeypatch) -> None:
    calls = []
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, root: calls.append(1) or load(self, root))
    _load_arrays.cache_clear()
    assert main(["train", "-m", "method=fedavg", "seed=0,1,2", *QUICK]) == 0
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["seed=0,1", "partition.alpha=0.1,-1"], "partition.alpha: must be above 0, got -1"),
        (["training.lr=interval(0.1,1)"], "training.lr=interval(0.1,1): a range without steps"),
        (["seed=0,1", "hydra/launcher=slurm"], "hydra/launcher: 'slurm' is unknown"),
        (["seed=0,1", "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs"),
    ],
)
def test_wrong_sweeps_are_refused_in_one_line(args, message, outputs, capsys) -> None:
    assert main(["train", "-m", *args, *QUICK]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(outputs.iterdir()) == []


def test_a_launcher_without_its_extra_names_it() -> None:
    from hydra.errors import MissingConfigException

    from fedtsd.compose import explain

    error = MissingConfigException("Could not find 'hydra/launcher/submitit_slurm'", "x")
    assert str(explain(error)) == (
        "hydra/launcher: submitit_slurm needs: pip install 'fedtsd[submitit]'"
    )


def test_plan_and_summary_of_cells_never_begun(tmp_path) -> None:
    cells = [
        Cell(tmp_path / "a", ("seed=0",), (("seed", "0"),), 3),
        Cell(tmp_path / "b", ("seed=1",), (("seed", "1"),), 3),
    ]
    (tmp_path / "b").mkdir()
    write_plan(tmp_path, cells)
    write_summary(tmp_path, cells)
    plan = json.loads((tmp_path / "sweep.json").read_text())
    assert plan["cells"][1] == {
        "folder": "b",
        "overrides": ["seed=1"],
        "values": {"seed": "1"},
        "rounds": 3,
    }
    assert [(r["seed"], r["state"], r["folder"]) for r in rows_of(tmp_path)] == [
        ("0", "missing", "a"),
        ("1", "missing", "b"),
    ]


def test_a_cell_whose_process_died_has_failed(tmp_path) -> None:
    cell = Cell(tmp_path, (), (), 3)
    RunFolder.create(tmp_path, "")
    with RunFolder(tmp_path).lock():
        assert cell.is_running
        assert settle([cell], "failed") == []
    assert settle([cell], "failed") == [cell]
    assert (cell.state, cell.status["error"]) == ("failed", DIED)
    assert settle([cell], "failed") == []


def processes(outputs: Path, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fedtsd", *args]
    return subprocess.Popen(
        command, cwd=outputs, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_cell_that_another_process_runs_is_left_alone(outputs, capsys) -> None:
    args = ["train", "-m", "method=fedavg", "seed=0,1", *QUICK, "hydra.sweep.dir=sweep"]
    first, _ = planned(["method=fedavg", "seed=0,1", *QUICK], Path("sweep"))
    RunFolder.create(first.folder, "")
    with RunFolder(first.folder).lock():
        assert main(args) == 1
    assert [row["state"] for row in rows_of(outputs / "sweep")] == ["running", "done"]


def finish(process: subprocess.Popen, code: int) -> str:
    """Wait for the end and return what was said on stderr."""
    _, said = process.communicate()
    assert process.returncode == code, said
    return said


def wait_for(condition, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_sweep_goes_on_to_the_same_tables(outputs) -> None:
    args = ["train", "-m", "method=fedtsdp", "seed=0,1", "rounds=8", "checkpoint_every=2"]
    finish(processes(outputs, *args, "hydra.sweep.dir=whole"), 0)
    killed = processes(outputs, *args, "hydra.sweep.dir=parts")
    counts = lambda: [p.read_text().count("\n") for p in outputs.glob("parts/*/rounds.csv")]  # noqa: E731
    wait_for(lambda: len(counts()) == 2 and min(counts()) > 3)  # in the second cell
    killed.kill()
    killed.communicate()
    assert sorted(RunFolder(p).status()["state"] for p in cells_of(outputs / "parts")) == [
        "done",
        "running",
    ]
    assert "2 cells: 1 done before, 1 to run" in finish(
        processes(outputs, *args, "hydra.sweep.dir=parts"), 0
    )
    for cell in cells_of(outputs / "whole"):
        for name in TABLES:
            parts = [
                pd.read_csv(outputs / w / cell.name / f"{name}.csv") for w in ("whole", "parts")
            ]
            kept = [part.drop(columns=TIME_COLUMNS, errors="ignore") for part in parts]
            pd.testing.assert_frame_equal(*kept, check_exact=True)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_give_the_tables_of_the_basic_one(launcher: str, outputs) -> None:
    args = ["train", "-m", "method=fedavg,fedtsdp", *QUICK]
    assert main([*args, "hydra.sweep.dir=basic"]) == 0
    said = finish(
        processes(outputs, *args, "hydra.sweep.dir=other", f"hydra/launcher={launcher}"), 0
    )
    assert "2 of 2 cells done" in said
    for cell in cells_of(outputs / "basic"):
        texts = [(outputs / w / cell.name / "clients.csv").read_text() for w in ("basic", "other")]
        assert texts[0] == texts[1]


def test_a_dead_worker_costs_no_cell_and_a_second_death_just_its_own(outputs) -> None:
    args = ["train", "-m", "method=fedavg", "seed=0,1,2", "partition.num_clients=8", "rounds=60"]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    process = processes(outputs, *args, *parallel)
    tables = lambda: outputs.glob("sweep/*/rounds.csv")  # noqa: E731
    wait_for(lambda: any(path.read_text().count("\n") > 7 for path in tables()))
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    assert "the launcher broke down" in finish(process, 0)
    assert [row["state"] for row in rows_of(outputs / "sweep")] == ["done"] * 3


def workers_of(pid: int) -> list[int]:
    """Child processes that run a loky worker (not its resource tracker)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if "popen_loky" in Path(f"/proc/{child}/cmdline").read_text()
    ]


def test_ctrl_c_stops_a_sweep_and_says_what_is_left(outputs) -> None:
    args = ["train", "-m", "method=fedavg", "seed=0,1", "rounds=500", "hydra.sweep.dir=sweep"]

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        [sys.executable, "-m", "fedtsd", *args],
        cwd=outputs, stderr=subprocess.PIPE, text=True, preexec_fn=listen,
    )  # fmt: skip
    wait_for(lambda: any(p.stat().st_size > 400 for p in outputs.glob("sweep/*/rounds.csv")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 of 2 cells done, 1 interrupted, 1 missing" in said
    assert [row["state"] for row in rows_of(outputs / "sweep")] == ["interrupted", "missing"]


def test_composing_names_the_swept_key() -> None:
    from fedtsd.compose import cells, last_given, swept_keys

    assert swept_keys(["seed=0,1", "rounds=3", "method=a,b"]) == ["seed", "method"]
    assert cells(["seed=0,1", "method=a,b"])[1] == ["seed=0", "method=b"]
    assert last_given(["seed=0,1", "rounds=3", "seed=2"]) == ["seed=2", "rounds=3"]
    with pytest.raises(ConfigError, match="search it with fedtsd search"):
        cells(["training.lr=interval(0.1,1)"])


def test_cells_that_run_at_once_share_the_cores() -> None:
    assert cores_per_cell({}, 8) == 8  # one after the other
    assert cores_per_cell({"n_jobs": -1}, 8) == 1
    assert cores_per_cell({"n_jobs": 3}, 8) == 2
    assert cores_per_cell({"n_jobs": 16}, 8) == 1
    assert cores_per_cell({"cpus_per_task": None}, 8) == 1
    assert cores_per_cell({"cpus_per_task": 4}, 8) == 4
