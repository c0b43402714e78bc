"""A sitting runs what is missing, in processes that end nothing but themselves."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from fedtsd.cell import Cell
from fedtsd.study import sitting
from fedtsd.study.plan import Job, composed_cells
from fedtsd.study.sitting import Sitting, extend_plan, read_cells
from tests.study.made_up import cell

QUICK = ("method=fedavg", "rounds=2", "partition.num_clients=8", "model.hidden=[8]")


def work_of(folder: Path, *lrs: str, seeds: tuple[int, ...] = (0,)):
    jobs = [
        Job((("method", f"lr {lr}"), ("seed", str(seed))), (*QUICK, f"training.lr={lr}"), seed)
        for seed in seeds
        for lr in lrs
    ]
    return composed_cells(jobs, folder)


def states(folder: Path) -> list[str]:
    return [one.state for one in read_cells(folder)]


def test_a_failed_cell_leaves_the_others_alone_and_is_not_run_again(tmp_path, capsys) -> None:
    work = work_of(tmp_path, "0.05", "1e30", "0.1")
    assert Sitting(2).run(work, tmp_path)
    assert states(tmp_path) == ["done", "failed", "done"]
    told = capsys.readouterr().err
    assert "3 cells, 0 done before" in told
    assert "lr 1e30 0  failed: " in told
    when = [one.status["updated"] for one, _ in work]
    assert Sitting(2).run(work, tmp_path)
    assert [one.status["updated"] for one, _ in work] == when
    assert Sitting(1, again=True).run(work, tmp_path)
    assert [one.status["updated"] == then for (one, _), then in zip(work, when, strict=True)] == [
        True, False, True,
    ]  # fmt: skip


def test_a_cell_does_not_wait_for_threads_that_a_fork_lacks(tmp_path, monkeypatch) -> None:
    def on_all_cores() -> None:
        torch.nn.functional.conv2d(torch.ones(64, 8, 32, 32), torch.ones(16, 8, 5, 5)).exp_()

    def compute(cfg, path: Path) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # ends a process that hangs
        on_all_cores()
        path.mkdir(parents=True)
        (path / "status.json").write_text(json.dumps({"state": "failed", "error": "came so far"}))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        on_all_cores()
        monkeypatch.setattr(sitting, "carry_out_cell", compute)
        ((one, _),) = work = work_of(tmp_path, "0.05")
        assert Sitting(1).run(work, tmp_path)
    finally:
        torch.set_num_threads(before)
    assert one.status["error"] == "came so far"


def test_cells_of_two_sittings_are_one_plan(tmp_path) -> None:
    assert Sitting(2).run(work_of(tmp_path, "0.05", "0.1"), tmp_path)
    assert Sitting(2).run(work_of(tmp_path, "0.1", "0.2"), tmp_path)
    assert [dict(one.values)["method"] for one in read_cells(tmp_path)] == [
        "lr 0.05", "lr 0.1", "lr 0.2",
    ]  # fmt: skip
    assert states(tmp_path) == ["done"] * 3
    rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(rows) == 4


def test_the_number_of_cells_at_once_changes_no_result(tmp_path) -> None:
    tables = []
    for jobs in (1, 3):
        folder = tmp_path / str(jobs)
        work = work_of(folder, "0.05", "0.1", seeds=(0, 1))
        assert Sitting(jobs).run(work, folder)
        tables.append([(one.folder / "clients.csv").read_bytes() for one, _ in work])
    assert tables[0] == tables[1]
    assert len(set(tables[0])) == 4


def test_when_the_time_is_over_no_cell_is_started(tmp_path, capsys) -> None:
    work = work_of(tmp_path, "0.05", "0.1")
    assert not Sitting(2, until=time.monotonic()).run(work, tmp_path)
    assert states(tmp_path) == ["missing", "missing"]
    assert "the time is over: 2 cells are left" in capsys.readouterr().err


def test_a_cell_whose_process_dies_has_failed(tmp_path, monkeypatch) -> None:
    def die(cfg, path: Path) -> None:
        path.mkdir(parents=True)
        (path / "status.json").write_text(json.dumps({"state": "running"}))
        if cfg.training.lr == 0.1:
            os.kill(os.getpid(), signal.SIGKILL)
        (path / "status.json").write_text(json.dumps({"state": "failed", "error": "mine"}))

    monkeypatch.setattr(sitting, "carry_out_cell", die)
    work = work_of(tmp_path, "0.05", "0.1")
    assert Sitting(2).run(work, tmp_path)
    assert [one.status["error"].split(":")[0] for one, _ in work] == [
        "mine", "the process that ran it ended without a word",
    ]  # fmt: skip


def test_an_interrupt_ends_all_cells_and_the_plan_is_there(tmp_path, monkeypatch) -> None:
    def endless(cfg, path: Path) -> None:
        path.mkdir(parents=True)
        (path / "status.json").write_text(json.dumps({"state": "running"}))
        time.sleep(60)

    def interrupt(sentinels) -> None:
        while not all(one.state == "running" for one, _ in work):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(sitting, "carry_out_cell", endless)
    monkeypatch.setattr(sitting, "wait", interrupt)
    work = work_of(tmp_path, "0.05", "0.1")
    with pytest.raises(KeyboardInterrupt):
        Sitting(2).run(work, tmp_path)
    assert states(tmp_path) == ["interrupted", "interrupted"]
    assert (tmp_path / "summary.csv").is_file()


def test_a_plan_keeps_one_cell_per_values(tmp_path) -> None:
    old = cell(tmp_path, ["a=1"], method="fedavg", seed=0)
    new = Cell(tmp_path / "elsewhere", ("a=2",), old.values, 20)
    other = cell(tmp_path, ["a=1"], method="fedper", seed=0)
    extend_plan(tmp_path, [old, other])
    assert extend_plan(tmp_path, [new]) == [new, other]
    assert read_cells(tmp_path) == [new, other]
    assert read_cells(tmp_path / "nothing") == []


def test_jobs_are_checked() -> None:
    with pytest.raises(ValueError, match="jobs: must be at least 1, got 0"):
        Sitting(0)
