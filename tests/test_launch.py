"""Runs that cannot go on: full and read-only disks, two processes, damaged checkpoints."""

import ctypes
import errno
import json
import os
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path

import pytest

from fedtsd import launch
from fedtsd.cli import main
from fedtsd.compose import composed
from fedtsd.loading import load_federation
from fedtsd.run_folder import TABLES, RunFolder
from tests.runs import table, tables_of

QUICK = ["rounds=8", "checkpoint_every=2", "partition.num_clients=8", "model.hidden=[8]"]
RUN = ["train", "method=fedavg", *QUICK]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither figures, which take most of the time, nor handlers of signals."""
    monkeypatch.setattr(launch, "_draw", lambda _: None)
    monkeypatch.setattr(launch.SIGNALS, "listen", lambda: None)


def process(*args: str, cwd: Path, limit: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-m", "fedtsd", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=limit)


def whole_rounds(folder: Path) -> int:
    """Return how many rounds are in the tables; all tables must have the same ones."""
    seen = {name: table(folder, name)["round"] for name in ("rounds", "clients", "traffic")}
    for name in TABLES:
        assert (folder / f"{name}.csv").read_bytes().endswith(b"\n")
    assert len({tuple(sorted(set(rounds))) for rounds in seen.values()}) == 1
    return len(seen["rounds"])


def same_tables(one: Path, other: Path) -> None:
    for name, found in tables_of(one).items():
        assert found.equals(tables_of(other)[name]), name


def test_a_file_that_may_not_grow_ends_a_run_that_can_be_resumed(outputs) -> None:
    """A limit of the system on the size of files, which the table of clients reaches first."""
    resource = pytest.importorskip("resource")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (7000, 7000))
    done = process(*RUN, "hydra.run.dir=run", cwd=outputs, limit=limit)
    assert done.returncode == 1, done.stderr
    *rounds, line = done.stderr.splitlines()
    assert all(said.startswith("round ") for said in rounds)
    assert "/run/clients.csv: File too large; with that mended continue with: " in line
    assert line.endswith(f"fedtsd train resume={outputs / 'run'}")
    assert whole_rounds(outputs / "run") == len(rounds) > 2
    assert RunFolder(outputs / "run").status()["state"] == "failed"
    assert main(["train", "resume=run"]) == 0
    assert RunFolder(outputs / "run").status().keys() == {"state", "updated", "started"}
    assert main([*RUN, "hydra.run.dir=whole"]) == 0
    same_tables(outputs / "run", outputs / "whole")


@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_disk_without_any_space_ends_a_run_that_can_be_resumed(
    after: int, outputs, capsys, monkeypatch
) -> None:
    """From a round on nothing can be written, not even that it cannot."""
    rounds, fsync = outputs / "run/rounds.csv", os.fsync

    def full(place: int) -> None:
        if rounds.exists() and rounds.read_bytes().count(b"\n") > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main([*RUN, "hydra.run.dir=run"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "No space left on device" in said[-1]
    assert [line for line in said[:-1] if not line.startswith("round ")] == []
    assert not list((outputs / "run").rglob(".*.writing"))
    if after:  # else it had not even begun, and the same command begins it
        assert whole_rounds(outputs / "run") >= after
        assert f"fedtsd train resume={outputs / 'run'}" in said[-1]
    again = ["train", "resume=run"] if after else [*RUN, "hydra.run.dir=run"]
    assert main(again) == 0
    assert whole_rounds(outputs / "run") == 8


def not_almighty() -> None:
    """Let the superuser, too, be refused what file modes forbid (PR_CAPBSET_DROP)."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.mark.parametrize("again", [False, True])
def test_a_read_only_folder_is_one_line(again: bool, outputs) -> None:
    (outputs / "kept").mkdir()
    if again:
        RunFolder.create(outputs / "kept/run", launch.as_yaml(composed(RUN[1:])))
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    for path in [*outputs.rglob("*"), outputs]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    args = ["train", "resume=kept/run"] if again else [*RUN, "hydra.run.dir=kept/run"]
    done = process(*args, cwd=outputs, limit=not_almighty)
    for path in [outputs, *outputs.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "kept/run" in done.stderr
    assert "Permission denied" in done.stderr
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before


def test_a_run_that_another_process_has_is_left_alone(outputs, capsys, monkeypatch) -> None:
    folder = RunFolder.create(outputs / "run", launch.as_yaml(composed(RUN[1:])))
    monkeypatch.setattr(RunFolder, "lock", partialmethod(RunFolder.lock, patience=0.1))
    with folder.lock():
        before = folder.status()
        assert main(["train", "resume=run"]) == 2
        assert folder.status() == before
    assert capsys.readouterr().err == "fedtsd: run: another process is running it\n"


def test_a_run_that_is_finished_while_we_wait_for_it_is_left_alone(
    outputs, capsys, monkeypatch
) -> None:
    folder = RunFolder.create(outputs / "run", launch.as_yaml(composed(RUN[1:])))

    def finished_meanwhile(config: object) -> object:
        folder.set_status("done")
        return load_federation(config)

    monkeypatch.setattr(launch, "load_federation", finished_meanwhile)
    assert main(["train", "resume=run"]) == 2
    assert "the run is finished" in capsys.readouterr().err
    assert folder.status()["state"] == "done"


def test_two_processes_that_begin_one_run_do_not_mix(outputs, capsys, monkeypatch) -> None:
    """The other one comes between our checks and the first thing we write."""

    def begun_meanwhile(config: object) -> object:
        RunFolder.create(outputs / "run", "theirs: 1\n")
        return load_federation(config)

    monkeypatch.setattr(launch, "load_federation", begun_meanwhile)
    assert main([*RUN, "hydra.run.dir=run"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert RunFolder(outputs / "run").config() == {"theirs": 1}


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_costs_rounds_and_no_bit(damaged: int, outputs, capsys) -> None:
    assert main([*RUN, "hydra.run.dir=run"]) == 0
    whole = tables_of(outputs / "run")
    RunFolder(outputs / "run").set_status("interrupted")
    for path in sorted((outputs / "run/checkpoints").iterdir())[-damaged:]:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    capsys.readouterr()
    code = main(["train", "resume=run"])
    log = (outputs / "run/run.log").read_text()
    assert "WARNING run/checkpoints/round-000008.safetensors: the checkpoint is damaged" in log
    if damaged == 1:
        assert code == 0
    else:
        assert code == 2
        said = capsys.readouterr().err
        assert "none of 2 checkpoints can be read" in said
        assert said.count("\n") == 1
    for name, found in tables_of(outputs / "run").items():
        assert found.equals(whole[name]), name


def test_a_run_whose_figures_were_not_drawn_is_not_done(outputs, monkeypatch) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_draw", killed)
    assert main([*RUN, "hydra.run.dir=run"]) == 130
    assert json.loads((outputs / "run/status.json").read_text())["state"] == "interrupted"
    drawn = []
    monkeypatch.setattr(launch, "_draw", drawn.append)
    assert main(["train", "resume=run"]) == 0
    assert len(drawn) == 1
