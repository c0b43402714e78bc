"""`fedtsd bench`: measure, print, and write what was asked for."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fedtsd.bench.machine import describe_machine
from fedtsd.bench.measure import Say, measure_workload
from fedtsd.bench.plan import USAGE, Plan, read_plan
from fedtsd.bench.scaling import (
    COLUMNS,
    ROUND_COLUMNS,
    WHEN,
    growth_rows,
    late_rows,
    measure_scaling,
)
from fedtsd.bench.table import (
    SPEED,
    SPLIT,
    Cells,
    check_page,
    markdown,
    print_table,
    speed_rows,
    split_rows,
    stdout,
    write_page,
)
from fedtsd.bench.worker import WorkerFailed


@dataclass(frozen=True)
class Printed:
    """A table to be shown: its title, columns, rows, and how many columns hold names."""

    title: str
    columns: Cells
    rows: Sequence[Cells]
    names: int


def bench_command(args: Sequence[str]) -> int:
    """Measure what `args` ask for; print tables and write files. Return 1 if anything failed.

    Raises InputError with one line, before anything is measured, for wrong input.
    """
    if {"-h", "--help"} & set(args):
        sys.stdout.write(USAGE)
        return 0
    plan = read_plan(args)
    if plan.markdown is not None:
        check_page(plan.markdown, plan.subject)
    plan.check()
    try:
        with Console(stderr=True).status("the machine's peak") as status:
            results = measure(plan, lambda line: status.update(line))
    except WorkerFailed as error:  # the yardstick, without which nothing can be said
        sys.stderr.write(f"fedtsd: bench failed: {error}\n")
        return 1
    tables = tables_of(results)
    console = stdout()
    console.print(machine_line(results["machine"]), highlight=False)
    for table in tables:
        print_table(console, table.title, table.columns, table.rows, table.names)
    failed = [row for row in results["rows"] if "error" in row]
    for row in failed:
        names = f"{row['workload']} {row['engine']} {row['method']}"
        sys.stderr.write(f"fedtsd: {names} failed: {row['error']}\n")
    if plan.json is not None:
        plan.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if plan.markdown is not None:
        write_page(plan.markdown, plan.subject, as_markdown(results["machine"], tables))
    return 1 if failed else 0


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """Return `machine`, `central` (one row per workload), `rows`, and `scaling` if asked for."""
    from fedtsd.clients.engine import choose_device
    from fedtsd.compose import check, composed

    device = choose_device(check(composed(list(plan.overrides))).device)
    results: dict[str, Any] = {"machine": describe_machine(device.type), "central": [], "rows": []}
    if plan.scaling:
        engine, repetitions = plan.engines[0], plan.repetitions
        found = measure_scaling(engine, plan.overrides, repetitions, plan.seconds, say)
        return {**results, "scaling": found}
    for workload in plan.workloads:
        variants, peak = plan.variants(workload), results["machine"]["peak_flops"]
        found = measure_workload(variants, plan.repetitions, plan.seconds, peak, say)
        results["central"].append(found["central"])
        results["rows"] += found["rows"]
    return results


def tables_of(results: dict[str, Any]) -> list[Printed]:
    """Return the tables that show these results."""
    if "scaling" in results:
        growth, engine = results["scaling"], results["scaling"]["engine"]
        return [
            Printed(f"Milliseconds of a round, engine {engine}", COLUMNS, growth_rows(growth), 2),
            Printed(WHEN, ROUND_COLUMNS, late_rows(growth), 1),
        ]
    return [
        Printed("Training speed", SPEED, speed_rows(results), 3),
        Printed(
            "Milliseconds of a round; of one evaluation, one checkpoint",
            SPLIT,
            split_rows(results),
            3,
        ),
    ]


def machine_line(machine: dict[str, Any]) -> str:
    """Say on what it was measured."""
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    peak = f"{machine['peak_flops'] / 1e9:,.0f} GFLOP/s in fp32"
    return f"{where}, {peak}; torch {machine['torch']}, Python {machine['python']}"


def as_markdown(machine: dict[str, Any], tables: Sequence[Printed]) -> str:
    """Return all tables in Markdown."""
    parts = [f"{machine_line(machine)}.\n"]
    for table in tables:
        parts.append(f"\n{table.title}:\n\n{markdown(table.columns, table.rows, table.names)}")
    return "".join(parts)
