"""Progress of a sweep on stderr, read from its cells' folders: so every launcher shows the same."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fedtsd.cell import ENDED, Cell
from fedtsd.score import score_of


class SweepProgress:
    """Watches the folders while the cells run: a line per cell that ended, a bar, the time left.

    `changed` is called at the start, after each cell and at the end.
    """

    def __init__(self, cells: Sequence[Cell], changed: Callable[[], None]) -> None:
        self._num_cells = len(cells)
        self._changed = changed
        self._to_run = [cell for cell in cells if not cell.done]
        self._first_status = {cell.folder: cell.status for cell in self._to_run}
        self._waiting = list(self._to_run)
        self._rounds_before = sum(cell.rounds_done for cell in self._to_run)
        self._began: dict[Any, float] = {}
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sweep progress", daemon=True)

    def __enter__(self) -> "SweepProgress":
        self._started = time.monotonic()
        done = self._num_cells - len(self._to_run)
        cells = f"{self._num_cells} cell{'s' if self._num_cells != 1 else ''}"
        self._say(f"{cells}: {done} done before, {len(self._to_run)} to run")
        if self._console.is_terminal and self._to_run:
            columns = (TextColumn("[bold]sweep"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console)
            self._task = self._bar.add_task("sweep", total=self._num_cells, completed=done, left="")
            self._bar.start()
        self._changed()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()  # cells may have ended since the last look
        if self._bar is not None:
            self._bar.stop()
        self._changed()
        self._say(self._closing())

    def _watch(self) -> None:
        # A look costs a few file reads a cell: rarer where there are many.
        pause = max(0.3, len(self._to_run) / 500)
        while not self._over.wait(pause):
            if self._look():
                self._changed()

    def _look(self) -> bool:
        """Tell of every cell that ended since the last look; return whether there was one."""
        ended = []
        for cell in self._waiting:
            status = cell.status
            if status["state"] == "running":
                self._began.setdefault(cell.folder, time.monotonic())
            # A cell that had failed before is news only once it has been run again.
            elif status["state"] in ENDED and status != self._first_status[cell.folder]:
                ended.append(cell)
        for cell in ended:
            self._waiting.remove(cell)
            left = "" if self._bar is not None else self._left()  # the bar shows it already
            self._say(f"{self._place()}  {self._result(cell)}  {left}".rstrip())
        if self._bar is not None:
            completed = self._num_cells - len(self._waiting)
            self._bar.update(self._task, completed=completed, left=self._left())
        return bool(ended)

    def _place(self) -> str:
        width = len(str(self._num_cells))
        return f"{self._num_cells - len(self._waiting):>{width}}/{self._num_cells}"

    def _result(self, cell: Cell) -> str:
        name = " ".join(f"{key}={value}" for key, value in cell.values) or cell.folder.name
        status = cell.status
        if status["state"] != "done":
            return f"{name}  {status['state']}: {status.get('error') or cell.folder}"
        summary = cell.summary()
        score, last = score_of(summary), summary["last"]
        decimals = score.decimals_of([score.scale * last[score.mean]])
        mean, worst = (score.text(last[name], decimals) for name in (score.mean, score.worst10))
        result = f"{mean:>6} ({worst.removesuffix(score.unit)})"
        began = self._began.get(cell.folder)
        return f"{name}  {result}" + (f"  {in_words(time.monotonic() - began)}" if began else "")

    def _left(self) -> str:
        """Estimate the time left from the rounds done so far; empty while there are none."""
        done = sum(cell.rounds_done for cell in self._to_run) - self._rounds_before
        left = sum(cell.rounds - cell.rounds_done for cell in self._waiting)
        if done <= 0 or left <= 0:
            return ""
        seconds = (time.monotonic() - self._started) * left / done
        return f"about {in_words(seconds)} left"

    def _closing(self) -> str:
        states = [cell.state for cell in self._to_run]
        done = self._num_cells - len(states) + states.count("done")
        others = [f"{states.count(s)} {s}" for s in dict.fromkeys(states) if s != "done"]
        words = ", ".join([f"{done} of {self._num_cells} cells done", *others])
        hint = "; the same command runs the others" if others else ""
        return f"{words} in {in_words(time.monotonic() - self._started)}{hint}"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            # One line per cell: what does not fit stands in summary.csv.
            self._console.print(
                line, markup=False, highlight=False, no_wrap=True, overflow="ellipsis"
            )
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def in_words(seconds: float) -> str:
    """Return a duration as people say it: 34 s, 12 min, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
