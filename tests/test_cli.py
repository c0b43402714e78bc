"""The command line as people use it, in processes of its own."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from fedtsd.catalogue import GROUPS, options
from fedtsd.cli import main
from fedtsd.run_folder import RunFolder

QUICK = ["rounds=2", "partition.num_clients=8"]


def fedtsd(*args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-m", "fedtsd", *args]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )


def test_a_run_leaves_everything(outputs) -> None:
    done = fedtsd("train", *QUICK, cwd=outputs)
    assert done.returncode == 0, done.stderr
    folder = outputs / done.stdout.splitlines()[-1]
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml", "environment.json", "status.json", "run.log", "rounds.csv", "clients.csv",
        "summary.json", "partition.csv", "assignments.csv", "clustering.csv", "similarity.npz",
        "checkpoints/round-000002.safetensors", "figures/accuracy.pdf", "figures/accuracy.png",
        "figures/partition.pdf", "figures/similarity.pdf", "figures/clusters.pdf",
    }  # fmt: skip
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    columns = (
        "round,accuracy_mean,accuracy_std,accuracy_worst10,loss_mean,num_clusters,"
        "personal_layers_mean,hopkins,hopkins_p,bytes_up,bytes_down,samples,seconds,epsilon"
    )
    assert (folder / "rounds.csv").read_text().splitlines()[0] == columns
    assert "round   2/2" in done.stderr
    again = fedtsd("train", f"resume={folder}", cwd=outputs)
    assert again.returncode == 2
    assert "the run is finished" in again.stderr


def test_a_private_run_says_what_it_spends_and_ends_with_its_budget(outputs) -> None:
    private = "method=fedavg", "aggregation=client_dp", "aggregation.noise_multiplier=8.0"
    done = fedtsd("train", *private, *QUICK, "aggregation.target_epsilon=1.2", cwd=outputs)
    assert done.returncode == 0, done.stderr
    assert re.search(r"round   1/2 .* epsilon 1\.\d\d ", done.stderr)
    assert "the budget of epsilon 1.2 ends the run after round 1 of 2" in done.stderr
    folder = outputs / done.stdout.splitlines()[-1]
    log = (folder / "run.log").read_text()
    assert "privacy: client level (REPLACE_ONE), clip 1, noise multiplier 8: epsilon 1." in log
    assert "privacy: the budget of epsilon 1.2 ends the run after round 1 of 2" in log
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    none = fedtsd("train", *private, *QUICK, "aggregation.target_epsilon=0.1", cwd=outputs)
    assert none.returncode == 2
    assert list(folder.parent.iterdir()) == [folder]  # nothing was begun
    assert "aggregation.target_epsilon: one round spends 1." in none.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "sed=1"], "did you mean seed?"),
        (["train", "method=fedprx"], "did you mean fedprox?"),
        (["train", "-m", "seed=0,1", "partition.alpha=0.1,-1"], "partition.alpha: must be above 0"),
        (["train", "cohort.size=50"], "cohort.size"),
        (["train", "seed"], "seed"),
        (["train", "a=[1"], "fedtsd: "),
        (["train", "resume=nowhere"], "config.yaml is missing"),
        (["train", "resume=nowhere", "rounds=3"], "takes no other overrides"),
        (["trian"], "did you mean train?"),
        (["data", "get", "mnits"], "did you mean mnist?"),
        (["figures", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_two(args, message, outputs, capsys) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(outputs.iterdir()) == []  # nothing was written


def test_kill_and_resume_give_the_same_tables(outputs) -> None:
    run = ["train", "rounds=7", "checkpoint_every=2", "partition=pathological"]
    whole = fedtsd(*run, "hydra.run.dir=whole", cwd=outputs)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "fedtsd", *run, "hydra.run.dir=parts"]
    process = subprocess.Popen(command, cwd=outputs, stderr=subprocess.DEVNULL)
    rounds = outputs / "parts" / "rounds.csv"
    deadline = time.monotonic() + 60
    while not (rounds.exists() and rounds.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert json.loads((outputs / "parts/status.json").read_text())["state"] == "running"
    resumed = fedtsd("train", "resume=parts", cwd=outputs)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("clients", "assignments", "clustering", "partition"):
        parts = (outputs / w / f"{name}.csv" for w in ("whole", "parts"))
        assert len({p.read_bytes() for p in parts}) == 1, name
    tables = [
        pd.read_csv(outputs / w / "rounds.csv").drop(columns="seconds") for w in ("whole", "parts")
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_and_says_how_to_go_on(number: int, code: int, outputs) -> None:
    run = ["rounds=500", "checkpoint_every=2", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "fedtsd", "train", *run]
    # A shell's background jobs ignore SIGINT; the run must not inherit that from whoever tests.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=outputs, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    )
    rounds = outputs / "run/rounds.csv"
    while not (rounds.exists() and rounds.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    before = {path for path in (outputs / "run").iterdir() if not path.name.startswith(".")}
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "fedtsd train resume=" in said
    assert json.loads((outputs / "run/status.json").read_text())["state"] == "interrupted"
    # Nothing is deleted, files are whole, and no table has half a round.
    assert before <= set((outputs / "run").iterdir())
    assert not list((outputs / "run").rglob(".*.writing"))
    done = pd.read_csv(rounds)["round"].tolist()
    assert done == list(range(1, len(done) + 1))
    for name in ("clients", "traffic", "exchanged"):
        assert pd.read_csv(outputs / f"run/{name}.csv")["round"].unique().tolist() == done, name
    assert 1 <= RunFolder(outputs / "run").load_checkpoint()["round"] <= len(done)


def test_a_run_logs_to_its_folder_and_leaves_logging_as_it_was(outputs, monkeypatch) -> None:
    logger = logging.getLogger("fedtsd")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.WARNING)
    assert main(["train", "method=fedavg", *QUICK, "hydra.run.dir=run"]) == 0
    assert "fedavg on digits: 8 clients" in (outputs / "run/run.log").read_text()
    assert (logger.level, logger.propagate, logger.handlers) == (logging.WARNING, True, [])


def test_help_names_every_group_and_option(capsys) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for group in GROUPS:
        line = next(line for line in text.splitlines() if line.startswith(f"  {group} "))
        assert set(re.findall(r"[\w-]+", line)[1:]) == set(options(group))
    for key in ("seed", "rounds", "eval_every", "device", "size", "local_run"):
        assert re.search(rf"^ +{key}:", text, flags=re.MULTILINE)


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; from fedtsd.cli import main; main(['--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_methods_and_data_are_listed(capsys, outputs, monkeypatch) -> None:
    monkeypatch.setenv("FEDTSD_DATA", str(outputs))
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(options("method"))
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == sorted(options("dataset"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fedtsd tr", {"train"}),
        ("fedtsd train metho", {"method=", "method."}),
        ("fedtsd train method=fedp", {"method=fedper", "method=fedprox"}),
        ("fedtsd train partition.al", {"partition.alpha="}),
    ],
)
def test_completion(line: str, expected: set[str], outputs) -> None:
    done = fedtsd("-sc", "query=bash", cwd=outputs, env={"COMP_LINE": line})
    assert set(done.stdout.split()) == expected, done.stderr
