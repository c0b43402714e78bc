"""`fedtsd search`: choose hyper-parameters by validation scores, with optuna.

A trial is one run per seed, in a folder named by its config. So a trial that was stopped goes on
from its checkpoint, and a setting that was tried is not run again.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from fedtsd.catalogue import conf_dir
from fedtsd.errors import FedtsdError

if TYPE_CHECKING:
    from fedtsd.score import Score
    from fedtsd.search.plan import Plan
    from fedtsd.search.results import Row
    from fedtsd.search.space import Axis
    from fedtsd.search.trials import Trials

USAGE = """\
usage: fedtsd search KEY=VALUES ... [KEY=VALUE ...] [search.KEY=VALUE ...]

Choose hyper-parameters by validation accuracy, in regression by validation MAE. What is searched:
  KEY=interval(0.001,0.1)            numbers between two ends
  KEY=tag(log,interval(0.001,0.1))   the same, drawn evenly over orders of magnitude
  KEY=range(1,6)                     1, 2, 3, 4, 5
  KEY=a,b                            one of these

Keys of the search
"""
EXAMPLE = """
Example
  fedtsd search 'training.lr=tag(log,interval(0.001,0.1))' 'training.epochs=range(1,5)'
"""

SPLITS = ("validation", "test")
RunCell = Callable[[list[str], Path], Path]
"""`launch.run_cell`: make sure that the run of these overrides is done; return its folder."""


def search_command(args: list[str]) -> int:
    """Search, or continue the search of the same arguments; return 0 once it has enough trials.

    Returns 1 if too many trials failed. Raises InputError with one line, before anything is
    written, for wrong input.
    """
    if not args or {"-h", "--help"} & set(args):
        sys.stdout.write(USAGE + _keys() + EXAMPLE)
        return 0 if args else 2
    from fedtsd.launch import run_cell
    from fedtsd.search.plan import plan_search

    plan = plan_search(args)
    return search(plan, run_cell)


def search(plan: "Plan", run_cell: RunCell) -> int:
    """Run trials until enough are finished; after each one, write what was found so far.

    Raises InputError if the folder holds another search, or if one is at work there.
    """
    from fedtsd.search.plan import write_definition
    from fedtsd.search.trials import Trials, alone_in

    plan.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(plan.folder):
        write_definition(plan)
        options = plan.options
        trials = Trials(
            plan.folder, plan.axes, options.sampler_seed, options.startup_trials, plan.score
        )
        try:
            code, reason = _run_trials(plan, trials, run_cell)
        except KeyboardInterrupt:
            _say("fedtsd: stopped; the same command goes on")
            raise
    if reason:
        _say(f"fedtsd: {reason}")
    return max(code, _show_best(plan.folder, plan.score))


def _run_trials(plan: "Plan", trials: "Trials", run_cell: RunCell) -> tuple[int, str]:
    """Run trials until the search ends; return the exit code, and why it ends before its time."""
    rows, failures, started = trials.rows(), 0, time.monotonic()
    if rows:
        _record(plan, trials, rows)
    _say(_line("trial", "validation", [axis.key for axis in plan.axes], plan.axes))
    for row in rows:
        _say(_line_of(row, rows, plan))
    while (end := _end(plan, rows, failures, time.monotonic() - started)) is None:
        with Console(stderr=True).status(f"trial {len(rows) + 1}"):
            _run_trial(plan, trials, run_cell)
        rows = trials.rows()
        failures = failures + 1 if rows[-1].error else 0
        _record(plan, trials, rows)
        _say(_line_of(rows[-1], rows, plan))
    return end


def _end(
    plan: "Plan", rows: "Sequence[Row]", failures: int, seconds: float
) -> tuple[int, str] | None:
    """Return exit code and reason if no further trial is to be run."""
    options = plan.options
    if len([row for row in rows if not row.error]) >= options.trials:
        return 0, ""
    if failures >= options.max_failures:
        return 1, f"{failures} trials failed one after another"
    size = math.prod(axis.size for axis in plan.axes)
    if len({tuple(row.texts.values()) for row in rows}) >= size:
        return 0, f"all {size:.0f} combinations were tried"
    if options.timeout is not None and seconds > 60 * options.timeout:
        return 0, f"{options.timeout:g} minutes are over; the same command goes on"
    return None


def _run_trial(plan: "Plan", trials: "Trials", run_cell: RunCell) -> None:
    from fedtsd.search.results import validation_score
    from fedtsd.search.space import with_texts

    trial, texts = trials.ask()
    overrides, root = with_texts(plan.fixed, texts), plan.folder / "runs"
    try:
        runs = [run_cell([*overrides, f"seed={seed}"], root) for seed in plan.options.seeds]
        scores = [validation_score(run, plan.score) for run in runs]
    except FedtsdError as error:  # a run failed, or these values do not go together
        trials.fail(trial, str(error))
    else:
        trials.finish(trial, scores, [str(run.relative_to(plan.folder)) for run in runs])


def _record(plan: "Plan", trials: "Trials", rows: "Sequence[Row]") -> None:
    """Write trials.csv and best.yaml."""
    from fedtsd.search.results import best_of, command, write_best, write_trials

    write_trials(plan.folder, [axis.key for axis in plan.axes], rows, plan.score)
    if best := best_of(rows, plan.score):
        seeds = plan.options.seeds
        line = command(plan.fixed, best, seeds)
        write_best(plan.folder, best, line, seeds, trials.importance(), plan.score)


def _show_best(folder: Path, score: "Score") -> int:
    """Print the best trial, its command line and the folder; return 1 if no trial finished."""
    path = folder / "best.yaml"
    if not path.is_file():
        _say("fedtsd: no trial finished")
        return 1
    best = yaml.safe_load(path.read_text())
    chosen, tested = (_printed(best[f"{split}_{score.name}"], score) for split in SPLITS)
    sys.stdout.write(
        f"best: trial {best['trial']}, validation {score.noun} {chosen}; "
        f"its test {score.noun}, not searched, is {tested}\n"
    )
    if best["importance"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in best["importance"].items())
        sys.stdout.write(f"what mattered: {shares}\n")
    sys.stdout.write(f"{best['command']}\n{folder}\n")
    return 0


def _printed(value: float | None, score: "Score") -> str:
    """A score with one decimal more than in tables: trials may lie close."""
    known = value or 0.0
    return score.text(known, score.decimals_of([score.scale * known]) + 1)


def _line_of(row: "Row", rows: "Sequence[Row]", plan: "Plan") -> str:
    """One line on a trial; `best` marks what beats all before it."""
    from fedtsd.search.results import best_of

    texts, axes = [row.texts[axis.key] for axis in plan.axes], plan.axes
    if row.error:
        return _line(row.number, "failed", texts, axes) + f"  {row.error}"
    best = "  best" if best_of(rows[: row.number], plan.score) is row else ""
    return _line(row.number, _printed(row.mean, plan.score), texts, axes) + best


def _line(number: Any, score: str, texts: "Sequence[str]", axes: "Sequence[Axis]") -> str:
    widths = [max(len(axis.key), *map(len, axis.probes())) for axis in axes]
    cells = [f"{text:>{width}}" for text, width in zip(texts, widths, strict=True)]
    return "  ".join([f"{number:>5}", f"{score:>10}", *cells])


def _keys() -> str:
    lines = (conf_dir() / "search.yaml").read_text(encoding="utf-8").splitlines()[1:]
    return "".join(f"  search.{line}\n" for line in lines)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
