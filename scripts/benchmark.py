"""Run the benchmark of conf/benchmark.yaml, or go on with it, and write its tables.

Run: python scripts/benchmark.py --part fashion --minutes 50

Three stages, all of them unless one is named: tune (each method's values, by validation accuracy),
run (what is reported), tables (docs/results/benchmark_PART.md and .csv, from the runs alone). Only
missing runs are started; the same command goes on. What tables need of the runs is packed beside
them in benchmark_PART.tar.xz and taken from there: elsewhere, too, only missing runs are started.
KEY=VALUE is told to every run, after all else.
"""

import argparse
import sys
import time
from pathlib import Path

from fedtsd.imports import fast_imports

with fast_imports():
    from fedtsd.errors import InputError
    from fedtsd.launch import SIGNALS
    from fedtsd.study.archive import pack, unpack
    from fedtsd.study.choice import choices_for, choose, copy_choice, write_choice
    from fedtsd.study.layers import draw_layers
    from fedtsd.study.page import REFERENCE, write_page
    from fedtsd.study.plan import (
        Study,
        composed_cells,
        final_jobs,
        narrowed,
        read_study,
        tuning_jobs,
    )
    from fedtsd.study.sitting import Sitting, read_cells

STAGES = ("tune", "run", "tables")


def main() -> int:
    """Return 0 if all that was asked for is there, 1 if runs are left or failed, 2 for an error."""
    options = read_options()
    SIGNALS.listen()
    try:
        study = present(options)
        archive = options.target / f"benchmark_{options.part}.tar.xz"
        if archive.is_file() and (found := unpack(archive, options.folder / options.part)):
            say(f"{archive}: {found} runs taken from it")
        sitting = Sitting(options.jobs, time.monotonic() + 60 * options.minutes, options.retry)
        done = True
        if options.stage in (None, "tune") and study.tunes:
            done = tune(study, sitting, options)
        if options.stage in (None, "run"):
            done = run(study, sitting, options) and done
        if options.stage in (None, "tables"):
            folder = options.folder / options.part / "run"
            every = [one.name for one in read_study(options.part).contestants]
            told = options.target, options.part, options.reference, every
            pages = write_page(folder, *told)
            pages += draw_layers(folder, *told[:-1])
            pack([folder.parent / stage for stage in ("tune", "run")], archive)
            print(*pages, archive, sep="\n")
    except InputError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    return 0 if done else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="fashion", help="a part of conf/benchmark.yaml")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--methods", type=names, default=[], help="A,B: only these")
    parser.add_argument("--settings", type=names, default=[], help="A,B: only these")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then start no more")
    parser.add_argument("--retry", action="store_true", help="try failed runs again")
    parser.add_argument("--reference", default=REFERENCE)
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmark"))
    parser.add_argument("--target", type=Path, default=Path("docs/results"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return parser.parse_args()


def names(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def present(options: argparse.Namespace) -> Study:
    """Return the part without the methods that are not there; say which those are."""
    study = narrowed(read_study(options.part), options.methods, [])
    if missing := study.missing:
        say(f"left out, there is no conf/method/NAME.yaml of: {', '.join(missing)}")
        kept = [one.name for one in study.contestants if one.method not in missing]
        if not kept:
            raise InputError("no method is left")
        study = narrowed(study, kept, [])
    return study


def tune(study: Study, sitting: Sitting, options: argparse.Namespace) -> bool:
    """Run the tuning runs and choose; all tuning settings, whichever are reported."""
    folder = options.folder / study.part / "tune"
    work = composed_cells(tuning_jobs(study), folder, options.overrides)
    done = sitting.run(work, folder)
    found = choose(study, read_cells(folder))
    say(str(write_choice(folder, study, found)))
    for one in found:
        if one.overrides is None:
            say(f"{one.name}: no choice yet")
    return done


def run(study: Study, sitting: Sitting, options: argparse.Namespace) -> bool:
    """Run what is reported, each method with the values that were chosen for it."""
    folder = options.folder / study.part / "run"
    tuned = options.folder / study.choice / "tune"
    study = narrowed(study, [], options.settings)
    choices = choices_for(study, tuned)
    waiting = [one.name for one in study.contestants if one.tuned_as not in choices]
    if waiting:
        say(f"left out, to be tuned first: {', '.join(waiting)}")
    copy_choice(tuned, folder, choices)
    jobs = final_jobs(study, choices, options.seeds)
    return sitting.run(composed_cells(jobs, folder, options.overrides), folder) and not waiting


def say(line: str) -> None:
    sys.stderr.write(f"benchmark: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
