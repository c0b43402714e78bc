"""Kill runs with SIGKILL, resume them, and compare what they leave with a run left alone.

    python -m tests.kills FOLDER RANDOM STEPS SEED

RANDOM kills come at random moments, several in one run if it has not ended by then. STEPS kills
come in the middle of a write, so that half of a file or of a table's rows is there, or right after
a file was moved to its place; 0 means at every such step of a run. Runs are forked from this
process, which has imported everything. Prints what was done as JSON; exit code 1 if a folder
differs.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omegaconf import DictConfig

import fedtsd.disk
import fedtsd.run_folder
from fedtsd.compose import composed
from fedtsd.launch import carry_out_cell

RUN = [
    "rounds=4", "checkpoint_every=2", "partition=pathological", "partition.num_clients=8",
    "model.hidden=[8]", "dataset.public_size=100", "similarity.public_batch=40",
    "clustering.stage1_round=2", "engine=parallel", "engine.workers=2",
]  # fmt: skip
TIMES = {"rounds.csv", "traffic.csv", "summary.json", "status.json"}
TIME_KEYS = {"seconds", "started", "updated"}
UNLIKE = {"run.log", ".lock"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a run left, by name, without times and without the log of what happened."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in UNLIKE:
            found[name] = _comparable(name, path.read_bytes())
    return found


def _comparable(name: str, content: bytes) -> bytes:
    if name.endswith(".safetensors"):  # safetensors writes the keys of a header in any order
        size = 8 + int.from_bytes(content[:8], "little")
        return json.dumps(json.loads(content[8:size]), sort_keys=True).encode() + content[size:]
    if name not in TIMES:
        return content
    if name.endswith(".csv"):
        rows = [line.split(",") for line in content.decode().splitlines()]
        place = rows[0].index("seconds")
        return "\n".join(",".join(row[:place] + row[place + 1 :]) for row in rows).encode()
    told = json.loads(content)
    return json.dumps({k: v for k, v in told.items() if k not in TIME_KEYS}).encode()


def forked(cfg: DictConfig, folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin or resume the run in a process of its own; return its id."""
    if pid := os.fork():
        return pid
    try:
        prepare()
        carry_out_cell(cfg, folder)
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)


def ended(pid: int) -> int:
    """Wait for a process: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at_step(number: int) -> None:
    """Let this process die in its step `number` of writing, from 0 on, with half of it done."""
    steps = iter(range(number + 1))
    flush, append = fedtsd.disk.flush, fedtsd.run_folder.append_whole

    def dying_flush(path: Path) -> None:
        if next(steps) == number:
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    def dying_append(path: Path, content: bytes) -> None:
        if content and next(steps) == number:
            append(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        append(path, content)

    fedtsd.disk.flush = dying_flush
    fedtsd.run_folder.append_whole = dying_append


def random_kills(cfg: DictConfig, root: Path, count: int, seconds: float, seed: int) -> Iterator:
    """Yield the folder of each run and how often it was killed at random moments."""
    rng, done, numbers = random.Random(seed), 0, itertools.count()
    while done < count:
        folder, kills, code = root / f"random-{next(numbers)}", 0, None
        while code != 0:
            pid = forked(cfg, folder)
            if done + kills < count:
                # So that most come before the end, which is nearer in a run that is resumed.
                time.sleep(rng.uniform(0, 0.7 * seconds / (1 + kills)))
                os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            if code == 1:
                raise SystemExit(f"{folder}: could not be resumed")
            kills += code == -signal.SIGKILL
        done += kills
        yield folder, kills


def step_kills(cfg: DictConfig, root: Path, count: int) -> Iterator:
    """Yield the folder of each run and how often it was killed in the middle of a write."""
    every = _count_steps(cfg, root / "steps")
    for number in range(0, every, max(1, every // count) if count else 1):
        folder = root / f"step-{number}"
        code = ended(forked(cfg, folder, lambda number=number: kill_at_step(number)))
        if code != -signal.SIGKILL or ended(forked(cfg, folder)) != 0:
            raise SystemExit(f"{folder}: could not be killed and resumed")
        yield folder, 1


def _count_steps(cfg: DictConfig, folder: Path) -> int:
    steps = folder.with_suffix(".count")

    def count() -> None:
        flush, append = fedtsd.disk.flush, fedtsd.run_folder.append_whole

        def counted(path: Path) -> None:
            with steps.open("a") as file:
                file.write(".")
            flush(path)

        def counted_append(path: Path, content: bytes) -> None:
            if content:
                with steps.open("a") as file:
                    file.write(".")
            append(path, content)

        fedtsd.disk.flush = counted
        fedtsd.run_folder.append_whole = counted_append

    if ended(forked(cfg, folder, count)) != 0:
        raise SystemExit(f"{folder}: failed")
    return len(steps.read_text())


def main(root: Path, count: int, steps: int, seed: int) -> int:
    """Kill, resume, compare; print the counts."""
    started, cfg = time.perf_counter(), composed(RUN)
    carry_out_cell(cfg, root / "warm")  # here, so that all others find what it imports and loads
    begun = time.perf_counter()
    if ended(forked(cfg, root / "whole")) != 0:
        return 1
    took = time.perf_counter() - begun
    whole = contents(root / "whole")
    told = {"kills": 0, "runs": 0, "runs_killed_twice_or_more": 0, "different": []}
    ways = {
        "at random": random_kills(cfg, root, count, took, seed),
        "in a write": step_kills(cfg, root, steps),
    }
    for way, runs in ways.items():
        told[way] = 0
        for folder, kills in runs:
            if not kills:  # it was over before its kill
                continue
            told[way] += kills
            told["kills"] += kills
            told["runs"] += 1
            told["runs_killed_twice_or_more"] += kills > 1
            left = contents(folder)
            odd = [n for n in whole.keys() | left.keys() if whole.get(n) != left.get(n)]
            if odd:
                told["different"].append([folder.name, sorted(odd)])
            else:
                shutil.rmtree(folder)
    told["seconds"] = round(time.perf_counter() - started, 1)
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if told["different"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
