"""One sitting: run what is missing of a plan, several cells at once, until the time is over.

Every cell is a process of its own, forked from one that has imported and loaded everything: it
starts at once, and whatever becomes of it ends nothing but itself. Cells are those of a sweep, in
folders named by their configs: the next sitting goes on where this one stopped.
"""

import math
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch
from omegaconf import DictConfig

from fedtsd.cell import PLAN, Cell, read_plan, write_plan, write_summary
from fedtsd.compose import check
from fedtsd.cores import limited_cores
from fedtsd.errors import RunFolderError
from fedtsd.imports import fast_imports
from fedtsd.launch import CellFailed, carry_out_cell
from fedtsd.loading import load_arrays
from fedtsd.score import score_of
from fedtsd.sweep import settle
from fedtsd.sweep_progress import in_words

PATIENCE = 10.0  # seconds that a cell has to end when the sitting does

Work = tuple[Cell, DictConfig]


@dataclass(frozen=True)
class Sitting:
    """How long and how broad.

    jobs: cells at once, each with one core. until: the time (of time.monotonic) from which on no
    cell is started. again: whether failed cells are tried again.
    """

    jobs: int
    until: float = math.inf
    again: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs: must be at least 1, got {self.jobs}")

    def run(self, work: Sequence[Work], folder: Path) -> bool:
        """Run what is missing of `work` in its order; return whether all of it has ended.

        The plan in sweep.json grows by it, summary.csv is written at the end.
        """
        plan = extend_plan(folder, [cell for cell, _ in work])
        left = [(cell, cfg) for cell, cfg in work if self._is_left(cell)]
        _say(f"{folder}: {len(work)} cells, {len(work) - len(left)} done before")
        try:
            if left:
                _prepare(left)
                with limited_cores(1):
                    self._run(deque(left))
        finally:
            write_summary(folder, plan)
        return all(cell.state in ("done", "failed") for cell, _ in work)

    def _is_left(self, cell: Cell) -> bool:
        ended = ("done",) if self.again else ("done", "failed")
        return cell.state not in ended and not cell.is_running

    def _run(self, left: deque[Work]) -> None:
        started, total = time.monotonic(), len(left)
        at_work: dict[object, tuple[ForkProcess, Cell, float]] = {}  # by sentinel
        try:
            while left or at_work:
                while left and len(at_work) < self.jobs and time.monotonic() < self.until:
                    process, cell = _start(*left.popleft())
                    at_work[process.sentinel] = process, cell, time.monotonic()
                if not at_work:
                    _say(f"the time is over: {len(left)} cells are left")
                    return
                for sentinel in wait([process.sentinel for process, _, _ in at_work.values()]):
                    process, cell, began = at_work.pop(sentinel)
                    process.join()
                    settle([cell], "failed")
                    ended = total - len(left) - len(at_work)
                    pace = (time.monotonic() - started) / ended
                    _say(
                        f"{ended:>4}/{total}  {_told(cell)}  {in_words(time.monotonic() - began)}  "
                        f"about {in_words(pace * (total - ended))} left"
                    )
        finally:
            for process, _, _ in at_work.values():
                process.terminate()
            for process, cell, _ in at_work.values():
                process.join(PATIENCE)
                process.kill()
                process.join()
                settle([cell], "interrupted")


def extend_plan(folder: Path, cells: Iterable[Cell]) -> list[Cell]:
    """Add cells to the plan in sweep.json and return all of it; equal values replace older ones."""
    plan = {cell.values: cell for cell in [*read_cells(folder), *cells]}
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, plan.values())
    return list(plan.values())


def read_cells(folder: Path) -> list[Cell]:
    """Return the cells of a plan; none where there is no plan yet."""
    path = folder / PLAN
    return read_plan(path.read_text(), folder) if path.is_file() else []


def _prepare(left: Sequence[Work]) -> None:
    """Import and load what every cell needs, once, before there are processes."""
    with fast_imports():
        import pandas  # noqa: F401
        import scipy.cluster.hierarchy  # noqa: F401
        import sklearn.metrics  # noqa: F401
    for cfg in {str(cfg.dataset): cfg for _, cfg in left}.values():
        load_arrays(check(cfg))


def _start(cell: Cell, cfg: DictConfig) -> tuple[ForkProcess, Cell]:
    process = multiprocessing.get_context("fork").Process(target=_carry_out, args=(cell, cfg))
    process.start()
    return process, cell


def _carry_out(cell: Cell, cfg: DictConfig) -> None:
    """Be the process of one cell; its folder tells what became of it."""
    # First of all: a fork has none of the threads that torch would otherwise wait for.
    torch.set_num_threads(1)
    try:
        carry_out_cell(cfg, cell.folder)
    except (CellFailed, RunFolderError, KeyboardInterrupt):
        os._exit(1)


def _told(cell: Cell) -> str:
    name = " ".join(value for key, value in cell.values if key != "role")
    status = cell.status
    if status["state"] != "done":
        return f"{name}  {status['state']}: {status.get('error') or cell.folder}"
    summary = cell.summary()
    score, last = score_of(summary), summary["last"]
    return f"{name}  {score.text(last[score.mean])} ({score.text(last[score.worst10])})"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
