"""The schema as a person reads it on the screen."""

import io

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fedtsd.data.table.schema import Column, Schema
from fedtsd.data.targets import few, number_text

MOST_SITES = 20


def show_schema(schema: Schema, width: int = 100, colour: bool = False) -> str:
    """Return the columns as a grid, then what is learned, from whom, and the notes."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False
    )
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("column", "left"), ("kind", "left"), ("different", "right")):
        grid.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    grid.add_column("missing", justify="right")
    grid.add_column("holds", overflow="fold")
    for column in schema.columns:
        missing = f"{column.missing:,}" if column.missing else "-"
        cells = (column.name, column.kind, f"{column.distinct:,}", missing, _holds(column))
        grid.add_row(*(Text(cell) for cell in cells), style="dim" * (column.kind == "ignored"))
    console.print(grid)
    console.print()
    for line in _lines(schema):
        console.print(Text(line))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _holds(column: Column) -> str:
    if column.reason:
        return f"left out: {column.reason}"
    if column.values:
        return few(column.values, 8)
    if column.low is None or column.high is None:
        return ""
    return f"{_number(column.low)} to {_number(column.high)}"


def _number(value: float) -> str:
    return number_text(float(f"{value:.6g}"))


def _lines(schema: Schema) -> list[str]:
    what = "classes" if schema.task == "classification" else "strata"
    lines = [
        f"{schema.num_samples:,} samples, {len(schema.features)} features",
        f"{schema.task}, {len(schema.classes)} {what}: {few(schema.classes, 10)}",
    ]
    if schema.sites:
        pairs = zip(schema.sites, schema.site_sizes, strict=True)
        sites = few((f"{site} ({size:,})" for site, size in pairs), MOST_SITES)
        lines.append(f"{len(schema.sites)} sites: {sites}")
    return lines + [f"note: {note}" for note in schema.notes]
