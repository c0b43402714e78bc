"""A whole benchmark, of the smallest workload: children, protocol, tables and files."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO

import pytest

from fedtsd.bench import machine, measure, worker
from fedtsd.bench.clock import STAGES
from fedtsd.bench.measure import split_of
from fedtsd.bench.worker import Measured, Worker, WorkerFailed, child
from fedtsd.cli import main

SMALL = ["partition.num_clients=4", "training.epochs=1"]
PEAK = 1e11
QUICK = ["--workloads", "digits", "--repetitions", "2", "--seconds", "0.05"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[int, dict, str]:
    file = tmp_path_factory.mktemp("bench") / "b.json"
    engines = ["--engines", "sequential", "--methods", "fedtsdp"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as shown:
        patch.setattr(machine, "peak_flops", lambda device: PEAK)
        code = main(["bench", *QUICK, *engines, "--json", str(file), *SMALL])
    return code, json.loads(file.read_text()), shown.getvalue()


def test_a_benchmark_writes_every_number(done) -> None:
    code, results, shown = done
    assert code == 0
    (row,), (central,) = results["rows"], results["central"]
    assert [row[key] for key in ("workload", "engine", "method")] == [
        "digits", "sequential", "fedtsdp",
    ]  # fmt: skip
    ratio = row["ratio"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    # 4 clients hold 1,597 samples, 40 % for testing and a tenth of the rest for validation.
    per_round = row["samples_per_second"] / row["rounds_per_second"]
    assert per_round == pytest.approx(1597 * 0.6 * 0.9, rel=0.01)
    assert central["flops_per_sample"] == 58_600
    share = row["samples_per_second"] * 58_600 / PEAK
    assert row["share_of_peak"] == pytest.approx(share)
    assert row["start_up_seconds"] > row["first_round_seconds"] > 0
    assert results["machine"]["cores"] >= 1
    assert f"{row['ratio']['median']:.2f}" in shown
    assert "GFLOP/s" in shown


def test_the_stages_make_up_the_round(done) -> None:
    split = done[1]["rows"][0]["split"]
    assert set(split) == {*STAGES, "rest", "round", "evaluate", "checkpoint"}
    parts = sum(split[name] for name in (*STAGES, "rest"))
    assert parts == pytest.approx(split["round"])
    # Every stage is timed: a part that is no longer called by its name would show as 0.
    assert all(split[name] > 0 for name in ("train", "cluster", "aggregate", "write", "rest"))
    assert min(split["evaluate"], split["checkpoint"]) > 0
    assert split["train"] > split["round"] / 4


def test_stages_are_means_over_rounds() -> None:
    first = Measured(1, 2.0, 10, {"train": 1.5})
    second = Measured(3, 6.0, 30, {"train": 4.5, "write": 0.4})
    split = split_of([first, second])
    assert (split["round"], split["train"]) == (2.0, 1.5)
    assert split["write"] == pytest.approx(0.1)
    assert split["rest"] == pytest.approx(0.4)


def test_a_child_works_as_ordered_and_says_why_it_cannot() -> None:
    process = Worker(child("matmul", "cpu"))
    found = process.run(2)
    assert (found.rounds, found.samples) == (2, 2)
    assert found.rounds_per_second == pytest.approx(2 / found.seconds)
    with pytest.raises(WorkerFailed, match="Finished"):  # it knows of nothing else
        process.finish()
    process.close()


def test_a_yardstick_that_fails_is_one_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(machine, "peak_flops", lambda device: PEAK)
    monkeypatch.setattr(worker, "child", lambda *given: [sys.executable, "-c", "1 / 0"])
    monkeypatch.setattr(measure, "child", worker.child)
    assert main(["bench", *QUICK, "--engines", "sequential", "--methods", "fedavg"]) == 1
    assert capsys.readouterr().err.strip() == (
        "fedtsd: bench failed: ZeroDivisionError: division by zero"
    )
